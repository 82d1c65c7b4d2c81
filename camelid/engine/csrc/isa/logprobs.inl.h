// What a row of logits exceeds its log-probabilities by, for any instruction set.
#pragma once

namespace camelid::CAMELID_ISA {

constexpr int SUMS = 4;                  // registers side by side
constexpr int LOOK = 64 * SUMS * LANES;  // numbers of which the largest is found at a time

// The last numbers of a row, fewer than four registers, and so small ones behind that they count for nothing.
struct Tail {
    float x[SUMS * LANES];
    Tail(const float* row, int n) {
        for (int i = 0; i < SUMS * LANES; i++) x[i] = i < n ? row[i] : -INFINITY;
    }
};

// log Σ e^x of a row of n logits, and the first of its largest; not finite where the row is not of numbers.
double log_sum(const float* row, int n, int* best) {
    constexpr int step = SUMS * LANES;
    const int whole = n / step * step;
    const Tail tail(row + whole, n - whole);
    float highest = -INFINITY;
    int block = 0;
    for (int begin = 0; begin < n; begin += LOOK) {
        F most[SUMS];
        each<SUMS>([&](auto i) INLINE { most[i] = set1(-INFINITY); });
        const auto look = [&](const float* x) INLINE {
            each<SUMS>([&](auto i) INLINE { most[i] = max(load(x + LANES * i), most[i]); });
        };
        const int end = std::min(begin + LOOK, whole);
        for (int i = begin; i < end; i += step) look(row + i);
        if (begin + LOOK > whole) look(tail.x);
        const float here = reduce_max(max(max(most[0], most[1]), max(most[2], most[3])));
        if (here > highest) highest = here, block = begin;
    }
    *best = block;
    while (*best + 1 < n && row[*best] != highest) ++*best;

    // Each lane keeps what its additions lose (Kahan 1965).
    F sums[SUMS], lost[SUMS];
    each<SUMS>([&](auto i) INLINE { sums[i] = lost[i] = zero(); });
    const auto take = [&](const float* from) INLINE {
        F x[SUMS];
        each<SUMS>([&](auto i) INLINE { x[i] = sub(load(from + LANES * i), set1(highest)); });
        exp(x);
        each<SUMS>([&](auto i) INLINE {
            const F term = sub(x[i], lost[i]), next = add(sums[i], term);
            lost[i] = sub(sub(next, sums[i]), term);
            sums[i] = next;
        });
    };
    for (int i = 0; i < whole; i += step) take(row + i);
    if (whole < n) take(tail.x);
    double total = 0;
    for (int i = 0; i < SUMS; i++) {
        float kept[LANES], rest[LANES];
        store(kept, sums[i]), store(rest, lost[i]);
        for (int lane = 0; lane < LANES; lane++) total += (double)kept[lane] - (double)rest[lane];
    }
    return (double)highest + std::log(total);
}

}  // namespace camelid::CAMELID_ISA
