// Softmaxes in plain loops, each compiled for several instruction sets.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CAMELID_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CAMELID_CLONES
#endif
#ifdef __GNUC__
#define CAMELID_INLINE inline __attribute__((always_inline))  // a call would leave a clone's instruction set
#else
#define CAMELID_INLINE inline
#endif

namespace camelid {

struct Bf16 {
    uint16_t bits;
};

CAMELID_INLINE float to_float(float x) { return x; }
CAMELID_INLINE float to_float(Bf16 x) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

CAMELID_INLINE void from_float(float x, float& out) { out = x; }
CAMELID_INLINE void from_float(float x, Bf16& out) {  // to the nearest, ties to even; a processor's own NaN stays one
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    out.bits = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// eˣ of x ≤ 0, never below 2⁻¹²⁶, to 2e-7 (without fused multiply-add 1e-7 · |x|). 2ᵗ = 2ⁿ · 2ᶠ, f within ½ of 0; the
// polynomial is Cephes' exp2f (Moshier 1992).
CAMELID_INLINE float power(float x) {
    constexpr float LOG2_E = 1.44269504088896341f, SHIFT = 12582912.0f;  // 1.5 · 2²³: adding it rounds to an integer
    x = std::max(x, -87.0f);
    const float shifted = x * LOG2_E + SHIFT, n = shifted - SHIFT, f = x * LOG2_E - n;
    float p = 1.535336188319500e-4f;
    p = p * f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, 4);  // its low bits are n
    bits = (bits + 127) << 23;
    float two_to_n;
    std::memcpy(&two_to_n, &bits, 4);
    return p * two_to_n;
}

// Largest of n scores; -inf if there is none. What is no number is passed over.
template <class T>
CAMELID_INLINE float largest(const T* scores, int64_t n) {
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (int64_t i = 0; i < n; i++) maximum = std::max(maximum, to_float(scores[i]));
    return maximum;
}

// The largest score of each of n columns in some rows.
template <class T>
CAMELID_INLINE void largest_of_columns(const T* scores, int64_t rows, int64_t n, float* maxima) {
    std::fill(maxima, maxima + n, -INFINITY);
    for (int64_t row = 0; row < rows; row++)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float maximum = maxima[i], score = to_float(scores[row * n + i]);
            maxima[i] = score > maximum ? score : maximum;
        }
}

// e^(score - maximum of its column) in the place of some rows of scores; the sums of each column. scratch: for n.
template <class T>
CAMELID_INLINE void powers_of_columns(T* scores, int64_t rows, int64_t n, const float* maxima, double* sums,
                                      float* scratch) {
    constexpr int64_t FEW = 32;  // rows whose sums are float32: many small ones added to a large one wear down
    std::fill(sums, sums + n, 0.0);
    for (int64_t start = 0; start < rows; start += FEW) {
        std::fill(scratch, scratch + n, 0.0f);
        for (int64_t row = start; row < std::min(start + FEW, rows); row++)
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
                const float p = power(to_float(scores[row * n + i]) - maxima[i]);
                scratch[i] += p;
                from_float(p, scores[row * n + i]);
            }
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sums[i] += scratch[i];
    }
}

// n scores become their softmax. powers: scratch for n.
template <class T>
CAMELID_INLINE void weights_row(T* scores, int64_t n, float* powers) {
    const float maximum = largest(scores, n);
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += powers[i] = power(to_float(scores[i]) - maximum);
    const float share = 1 / total;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) from_float(powers[i] * share, scores[i]);
}

// The gradient of n scores takes the place of that of their softmax, `weights`.
template <class T>
CAMELID_INLINE void weights_gradient_row(T* grad, const T* weights, int64_t n) {
    float product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t i = 0; i < n; i++) product += to_float(grad[i]) * to_float(weights[i]);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) from_float(to_float(weights[i]) * (to_float(grad[i]) - product), grad[i]);
}

}  // namespace camelid
