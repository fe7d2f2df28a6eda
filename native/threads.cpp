#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "cores.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace onepass {
namespace {

constexpr auto spin = std::chrono::microseconds(20);

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// A count that many threads raise and one waits for, first spinning, then asleep.
class Signal {
  public:
    void raise() {
        count_.fetch_add(1);
        if (!asleep_.load()) return;
        { std::lock_guard<std::mutex> lock(mutex_); }  // the waiter is past its last look at the count
        wake_.notify_one();
    }

    void wait_for(uint32_t count) {
        const auto end = std::chrono::steady_clock::now() + spin;
        do {
            for (int i = 0; i < 64; ++i, pause())
                if (count_.load(std::memory_order_acquire) == count) return;
        } while (std::chrono::steady_clock::now() < end);
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true);
        wake_.wait(lock, [&] { return count_.load() == count; });
        asleep_.store(false);
    }

  private:
    std::atomic<uint32_t> count_{0};
    std::atomic<bool> asleep_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
};

// Lives as long as the process: its threads sleep in it when the process ends.
class Workers {
  public:
    explicit Workers(int count) {
        for (int i = 0; i < count; ++i) {
            starts_.emplace_back();
            try {
                std::thread(&Workers::work_forever, this, &starts_.back(), i + 1).detach();
            } catch (const std::system_error&) {  // the system grants no more threads
                starts_.pop_back();
                break;
            }
        }
    }

    int count() const { return static_cast<int>(starts_.size()); }

    void run(int helpers, void (*work)(const void*, int), const void* context) {
        work_ = work;
        context_ = context;
        for (int i = 0; i < helpers; ++i) starts_[static_cast<size_t>(i)].raise();
        work(context, 0);
        finished_total_ += static_cast<uint32_t>(helpers);
        finished_.wait_for(finished_total_);
    }

    std::atomic<int> next_item{0};

  private:
    void work_forever(Signal* start, int member) {
        for (uint32_t round = 1;; ++round) {
            start->wait_for(round);
            work_(context_, member);
            finished_.raise();
        }
    }

    std::deque<Signal> starts_;
    Signal finished_;
    uint32_t finished_total_ = 0;
    void (*work_)(const void*, int) = nullptr;
    const void* context_ = nullptr;
};

// Whoever sets `taken` may touch `workers` until it clears it again.
std::atomic<bool> taken{false};
Workers* workers = nullptr;

// A forked child has none of the threads: it forgets them, and starts its own when it wants some.
void forget_workers() {
    workers = nullptr;
    taken.store(false);
}

void start_workers() {
    static const bool watching_forks = pthread_atfork(nullptr, nullptr, forget_workers) == 0;
    if (watching_forks && !workers) workers = new Workers(compute_threads() - 1);
}

}  // namespace

Team::Team(int cores) {
    if (cores <= 1 || taken.exchange(true)) return;
    start_workers();
    if (workers) size_ = std::min(cores, workers->count() + 1);
    if (size_ == 1) taken.store(false);
}

Team::~Team() {
    if (size_ > 1) taken.store(false);
}

void Team::run(void (*work)(const void*, int), const void* context) { workers->run(size_ - 1, work, context); }

void Team::restart_items() {
    if (size_ == 1) item_ = 0;
    else workers->next_item.store(0);
}

int Team::next_item() { return size_ == 1 ? item_++ : workers->next_item.fetch_add(1); }

}  // namespace onepass
