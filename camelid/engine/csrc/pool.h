// The threads of an engine: they run one function together and meet at barriers. They wait awake for a moment, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace camelid {

class Pool {
public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }
    // Runs task(0) here and task(1) … on the other threads; returns when all are done.
    void run(const std::function<void(int)>& task);
    // Called by every thread within a task: goes on when all have come. Tickets start anew.
    void barrier();
    // The next piece of work since the last barrier: 0 … size − 1 belong to the threads, these are the ones after.
    int ticket() { return tickets_.fetch_add(1, std::memory_order_relaxed); }
    // Up to `step` of `total` pieces in line, taken once since the last barrier: first the thread's own share from its
    // front, so that it reads on where it was, then the ends of others' shares. False when none is left.
    bool take(int thread, int total, int step, int& first, int& last);

private:
    void work(int index);
    unsigned wait_for_task(unsigned seen);

    const int size_;
    alignas(64) std::atomic<int> tickets_;
    struct alignas(64) Share {
        std::atomic<uint64_t> range{0};  // phase, first, last: 16, 24 and 24 bits
    };
    std::vector<Share> shares_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> phase_{0};
    alignas(64) std::atomic<unsigned> task_number_{0};
    alignas(64) std::atomic<int> running_{0};
    const std::function<void(int)>* task_ = nullptr;
    std::atomic<bool> ends_{false};
    std::atomic<int> sleeping_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace camelid
