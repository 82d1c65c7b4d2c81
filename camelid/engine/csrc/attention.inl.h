// Attention over pages, for any instruction set: each query's result depends on its own positions only.
#pragma once

namespace camelid::CAMELID_ISA {

constexpr int STRIDE = 16;  // pages of a stretch: scores of a row take 16 · 16 floats

// Scores of T queries against P pages of keys (lane: position). The pages after them are fetched beside: one is too short
// for the processor to see that many are read in line.
template <int T, int P>
inline void score(const Heads& heads, const float* queries, const uint16_t* const* keys, float* scores) {
    F acc[T][P];
    each<T>([&](auto t) INLINE { each<P>([&](auto p) INLINE { acc[t][p] = zero(); }); });
    for (int e = 0; e < heads.width; e++) {
        F k[P];
        each<P>([&](auto p) INLINE {
            k[p] = load_f16(keys[p] + LANES * e);
            if (e % 2 == 0) prefetch(keys[P + p] + LANES * e);
        });
        each<T>([&](auto t) INLINE {
            const F q = set1(queries[t * heads.padded + e]);
            each<P>([&](auto p) INLINE { acc[t][p] = fma(q, k[p], acc[t][p]); });
        });
    }
    each<T>([&](auto t) INLINE {
        each<P>([&](auto p) INLINE { store(scores + t * STRIDE * LANES + p * LANES, acc[t][p]); });
    });
}

// Turns a row's n scores into powers of their distance from the peak; what lies beyond becomes 0.
inline void soften(float* scores, int n, int all, float& peak, float& mass) {
    for (int i = n; i < all; i++) scores[i] = -INFINITY;
    F highest = set1(-INFINITY);
    for (int i = 0; i < all; i += LANES) highest = max(load(scores + i), highest);
    peak = top(highest);
    const F shift = set1(peak);
    F total = zero();
    for (int i = 0; i < all; i += LANES) {
        const F power = exp(sub(load(scores + i), shift));
        store(scores + i, power);
        if (i + LANES > n)
            for (int j = n > i ? n : i; j < i + LANES; j++) scores[j] = 0;
        total = add(total, load(scores + i));
    }
    mass = sum(total);
}

// Sum over n positions of T rows' powers times V registers of their values. The second page from here is fetched beside.
template <int T, int V>
inline void mix(const Heads& heads, const float* powers, const uint16_t* const* values, int n, int column, float* mixed) {
    F acc[T][V];
    each<T>([&](auto t) INLINE { each<V>([&](auto v) INLINE { acc[t][v] = zero(); }); });
    for (int base = 0; base < n; base += LANES) {
        const uint16_t* page = values[base / LANES] + column;
        const uint16_t* next = values[base / LANES + 2] + column;
        const int last = n - base < LANES ? n - base : LANES;
        for (int j = 0; j < last; j++) {
            F value[V];
            each<V>([&](auto v) INLINE {
                value[v] = load_f16(page + j * heads.padded + LANES * v);
                if constexpr (v % 2 == 0) prefetch(next + j * heads.padded + LANES * v);
            });
            each<T>([&](auto t) INLINE {
                const F power = set1(powers[t * STRIDE * LANES + base + j]);
                each<V>([&](auto v) INLINE { acc[t][v] = fma(power, value[v], acc[t][v]); });
            });
        }
    }
    each<T>([&](auto t) INLINE {
        each<V>([&](auto v) INLINE { store(mixed + t * heads.padded + column + LANES * v, acc[t][v]); });
    });
}

template <int T>
void attend_rows(const Heads& heads, const float* queries, const int* limits, const uint16_t* const* keys,
                 const uint16_t* const* values, int begin, int n, float* scores, float* peak, float* mass,
                 float* mixed) {
    const int pages = (n + LANES - 1) / LANES;
    constexpr int P = T * 2 <= 2 * TILE_FLOAT_TOKENS ? 2 : 1;
    int p = 0;
    for (; p + P <= pages; p += P) score<T, P>(heads, queries, keys + p, scores + LANES * p);
    for (; p < pages; p++) score<T, 1>(heads, queries, keys + p, scores + LANES * p);
    for (int t = 0; t < T; t++) {
        const int own = limits[t] - begin < n ? limits[t] - begin : n;
        soften(scores + t * STRIDE * LANES, own > 0 ? own : 0, pages * LANES, peak[t], mass[t]);
    }
    constexpr int V = TILE_FLOAT_TOKENS >= 12 ? (T > 6 ? 2 : 4) : (T > 2 ? 1 : 2);
    int column = 0;
    for (; column + V * LANES <= heads.padded; column += V * LANES) mix<T, V>(heads, scores, values, n, column, mixed);
    for (; column < heads.padded; column += LANES) mix<T, 1>(heads, scores, values, n, column, mixed);
}

void attend(const Heads& heads, const float* queries, int rows, const int* limits, const uint16_t* const* keys,
            const uint16_t* const* values, int begin, int n, float* scores, float* peak, float* mass, float* mixed) {
    in_tiles<TILE_FLOAT_TOKENS>(rows, 0, [&](auto t, int r) {
        attend_rows<t()>(heads, queries + r * heads.padded, limits + r, keys, values, begin, n, scores, peak + r,
                         mass + r, mixed + r * heads.padded);
    });
}

void merge(int padded, float& peak, float& mass, float* mixed, float next_peak, float next_mass,
           const float* next_mixed) {
    if (next_mass == 0) return;  // none of the stretch's positions are this row's
    if (mass == 0) {
        peak = next_peak, mass = next_mass;
        std::memcpy(mixed, next_mixed, sizeof(float) * (size_t)padded);
        return;
    }
    const float both = next_peak > peak ? next_peak : peak;
    const float here = std::exp(peak - both), there = std::exp(next_peak - both);
    peak = both;
    mass = mass * here + next_mass * there;
    for (int i = 0; i < padded; i += LANES)
        store(mixed + i, fma(load(mixed + i), set1(here), mul(load(next_mixed + i), set1(there))));
}

}  // namespace camelid::CAMELID_ISA
