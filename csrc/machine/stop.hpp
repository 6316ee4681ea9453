// Lets a long run end before its work is done, because a signal asked for it.
#pragma once

#include <atomic>
#include <chrono>

namespace gte {

class Stop {
  public:
    // asked: whether the run should end. It is called on the thread of the run's caller, which may have to take a lock
    // for it.
    explicit Stop(bool (*asked)() = nullptr) : asked_(asked) {}

    // Asks again, at most every 50 ms. Only the caller's own thread (slot 0 of a run) may poll.
    void poll() {
        if (asked_ == nullptr || stopped()) {
            return;
        }
        const Clock::time_point now = Clock::now();
        if (now >= next_) {
            next_ = now + std::chrono::milliseconds(50);
            if (asked_()) {
                stopped_.store(true, std::memory_order_relaxed);
            }
        }
    }

    // From any thread. What a stopped run has written so far is incomplete.
    bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  private:
    using Clock = std::chrono::steady_clock;

    bool (*asked_)();
    Clock::time_point next_ = Clock::now() + std::chrono::milliseconds(50);
    std::atomic<bool> stopped_{false};
};

}  // namespace gte
