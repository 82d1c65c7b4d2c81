// Passes over a row of logits, for any instruction set.
#pragma once

namespace camelid::CAMELID_ISA {

// f(x, block) for each 64 logits; the last of them are filled up with −∞.
template <class Of> inline INLINE void each_block(const float* row, int n, Of&& of) {
    int i = 0;
    for (; i + LOGITS <= n; i += LOGITS) of(row + i, i / LOGITS);
    if (i == n) return;
    alignas(64) float rest[LOGITS];
    for (int j = 0; j < LOGITS; j++) rest[j] = i + j < n ? row[i + j] : -INFINITY;
    of((const float*)rest, i / LOGITS);
}

bool block_maxima(const float* row, int n, float* maxima) {
    I largest[4] = {izero(), izero(), izero(), izero()};
    each_block(row, n, [&](const float* x, int block) INLINE {
        F all[4];
        each<4>([&](auto q) INLINE {
            all[q] = load(x + LANES * q);
            const I bits = bits_of(all[q]);
            // As integers NaN and +∞ are the largest. Of negative numbers only NaN counts, without their sign.
            largest[q] = imax(largest[q], imax(bits, iadd(iand(bits, iset1(0x7fffffff)), iset1(-1))));
        });
        maxima[block] = reduce_max(max(max(all[0], all[1]), max(all[2], all[3])));
    });
    alignas(64) int32_t bits[LANES];
    istore(bits, imax(imax(largest[0], largest[1]), imax(largest[2], largest[3])));
    int32_t most = 0;
    for (int32_t each : bits) most = each > most ? each : most;
    return most < 0x7f800000;
}

double sum_of_powers(const float* row, int n, float highest, float inverse) {
    double total = 0;
    F sums[4];
    each_block(row, n, [&](const float* x, int block) INLINE {
        F powers[4];
        each<4>([&](auto q) INLINE { powers[q] = mul(sub(load(x + LANES * q), set1(highest)), set1(inverse)); });
        exp(powers);
        if (block % 4 == 0) each<4>([&](auto q) INLINE { sums[q] = zero(); });
        each<4>([&](auto q) INLINE { sums[q] = add(sums[q], powers[q]); });
        if (block % 4 == 3) total += (double)sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
    });
    if ((n + LOGITS - 1) / LOGITS % 4) total += (double)sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
    return total;
}

inline INLINE double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

// e^x for x up to 0, to about one unit in the last place. Cody and Waite's reduction, and Taylor's series.
inline INLINE double power(double x) {
    constexpr double whole = 6755399441055744.0;  // 1.5 · 2^52: a number added to it is rounded into its lowest bits
    x = x < -LEAST_POWER ? -LEAST_POWER : x;
    const double rounded = multiply_add(x, 1.4426950408889634, whole), n = rounded - whole;
    const double r = multiply_add(n, -1.90821492927058770002e-10, multiply_add(n, -6.93147180369123816490e-01, x));
    double p = multiply_add(1.0 / 6227020800, r, 1.0 / 479001600);
    p = multiply_add(multiply_add(p, r, 1.0 / 39916800), r, 1.0 / 3628800);
    p = multiply_add(multiply_add(p, r, 1.0 / 362880), r, 1.0 / 40320);
    p = multiply_add(multiply_add(p, r, 1.0 / 5040), r, 1.0 / 720);
    p = multiply_add(multiply_add(p, r, 1.0 / 120), r, 1.0 / 24);
    p = multiply_add(multiply_add(p, r, 1.0 / 6), r, 1.0 / 2);
    p = multiply_add(multiply_add(p, r, 1.0), r, 1.0);
    uint64_t shift, bits;
    std::memcpy(&shift, &rounded, 8), std::memcpy(&bits, &p, 8);
    bits += shift << 52;
    std::memcpy(&p, &bits, 8);
    return p;
}

inline INLINE double total_of(double (&x)[LOGITS]) {  // in place
    for (int i = 0; i < 32; i++) x[i] += x[i + 32];
    for (int i = 0; i < 16; i++) x[i] += x[i + 16];
    for (int i = 0; i < 8; i++) x[i] += x[i + 8];
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

void block_sums(const float* row, int n, double highest, double inverse, double* sums, double* weighted) {
    each_block(row, n, [&](const float* x, int block) INLINE {
        alignas(64) double below[LOGITS], powers[LOGITS];
        for (int i = 0; i < LOGITS; i++) {
            const double d = ((double)x[i] - highest) * inverse;
            below[i] = d < -LEAST_POWER ? -LEAST_POWER : d;
        }
        for (int i = 0; i < LOGITS; i++) powers[i] = power(below[i]);
        if (weighted) {
            for (int i = 0; i < LOGITS; i++) below[i] *= powers[i];
            weighted[block] = total_of(below);
        }
        sums[block] = total_of(powers);
    });
}

void powers_of(double* x, int n) {
    for (int i = 0; i < n; i++) x[i] = power(x[i]);
}

int count_above(const float* row, int n, float bound) {
    int total = 0;
    for (int i = 0; i < n; i++) total += row[i] > bound;
    return total;
}

const SamplingKernels SAMPLING = {block_maxima, sum_of_powers, block_sums, powers_of, count_above};

}  // namespace camelid::CAMELID_ISA
