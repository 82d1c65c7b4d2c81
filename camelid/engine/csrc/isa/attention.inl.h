// Attention over pages, for any instruction set: each query's result depends on its own positions only.
#pragma once

namespace camelid::CAMELID_ISA {

constexpr int STRIDE = 16;  // pages of a chunk: scores of a row take 16 · 16 floats

// How a page's numbers are held and multiplied by a row's: STEP numbers in a lane, LINE registers in 64 bytes.
struct PagesF16 {
    static constexpr int STEP = 1, LINE = 2;
    static F load_page(const uint16_t* p) { return load_f16(p); }
    static F first_of_pair(F x) { return x; }
    static F broadcast(const float* row, int i) { return set1(row[i]); }
    static F multiply_add(F row, F page, F acc) { return fma(row, page, acc); }
    static void store_page(uint16_t* p, F x) { store_f16(p, x); }
    static void store_row(float* row, int i, F x) { store(row + i, x); }
};
#ifdef CAMELID_BF16
struct PagesBf16 {
    static constexpr int STEP = 2, LINE = 1;
    static I load_page(const uint16_t* p) { return iload(p); }
    static I first_of_pair(I x) { return iand(x, iset1(0xffff)); }
    static I broadcast(const float* row, int i) { return ibroadcast((const uint8_t*)row + 2 * i); }
    static F multiply_add(I row, I page, F acc) { return dot2(acc, page, row); }
    static void store_page(uint16_t* p, F x) { store_bf16(p, x); }
    static void store_row(float* row, int i, F x) { store_page((uint16_t*)row + i, x); }
};
#endif

// act(PagesF16 or PagesBf16), as the pages are.
template <class Act> inline void with_page_type(const Heads& heads, Act&& act) {
#ifdef CAMELID_BF16
    if (heads.bf16) return act(PagesBf16());
#endif
    (void)heads;
    act(PagesF16());
}

// at(i) says where in the page number i of a head belongs.
template <class S, class At> inline void write(const float* x, int width, int padded, uint16_t* page, At&& at) {
    alignas(64) uint16_t stored[LANES];
    for (int i = 0; i < padded; i += LANES) {
        alignas(64) float part[LANES] = {};
        const int n = width - i < LANES ? width - i : LANES, n_padded = padded - i < LANES ? padded - i : LANES;
        std::memcpy(part, x + i, sizeof(float) * (size_t)n);
        S::store_page(stored, load(part));
        for (int j = 0; j < n_padded; j++) page[at(i + j)] = stored[j];
    }
}

void write_key(const float* key, const Heads& heads, uint16_t* page, int place) {
    with_page_type(heads, [&](auto pages) {
        constexpr int STEP = pages.STEP;
        write<decltype(pages)>(key, heads.width, heads.width, page,
                           [&](int i) { return i / STEP * STEP * LANES + place * STEP + i % STEP; });
    });
}

void write_value(const float* value, const Heads& heads, uint16_t* page, int place) {
    with_page_type(heads, [&](auto pages) {
        constexpr int STEP = pages.STEP;
        write<decltype(pages)>(value, heads.width, heads.padded, page,
                           [&](int i) { return place / STEP * STEP * heads.padded + i * STEP + place % STEP; });
    });
}

void pack_query(const Heads& heads, float* query) {
    with_page_type(heads, [&](auto pages) {
        for (int i = 0; i < heads.padded; i += LANES) pages.store_row(query, i, load(query + i));
    });
}

// Scores of T queries against P pages of keys (lane: position). Pages further on are fetched beside, as memory's answer
// takes longer than the work on two or three.
template <class S, int T, int P>
inline void score(const Heads& heads, const float* queries, const uint16_t* const* keys, float* scores) {
    F acc[T][P];
    each<T>([&](auto t) INLINE { each<P>([&](auto p) INLINE { acc[t][p] = zero(); }); });
    for (int e = 0; e < heads.width; e += S::STEP) {
        decltype(S::load_page(keys[0])) k[P];
        each<P>([&](auto p) INLINE {
            k[p] = S::load_page(keys[p] + LANES * e);
            if (e % 2 == 0) prefetch(keys[AHEAD + p] + LANES * e);
        });
        each<T>([&](auto t) INLINE {
            const auto q = S::broadcast(queries + t * heads.padded, e);
            each<P>([&](auto p) INLINE { acc[t][p] = S::multiply_add(q, k[p], acc[t][p]); });
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

// Turns a row's n scores into powers of their distance from the largest, as values want them; what lies beyond becomes 0.
template <class S> inline void softmax(float* scores, int n, int all, float& row_max, float& row_sum) {
    const int end = (n + LANES - 1) / LANES * LANES;
    for (int i = n; i < end; i++) scores[i] = -INFINITY;
    F highest = set1(-INFINITY), total = zero();
    for (int i = 0; i < end; i += LANES) highest = max(load(scores + i), highest);
    row_max = reduce_max(highest);
    const F shift = set1(row_max);
    in_tiles<4>(end / LANES, 0, [&](auto count, int first) INLINE {
        const int i = LANES * first;
        F powers[count()];
        each<count()>([&](auto j) INLINE { powers[j] = sub(load(scores + i + LANES * j), shift); });
        exp(powers);
        each<count()>([&](auto j) INLINE {
            powers[j] = first_lanes(powers[j], n - i - LANES * j);
            total = add(total, powers[j]);
            S::store_row(scores, i + LANES * j, powers[j]);
        });
    });
    for (int i = end; i < all; i += LANES) S::store_row(scores, i, zero());
    row_sum = sum(total);
}

// Sum over n positions of T rows' softmax powers times V registers of their values. A page further on is fetched beside.
template <class S, int T, int V>
inline void weigh_values(const Heads& heads, const float* powers, const uint16_t* const* values, int n, int column,
                         float* weighted) {
    F acc[T][V];
    each<T>([&](auto t) INLINE { each<V>([&](auto v) INLINE { acc[t][v] = zero(); }); });
    for (int base = 0; base < n; base += LANES) {
        const uint16_t* page = values[base / LANES] + S::STEP * column;
        const uint16_t* next = values[base / LANES + AHEAD] + S::STEP * column;
        const auto add = [&](int j, auto is_last) INLINE {
            decltype(S::load_page(page)) value[V];
            each<V>([&](auto v) INLINE {
                constexpr int at = S::STEP * LANES * v();
                value[v] = S::load_page(page + j * heads.padded + at);
                if constexpr (is_last()) value[v] = S::first_of_pair(value[v]);
                if constexpr (v % S::LINE == 0) prefetch(next + j * heads.padded + at);
            });
            each<T>([&](auto t) INLINE {
                const auto power = S::broadcast(powers + t * STRIDE * LANES, base + j);
                each<V>([&](auto v) INLINE { acc[t][v] = S::multiply_add(power, value[v], acc[t][v]); });
            });
        };
        const int last = n - base < LANES ? n - base : LANES;
        int j = 0;
        for (; j + S::STEP <= last; j += S::STEP) add(j, std::false_type());
        if (j < last) add(j, std::true_type());  // beside it lies what another text may have left
    }
    each<T>([&](auto t) INLINE {
        each<V>([&](auto v) INLINE { store(weighted + t * heads.padded + column + LANES * v, acc[t][v]); });
    });
}

template <class S, int T>
void attention_rows(const Heads& heads, const float* queries, const int* limits, const uint16_t* const* keys,
                    const uint16_t* const* values, int begin, int n, float* scores, float* row_max, float* row_sum,
                    float* weighted) {
    const int pages = (n + LANES - 1) / LANES;
    constexpr int P = T * 2 <= 2 * TILE_FLOAT_TOKENS ? 2 : 1;
    int p = 0;
    for (; p + P <= pages; p += P) score<S, T, P>(heads, queries, keys + p, scores + LANES * p);
    for (; p < pages; p++) score<S, T, 1>(heads, queries, keys + p, scores + LANES * p);
    for (int t = 0; t < T; t++) {
        const int own = limits[t] - begin < n ? limits[t] - begin : n;
        softmax<S>(scores + t * STRIDE * LANES, own > 0 ? own : 0, pages * LANES, row_max[t], row_sum[t]);
    }
    constexpr int V = TILE_FLOAT_TOKENS >= 12 ? (T > 6 ? 2 : 4) : (T > 2 ? 1 : 2);
    int column = 0;
    for (; column + V * LANES <= heads.padded; column += V * LANES)
        weigh_values<S, T, V>(heads, scores, values, n, column, weighted);
    for (; column < heads.padded; column += LANES) weigh_values<S, T, 1>(heads, scores, values, n, column, weighted);
}

void attention(const Heads& heads, const float* queries, int rows, const int* limits, const uint16_t* const* keys,
               const uint16_t* const* values, int begin, int n, float* scores, float* row_max, float* row_sum,
               float* weighted) {
    with_page_type(heads, [&](auto pages) {
        in_tiles<TILE_FLOAT_TOKENS>(rows, 0, [&](auto t, int r) {
            attention_rows<decltype(pages), t()>(heads, queries + r * heads.padded, limits + r, keys, values, begin, n, scores,
                                             row_max + r, row_sum + r, weighted + r * heads.padded);
        });
    });
}

void merge(int padded, float& row_max, float& row_sum, float* weighted, float next_max, float next_sum,
           const float* next_weighted) {
    if (next_sum == 0) return;  // none of the chunk's positions are this row's
    if (row_sum == 0) {
        row_max = next_max, row_sum = next_sum;
        std::memcpy(weighted, next_weighted, sizeof(float) * (size_t)padded);
        return;
    }
    const float both = next_max > row_max ? next_max : row_max;
    const float here = std::exp(row_max - both), there = std::exp(next_max - both);
    row_max = both;
    row_sum = row_sum * here + next_sum * there;
    for (int i = 0; i < padded; i += LANES)
        store(weighted + i, fma(load(weighted + i), set1(here), mul(load(next_weighted + i), set1(there))));
}

}  // namespace camelid::CAMELID_ISA
