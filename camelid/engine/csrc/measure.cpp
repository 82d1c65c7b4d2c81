#include "measure.h"

#include <algorithm>
#include <chrono>

#include "buffer.h"
#include "pool.h"

namespace camelid {
namespace {

using Clock = std::chrono::steady_clock;

template <class Work> double best_seconds(int times, Work&& work) {
    double best = 1e30;
    for (int i = 0; i < times; i++) {
        const auto start = Clock::now();
        work();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return best;
}

}  // namespace

double read_bandwidth(const Kernels& kernels, int threads, size_t megabytes) {
    const size_t share = (megabytes << 20) / (size_t)threads / 1024 * 1024;
    const Arena arena(share * (size_t)threads + 8192, true);
    Pool pool(threads);
    pool.run([&](int t) { std::fill_n(arena.data() + (size_t)t * share, share, (uint8_t)1); });
    std::atomic<uint64_t> sink{0};
    const double seconds = best_seconds(7, [&] {
        pool.run([&](int t) { sink += kernels.read(arena.data() + (size_t)t * share, share); });
    });
    return (double)(share * (size_t)threads) / seconds;
}

double multiply_peak(const Kernels& kernels, int what, int threads) {
    constexpr long rounds = 2000000;
    Pool pool(threads);
    double operations = 0;
    const double seconds = best_seconds(5, [&] {
        pool.run([&](int t) {
            const double done = kernels.multiply_loop(what, rounds);
            if (t == 0) operations = done;
        });
    });
    return operations * threads / seconds;
}

}  // namespace camelid
