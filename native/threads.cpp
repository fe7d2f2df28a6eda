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

// Where one thread waits for others: first spinning, then asleep.
class Waiting {
  public:
    template <class Ready>
    void until(const Ready& ready) {
        const auto end = std::chrono::steady_clock::now() + spin;
        do {
            for (int i = 0; i < 64; ++i, pause())
                if (ready()) return;
        } while (std::chrono::steady_clock::now() < end);
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true);
        wake_.wait(lock, ready);
        asleep_.store(false);
    }

    // To be called after what it waits for has become true.
    void end() {
        if (!asleep_.load()) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
        }  // it is past its last look
        wake_.notify_one();
    }

  private:
    std::atomic<bool> asleep_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
};

// Lives as long as the process: its threads sleep in it when the process ends.
class Workers {
  public:
    explicit Workers(int count) {
        for (int i = 0; i < count; ++i) {
            calls_.emplace_back();
            try {
                std::thread(&Workers::work_forever, this, &calls_.back(), i + 1).detach();
            } catch (const std::system_error&) {  // the system grants no more threads
                calls_.pop_back();
                break;
            }
        }
    }

    int count() const { return static_cast<int>(calls_.size()); }

    // work(context, member) on the calling thread and on those of the helpers that come before it is done.
    void run(int helpers, void (*work)(const void*, int), const void* context) {
        work_ = work;
        context_ = context;
        next_item.store(0);
        inside_.store(open);
        for (int i = 0; i < helpers; ++i) {
            Call& call = calls_[static_cast<size_t>(i)];
            call.rounds.fetch_add(1);
            call.waiting.end();
        }
        work(context, 0);
        inside_.fetch_sub(open);
        leader_.until([&] { return inside_.load() == 0; });
    }

    std::atomic<int> next_item{0};

  private:
    struct Call {
        std::atomic<uint32_t> rounds{0};
        Waiting waiting;
    };

    void work_forever(Call* call, int member) {
        for (uint32_t seen = 0;;) {
            call->waiting.until([&] { return call->rounds.load() != seen; });
            seen = call->rounds.load();
            if (!enter()) continue;
            work_(context_, member);
            if (inside_.fetch_sub(1) == 1) leader_.end();
        }
    }

    // Whether the round is still open; then the leader waits for this worker.
    bool enter() {
        int inside = inside_.load();
        while (inside >= open)
            if (inside_.compare_exchange_weak(inside, inside + 1)) return true;
        return false;
    }

    static constexpr int open = 1 << 30;
    std::deque<Call> calls_;
    Waiting leader_;
    std::atomic<int> inside_{0};  // workers in the round, plus `open` while more may come
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

int Team::next_item() { return workers->next_item.fetch_add(1); }

}  // namespace onepass
