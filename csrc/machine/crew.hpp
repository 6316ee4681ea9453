// Threads that go through one piece of work together: a leader, which does everything that is done once, and helpers,
// which take their share of what can be divided.
//
// The leader never waits for a helper that has not come. While a crew is at work its helpers look for the next share
// without sleeping, because shares come every few microseconds; they sleep again when the leader dismisses them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace gte {

class Crew {
  public:
    // work(context, item, member) does one item of a share. member: 0 for the leader, below `size` for helpers.
    using Work = void (*)(const void* context, size_t item, size_t member);

    explicit Crew(size_t size) : size_(size) {}
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    size_t size() const { return size_; }

    // Leader: does items 0 .. item_count-1, each once, with those who are there, and returns when all are done. At most
    // 65535 items. work must not throw.
    void share(size_t item_count, Work work, const void* context);

    // Helper: takes part in shares until it is dismissed.
    void help(size_t member);

    // Leader: lets the helpers go, those that come later too.
    void dismiss() { dismissed_.store(true, std::memory_order_release); }

  private:
    bool take_item(size_t& item);

    const size_t size_;
    // The number of the share in the upper 32 bits, then its items, then how many of them have been taken, in 16 bits
    // each: one word, so that an item can be taken only from the share that its taker has seen.
    std::atomic<uint64_t> state_{0};
    std::atomic<size_t> done_{0};
    std::atomic<Work> work_{nullptr};
    std::atomic<const void*> context_{nullptr};
    std::atomic<bool> dismissed_{false};
};

// As Crew::share, for a `work` that is called as work(item, member).
template <typename Function>
void share(Crew& crew, size_t item_count, const Function& work) {
    const Crew::Work call = [](const void* context, size_t item, size_t member) {
        (*static_cast<const Function*>(context))(item, member);
    };
    crew.share(item_count, call, &work);
}

// Calls work(first, last, member) for parts of 0 .. count-1, on all threads of a crew.
template <typename Function>
void share_parts(Crew& crew, size_t count, const Function& work) {
    // Threads that come late, or are held up, leave more of the small parts to the others.
    const size_t most_parts = crew.size() == 1 ? 1 : 4 * crew.size(), size = (count + most_parts - 1) / most_parts;
    share(crew, (count + size - 1) / size, [&](size_t part, size_t member) {
        const size_t first = part * size, last = count - first < size ? count : first + size;
        work(first, last, member);
    });
}

}  // namespace gte
