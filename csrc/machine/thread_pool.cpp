#include "machine/thread_pool.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace gte {
namespace {

#if defined(__linux__)
int current_cpu() { return sched_getcpu(); }

// Moves this thread to another of the CPUs that it may use, if there is one. It may come back later.
void leave_cpu(int cpu) {
    cpu_set_t allowed;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return;
    }
    cpu_set_t others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) {
        sched_setaffinity(0, sizeof allowed, &allowed);
    }
}
#else
int current_cpu() { return -1; }
void leave_cpu(int) {}
#endif

struct Run {
    void (*work)(void*, size_t);
    void* context;
    int cpu;  // the caller's, or -1
    size_t next_slot;
    size_t slot_count;
    size_t running = 0;
    std::condition_variable finished{};
};

class Pool {
  public:
    void run(size_t slot_count, void (*work)(void*, size_t), void* context) {
        Run run{work, context, current_cpu(), 1, slot_count};
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            runs_.push_back(&run);
            start_threads(slot_count - 1);
        }
        for (size_t slot = 1; slot < slot_count; ++slot) {
            wake_.notify_one();
        }
        work(context, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        if (run.next_slot < run.slot_count) {
            remove(&run);
        }
        run.finished.wait(lock, [&] { return run.running == 0; });
    }

  private:
    // The pool grows to the widest run so far. A system that refuses a thread leaves the caller with fewer helpers.
    void start_threads(size_t wanted) {
        while (thread_count_ < wanted) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error&) {
                return;
            }
            ++thread_count_;
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return !runs_.empty(); });
            // Linux often wakes a thread on the CPU of the one that wakes it, and on a small virtual machine leaves it
            // there for milliseconds, the length of many searches. It moves before it takes a slot: a helper that finds
            // the other CPUs busy holds nobody up.
            const int cpu = runs_.front()->cpu;
            if (cpu >= 0 && cpu == current_cpu()) {
                lock.unlock();
                leave_cpu(cpu);
                lock.lock();
                if (runs_.empty()) {
                    continue;
                }
            }
            Run* run = runs_.front();
            const size_t slot = run->next_slot++;
            ++run->running;
            if (run->next_slot == run->slot_count) {
                runs_.pop_front();
            }
            lock.unlock();
            run->work(run->context, slot);
            lock.lock();
            if (--run->running == 0) {
                run->finished.notify_all();
            }
        }
    }

    void remove(const Run* run) {
        for (auto position = runs_.begin(); position != runs_.end(); ++position) {
            if (*position == run) {
                runs_.erase(position);
                return;
            }
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Run*> runs_;  // those with slots that nobody has started
    size_t thread_count_ = 0;
};

// Never destroyed: the detached threads sleep in it until the process ends.
std::atomic<Pool*> shared_pool{nullptr};

#if !defined(_WIN32)
void forget_pool_in_child() { shared_pool.store(nullptr); }
#endif

Pool& pool() {
    Pool* existing = shared_pool.load();
    if (existing != nullptr) {
        return *existing;
    }
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    static_cast<void>(registered);
#endif
    Pool* created = new Pool;
    if (shared_pool.compare_exchange_strong(existing, created)) {
        return *created;
    }
    delete created;
    return *existing;
}

}  // namespace

void run_on_pool(size_t slot_count, void (*work)(void* context, size_t slot), void* context) {
    if (slot_count <= 1) {
        work(context, 0);
        return;
    }
    pool().run(slot_count, work, context);
}

}  // namespace gte
