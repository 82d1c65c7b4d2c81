// Attention over pages, for any instruction set: each query's result depends on its own positions only.
#pragma once

namespace camelid::CAMELID_ISA {

constexpr int STRIDE = 16;  // pages of a stretch: scores of a row take 16 · 16 floats

// What a page holds and a row multiplies it by: STEP numbers in a lane, LINE registers in 64 bytes.
struct Halves {
    static constexpr int STEP = 1, LINE = 2;
    static F read(const uint16_t* p) { return load_f16(p); }
    static F first(F x) { return x; }
    static F spread(const float* row, int i) { return set1(row[i]); }
    static F multiply(F row, F page, F acc) { return fma(row, page, acc); }
    static void keep(uint16_t* p, F x) { store_f16(p, x); }
    static void hold(float* row, int i, F x) { store(row + i, x); }
};
#ifdef CAMELID_BF16
struct Pairs {
    static constexpr int STEP = 2, LINE = 1;
    static I read(const uint16_t* p) { return iload(p); }
    static I first(I x) { return iand(x, iset1(0xffff)); }  // of each pair
    static I spread(const float* row, int i) { return ispread((const uint8_t*)row + 2 * i); }
    static F multiply(I row, I page, F acc) { return dot2(acc, page, row); }
    static void keep(uint16_t* p, F x) { store_bf16(p, x); }
    static void hold(float* row, int i, F x) { keep((uint16_t*)row + i, x); }
};
#endif

// act(Halves or Pairs), as the heads say.
template <class Act> inline void as_held(const Heads& heads, Act&& act) {
#ifdef CAMELID_BF16
    if (heads.pairs) return act(Pairs());
#endif
    (void)heads;
    act(Halves());
}

// at(i) says where in the page number i of a head belongs.
template <class S, class At> inline void write(const float* x, int width, int padded, uint16_t* page, At&& at) {
    alignas(64) uint16_t kept[LANES];
    for (int i = 0; i < padded; i += LANES) {
        alignas(64) float part[LANES] = {};
        const int n = width - i < LANES ? width - i : LANES, whole = padded - i < LANES ? padded - i : LANES;
        std::memcpy(part, x + i, sizeof(float) * (size_t)n);
        S::keep(kept, load(part));
        for (int j = 0; j < whole; j++) page[at(i + j)] = kept[j];
    }
}

void write_key(const float* key, const Heads& heads, uint16_t* page, int place) {
    as_held(heads, [&](auto s) {
        constexpr int STEP = s.STEP;
        write<decltype(s)>(key, heads.width, heads.width, page,
                           [&](int i) { return i / STEP * STEP * LANES + place * STEP + i % STEP; });
    });
}

void write_value(const float* value, const Heads& heads, uint16_t* page, int place) {
    as_held(heads, [&](auto s) {
        constexpr int STEP = s.STEP;
        write<decltype(s)>(value, heads.width, heads.padded, page,
                           [&](int i) { return place / STEP * STEP * heads.padded + i * STEP + place % STEP; });
    });
}

void ready(const Heads& heads, float* query) {
    as_held(heads, [&](auto s) {
        for (int i = 0; i < heads.padded; i += LANES) s.hold(query, i, load(query + i));
    });
}

// Scores of T queries against P pages of keys (lane: position). Pages further on are fetched beside, as memory's answer
// takes longer than the work on two or three.
template <class S, int T, int P>
inline void score(const Heads& heads, const float* queries, const uint16_t* const* keys, float* scores) {
    F acc[T][P];
    each<T>([&](auto t) INLINE { each<P>([&](auto p) INLINE { acc[t][p] = zero(); }); });
    for (int e = 0; e < heads.width; e += S::STEP) {
        decltype(S::read(keys[0])) k[P];
        each<P>([&](auto p) INLINE {
            k[p] = S::read(keys[p] + LANES * e);
            if (e % 2 == 0) prefetch(keys[AHEAD + p] + LANES * e);
        });
        each<T>([&](auto t) INLINE {
            const auto q = S::spread(queries + t * heads.padded, e);
            each<P>([&](auto p) INLINE { acc[t][p] = S::multiply(q, k[p], acc[t][p]); });
        });
    }
    each<T>([&](auto t) INLINE {
        each<P>([&](auto p) INLINE { store(scores + t * STRIDE * LANES + p * LANES, acc[t][p]); });
    });
}

// The first n lanes of x, and zeros.
inline F first_lanes(F x, int n) {
    static const int32_t mask[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return n < LANES ? from_bits(iand(bits_of(x), iload(mask + LANES - n))) : x;
}

// Turns a row's n scores into powers of their distance from the peak, as values want them; what lies beyond becomes 0.
template <class S> inline void soften(float* scores, int n, int all, float& peak, float& mass) {
    const int end = (n + LANES - 1) / LANES * LANES;
    for (int i = n; i < end; i++) scores[i] = -INFINITY;
    F highest = set1(-INFINITY), total = zero();
    for (int i = 0; i < end; i += LANES) highest = max(load(scores + i), highest);
    peak = top(highest);
    const F shift = set1(peak);
    in_tiles<4>(end / LANES, 0, [&](auto count, int first) INLINE {
        const int i = LANES * first;
        F powers[count()];
        each<count()>([&](auto j) INLINE { powers[j] = sub(load(scores + i + LANES * j), shift); });
        exp(powers);
        each<count()>([&](auto j) INLINE {
            powers[j] = first_lanes(powers[j], n - i - LANES * j);
            total = add(total, powers[j]);
            S::hold(scores, i + LANES * j, powers[j]);
        });
    });
    for (int i = end; i < all; i += LANES) S::hold(scores, i, zero());
    mass = sum(total);
}

// Sum over n positions of T rows' powers times V registers of their values. A page further on is fetched beside.
template <class S, int T, int V>
inline void mix(const Heads& heads, const float* powers, const uint16_t* const* values, int n, int column, float* mixed) {
    F acc[T][V];
    each<T>([&](auto t) INLINE { each<V>([&](auto v) INLINE { acc[t][v] = zero(); }); });
    for (int base = 0; base < n; base += LANES) {
        const uint16_t* page = values[base / LANES] + S::STEP * column;
        const uint16_t* next = values[base / LANES + AHEAD] + S::STEP * column;
        const auto add = [&](int j, auto alone) INLINE {
            decltype(S::read(page)) value[V];
            each<V>([&](auto v) INLINE {
                constexpr int at = S::STEP * LANES * v();
                value[v] = S::read(page + j * heads.padded + at);
                if constexpr (alone()) value[v] = S::first(value[v]);
                if constexpr (v % S::LINE == 0) prefetch(next + j * heads.padded + at);
            });
            each<T>([&](auto t) INLINE {
                const auto power = S::spread(powers + t * STRIDE * LANES, base + j);
                each<V>([&](auto v) INLINE { acc[t][v] = S::multiply(power, value[v], acc[t][v]); });
            });
        };
        const int last = n - base < LANES ? n - base : LANES;
        int j = 0;
        for (; j + S::STEP <= last; j += S::STEP) add(j, std::false_type());
        if (j < last) add(j, std::true_type());  // beside it lies what another text may have left
    }
    each<T>([&](auto t) INLINE {
        each<V>([&](auto v) INLINE { store(mixed + t * heads.padded + column + LANES * v, acc[t][v]); });
    });
}

template <class S, int T>
void attend_rows(const Heads& heads, const float* queries, const int* limits, const uint16_t* const* keys,
                 const uint16_t* const* values, int begin, int n, float* scores, float* peak, float* mass,
                 float* mixed) {
    const int pages = (n + LANES - 1) / LANES;
    constexpr int P = T * 2 <= 2 * TILE_FLOAT_TOKENS ? 2 : 1;
    int p = 0;
    for (; p + P <= pages; p += P) score<S, T, P>(heads, queries, keys + p, scores + LANES * p);
    for (; p < pages; p++) score<S, T, 1>(heads, queries, keys + p, scores + LANES * p);
    for (int t = 0; t < T; t++) {
        const int own = limits[t] - begin < n ? limits[t] - begin : n;
        soften<S>(scores + t * STRIDE * LANES, own > 0 ? own : 0, pages * LANES, peak[t], mass[t]);
    }
    constexpr int V = TILE_FLOAT_TOKENS >= 12 ? (T > 6 ? 2 : 4) : (T > 2 ? 1 : 2);
    int column = 0;
    for (; column + V * LANES <= heads.padded; column += V * LANES) mix<S, T, V>(heads, scores, values, n, column, mixed);
    for (; column < heads.padded; column += LANES) mix<S, T, 1>(heads, scores, values, n, column, mixed);
}

void attend(const Heads& heads, const float* queries, int rows, const int* limits, const uint16_t* const* keys,
            const uint16_t* const* values, int begin, int n, float* scores, float* peak, float* mass, float* mixed) {
    as_held(heads, [&](auto s) {
        in_tiles<TILE_FLOAT_TOKENS>(rows, 0, [&](auto t, int r) {
            attend_rows<decltype(s), t()>(heads, queries + r * heads.padded, limits + r, keys, values, begin, n, scores,
                                          peak + r, mass + r, mixed + r * heads.padded);
        });
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
