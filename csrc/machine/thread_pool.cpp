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
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gte {
namespace {

// Linux often wakes a thread on the CPU of the one that wakes it, and on a small virtual machine leaves it there for
// milliseconds, the length of many searches. So a sleeping helper is kept off its caller's CPU until it has started.
// It holds nobody up if the other CPUs are busy: it has no slot yet, and when it has one, it may run anywhere again.
#if defined(__linux__)

class Helper {
  public:
    void begin() { id_ = static_cast<pid_t>(syscall(SYS_gettid)); }

    bool asleep = false;

    // Called by a thread that is about to wake it.
    void keep_off_callers_cpu() {
        cpu_set_t others;
        const int cpu = sched_getcpu();
        if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) {
            return;
        }
        others = allowed_;
        CPU_CLR(cpu, &others);
        is_kept_off_ = CPU_COUNT(&others) > 0 && sched_setaffinity(id_, sizeof others, &others) == 0;
    }

    // Called by itself: it may use the CPUs that its caller may use.
    void go_anywhere() {
        if (is_kept_off_) {
            sched_setaffinity(0, sizeof allowed_, &allowed_);
            is_kept_off_ = false;
        }
    }

  private:
    pid_t id_ = 0;
    cpu_set_t allowed_{};
    bool is_kept_off_ = false;
};

#else

class Helper {
  public:
    void begin() {}
    bool asleep = false;
    void keep_off_callers_cpu() {}
    void go_anywhere() {}
};

#endif

// With more of them, asking for each would take longer than it saves, and Linux finds an idle CPU among many.
constexpr size_t most_placed_helpers = 7;

struct Run {
    void (*work)(void*, size_t);
    void* context;
    size_t next_slot;
    size_t slot_count;
    size_t running = 0;
    std::condition_variable finished{};
};

class Pool {
  public:
    void run(size_t slot_count, void (*work)(void*, size_t), void* context) {
        Run run{work, context, 1, slot_count};
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            runs_.push_back(&run);
            start_threads(slot_count - 1);
            for (Helper& helper : helpers_) {
                if (helper.asleep && helpers_.size() <= most_placed_helpers) {
                    helper.keep_off_callers_cpu();
                }
            }
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
        while (helpers_.size() < wanted) {
            helpers_.emplace_back();
            try {
                std::thread([this, &helper = helpers_.back()] { serve(helper); }).detach();
            } catch (const std::system_error&) {
                helpers_.pop_back();
                return;
            }
        }
    }

    void serve(Helper& helper) {
        std::unique_lock<std::mutex> lock(mutex_);
        helper.begin();
        for (;;) {
            helper.asleep = true;
            wake_.wait(lock, [&] { return !runs_.empty(); });
            helper.asleep = false;
            helper.go_anywhere();
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
    std::deque<Helper> helpers_;
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
