#include "machine/crew.hpp"

#include <thread>

#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#endif

namespace gte {
namespace {

// One look for something that another thread is about to do.
class Lookout {
  public:
    void wait() {
        if (++looks_ > 2000) {  // some microseconds: the other thread may need this CPU
            std::this_thread::yield();
            return;
        }
#if defined(GTE_X86)
        _mm_pause();
#endif
    }

  private:
    size_t looks_ = 0;
};

}  // namespace

// Takes an item of the current share. False: none is left.
bool Crew::take_item(size_t& item) {
    uint64_t state = state_.load(std::memory_order_acquire);
    do {
        item = state & 0xffff;
        if (item == (state >> 16 & 0xffff)) {
            return false;
        }
    } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    return true;
}

void Crew::share(size_t item_count, Work work, const void* context) {
    if (size_ <= 1 || item_count <= 1) {
        for (size_t item = 0; item < item_count; ++item) {
            work(context, item, 0);
        }
        return;
    }
    // Nobody reads these now: all items of the last share are taken and done.
    work_.store(work, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t share = (state_.load(std::memory_order_relaxed) >> 32) + 1;
    state_.store(share << 32 | static_cast<uint64_t>(item_count) << 16, std::memory_order_release);
    for (size_t item; take_item(item);) {
        work(context, item, 0);
        done_.fetch_add(1, std::memory_order_relaxed);
    }
    for (Lookout lookout; done_.load(std::memory_order_acquire) < item_count;) {
        lookout.wait();
    }
}

void Crew::help(size_t member) {
    Lookout lookout;
    while (!dismissed_.load(std::memory_order_acquire)) {
        size_t item;
        if (!take_item(item)) {
            lookout.wait();
            continue;
        }
        work_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), item, member);
        done_.fetch_add(1, std::memory_order_release);
        lookout = {};
    }
}

}  // namespace gte
