#include "pool.h"

#include <chrono>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace camelid {
namespace {

void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr int SPINS = 4000;                             // then the core is offered to others
constexpr auto AWAKE = std::chrono::microseconds(500);  // between tasks: a sampler's time; then sleep

}  // namespace

Pool::Pool(int threads) : size_(threads < 1 ? 1 : threads), tickets_(size_), shares_((size_t)size_) {
    for (int i = 1; i < size_; i++) threads_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ends_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::run(const std::function<void(int)>& task) {
    task_ = &task;
    tickets_.store(size_, std::memory_order_relaxed);
    running_.store(size_ - 1, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_relaxed);
    task_number_.fetch_add(1);
    if (sleeping_.load()) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    task(0);
    for (int spins = 0; running_.load(std::memory_order_acquire); spins++)
        spins < SPINS ? pause_briefly() : std::this_thread::yield();
}

void Pool::barrier() {
    if (size_ == 1) {
        tickets_.store(1, std::memory_order_relaxed);
        phase_.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        tickets_.store(size_, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++)
        spins < SPINS ? pause_briefly() : std::this_thread::yield();
}

bool Pool::take(int thread, int total, int step, int& first, int& last) {
    const uint64_t phase = phase_.load(std::memory_order_relaxed) & 0xffffu;
    const auto packed = [&](int from, int to) { return phase << 48 | (uint64_t)from << 24 | (uint64_t)to; };
    for (int i = 0; i < size_; i++) {
        const int owner = (thread + i) % size_;
        std::atomic<uint64_t>& range = shares_[(size_t)owner].range;
        for (uint64_t seen = range.load(std::memory_order_relaxed);;) {
            int from = (int)(seen >> 24 & 0xffffffu), to = (int)(seen & 0xffffffu);
            if (seen >> 48 != phase)  // its owner has not come here yet
                from = (int)((int64_t)total * owner / size_), to = (int)((int64_t)total * (owner + 1) / size_);
            if (from >= to) break;
            const int some = step < to - from ? step : to - from;
            const uint64_t left = i ? packed(from, to - some) : packed(from + some, to);
            if (!range.compare_exchange_weak(seen, left, std::memory_order_relaxed)) continue;
            first = i ? to - some : from, last = first + some;
            return true;
        }
    }
    return false;
}

unsigned Pool::wait_for_task(unsigned seen) {
    const auto start = std::chrono::steady_clock::now();
    for (int spins = 1;; spins++) {
        const unsigned number = task_number_.load(std::memory_order_acquire);
        if (number != seen || ends_) return number;
        pause_briefly();
        if (spins % 256 == 0 && std::chrono::steady_clock::now() - start > AWAKE) break;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1);
    wake_.wait(lock, [&] { return task_number_.load() != seen || ends_; });
    sleeping_.fetch_sub(1);
    return task_number_.load();
}

void Pool::work(int index) {
    for (unsigned seen = 0;;) {
        seen = wait_for_task(seen);
        if (ends_) return;
        (*task_)(index);
        running_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace camelid
