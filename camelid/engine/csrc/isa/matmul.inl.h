// Matrices times activations, for any instruction set.
//
// Every row of a product is summed block by block along the columns in one order, however many tokens stand beside:
// alone or with neighbours, a token's result has the same bits.
#pragma once

namespace camelid::CAMELID_ISA {

// f(0) … f(N − 1), each with its number known to the compiler, so that arrays of sums become registers.
template <class Each, int... N>
inline __attribute__((always_inline)) void each_of(std::integer_sequence<int, N...>, Each&& f) {
    (f(std::integral_constant<int, N>{}), ...);
}
template <int N, class Each> inline __attribute__((always_inline)) void each(Each&& f) {
    each_of(std::make_integer_sequence<int, N>{}, f);
}
#define INLINE __attribute__((always_inline))

template <Kind K> constexpr bool HAS_MINIMA = traits(K).scales == Scales::TWO || traits(K).scales == Scales::SUPER;
template <Kind K> constexpr int FOURS = traits(K).scales == Scales::SUPER16 ? 4 : 8;  // groups of four under one scale
template <Kind K> constexpr int ZERO_POINT = traits(K).bits == 8 ? ZERO8 : traits(K).zero_point;

// The 32 columns of a block as eight registers of four columns each.
template <int BITS> inline __attribute__((always_inline)) void unpack_block(const uint8_t* p, I w[8]) {
    if constexpr (BITS == 8) {
        for (int q = 0; q < 8; q++) w[q] = iload(p + 64 * q);
        if constexpr (ZERO8 != 0)
            for (int q = 0; q < 8; q++) w[q] = ixor(w[q], iset1((int32_t)0x80808080));
        return;
    }
    const I low = iset1(0x0f0f0f0f);
    for (int q = 0; q < 4; q++) {
        const I v = iload(p + 64 * q);
        w[q] = iand(v, low), w[q + 4] = iand(shr<4>(v), low);
    }
    if constexpr (BITS == 5) {
        const I h = iload(p + 256), bit = iset1(0x10101010);
        w[0] = ior(w[0], iand(shl<4>(h), bit)), w[1] = ior(w[1], iand(shl<3>(h), bit));
        w[2] = ior(w[2], iand(shl<2>(h), bit)), w[3] = ior(w[3], iand(shl<1>(h), bit));
        w[4] = ior(w[4], iand(h, bit)), w[5] = ior(w[5], iand(shr<1>(h), bit));
        w[6] = ior(w[6], iand(shr<2>(h), bit)), w[7] = ior(w[7], iand(shr<3>(h), bit));
    }
    if constexpr (BITS == 6) {
        const I bits = iset1(0x30303030);
        for (int half = 0; half < 2; half++) {
            const I h = iload(p + 256 + 64 * half);
            I* x = w + 4 * half;
            x[0] = ior(x[0], iand(shl<4>(h), bits)), x[1] = ior(x[1], iand(shl<2>(h), bits));
            x[2] = ior(x[2], iand(h, bits)), x[3] = ior(x[3], iand(shr<2>(h), bits));
        }
    }
}

// A block's scales (two where they belong to 16 columns) and minima.
template <Kind K>
inline __attribute__((always_inline)) void unpack_scales(const uint8_t* s, const uint8_t* super, F scale[2], F& minimum) {
    constexpr Traits T = traits(K);
    if constexpr (T.scales == Scales::ONE) scale[0] = load_f16((const uint16_t*)s);
    if constexpr (T.scales == Scales::TWO)
        scale[0] = load_f16((const uint16_t*)s), minimum = load_f16((const uint16_t*)s + 16);
    if constexpr (T.scales == Scales::SUPER) {
        scale[0] = mul(load_f16((const uint16_t*)super), load_u8(s));
        minimum = sub(zero(), mul(load_f16((const uint16_t*)super + 16), load_u8(s + 16)));
    }
    if constexpr (T.scales == Scales::SUPER16) {
        const F d = load_f16((const uint16_t*)super);
        scale[0] = mul(d, load_s8(s)), scale[1] = mul(d, load_s8(s + 16));
    }
}

// Fetches what a product of several tokens reads a little later. One token's reads so fast that the processor follows the
// stream by itself, and this would be in its way: on Zen 4 one thread read 19 GB/s of Q4_0 with it and 26 without.
template <int BYTES, int T> inline INLINE void prefetch_ahead(const uint8_t* p) {
    constexpr int ahead = 4096;
    if constexpr (T > 1)
        for (int i = 0; i < BYTES; i += 64) prefetch(p + ahead + i);
}

// Calls tile(T) for runs of T tokens, or registers, the widest first.
template <int T, class Tile> inline void in_tiles(int tokens, int done, Tile&& tile) {
    for (; done + T <= tokens; done += T) tile(std::integral_constant<int, T>{}, done);
    if constexpr (T > 1) in_tiles<(T > 8 ? 8 : T > 6 ? 6 : T > 4 ? 4 : T - 1)>(tokens, done, tile);
}

// High bytes, 256 times as much, times a block's weights: for all columns, or for those under each scale.
template <Kind K, bool INT16>
inline INLINE void products_high(const I (&w)[8], const uint8_t* unpacked, const block_q8& x, I* dots) {
    constexpr int bits = traits(K).bits, Q = FOURS<K>;
    if constexpr (INT16) {
        each<8 / Q>([&](auto part) INLINE {
            dots[part] = izero();
            each<Q>([&](auto q) INLINE {
                constexpr int four = part() * Q + q();
                dots[part] = dot4<bits>(dots[part], w[four], ((const block_q16&)x).high_bytes + 4 * four);
            });
            dots[part] = shl<8>(dots[part]);
        });
    } else {
        // The mask is for a late thread, which may read here what another phase has written (pool.h).
        const I high = shl<8>(dot4<bits>(izero(), iload(unpacked + (x.group_of_four & 7 * 64)), x.high));
        dots[0] = Q == 8 ? high : iand(high, ibroadcast(&x.in_first));
        if constexpr (Q == 4) dots[1] = ixor(high, dots[0]);
    }
}

// A block's weights times its activations' integers, under the block's scales.
template <Kind K, bool INT16>
inline INLINE F products(const I (&w)[8], const uint8_t* unpacked, const block_q8& x, const F (&scale)[2]) {
    constexpr int Q = FOURS<K>, parts = 8 / Q;
    I dots[parts], sums[2] = {izero(), izero()};
    products_high<K, INT16>(w, unpacked, x, dots);
    if constexpr (ZERO_POINT<K> != 0)
        each<parts>([&](auto part) INLINE {
            constexpr int shift = __builtin_ctz(ZERO_POINT<K> / (Q == 8 ? 8 : 32));
            sums[part] = shl<shift>(ibroadcast(Q == 8 ? &x.minus8 : &x.minus32[part]));
        });
    // Two chains in turns: each product waits for the one before it in its chain.
    each<8>([&](auto i) INLINE {
        constexpr int chain = i % 2, q = Q == 8 ? i : 4 * chain + i / 2;
        sums[chain] = dot4<traits(K).bits>(sums[chain], w[q], x.bytes + 4 * q);
    });
    if constexpr (parts == 1) return mul(to_float(iadd(iadd(sums[0], sums[1]), dots[0])), scale[0]);
    else return fma(to_float(iadd(sums[1], dots[1])), scale[1], mul(to_float(iadd(sums[0], dots[0])), scale[0]));
}

inline void put(float* out, F x, bool adds) { store(out, adds ? add(load(out), x) : x); }

// A group of rows times T tokens, whose blocks lie side by side.
template <Kind K, int T, bool INT16>
void tile_q8(const Matrix& a, int g, int side, const uint8_t* x, float* out, size_t stride, bool adds) {
    constexpr Traits TR = traits(K);
    using Block = std::conditional_t<INT16, block_q16, block_q8>;
    const uint8_t *block = a.group(g), *super = block;
    F acc[T];
    each<T>([&](auto t) INLINE { acc[t] = zero(); });
    for (int b = 0; b < a.columns / 32; b++, block += TR.payload_bytes + TR.scale_bytes, x += side * sizeof(Block)) {
        I w[8];
        F scale[2], minimum = zero();
        if (TR.super_bytes && b % 8 == 0) super = block, block += TR.super_bytes;
        prefetch_ahead<TR.payload_bytes + TR.scale_bytes + TR.super_bytes, T>(block);
        unpack_block<TR.bits>(block, w);
        unpack_scales<K>(block + TR.payload_bytes, super, scale, minimum);
        alignas(64) uint8_t unpacked[INT16 ? 1 : 512];  // where any of its groups of four is at hand
        if constexpr (!INT16)
            for (int q = 0; q < 8; q++) istore(unpacked + 64 * q, w[q]);
        each<T>([&](auto t) INLINE {
            const Block& activations = ((const Block*)x)[t];
            acc[t] = fma(products<K, INT16>(w, unpacked, activations, scale), set1(activations.scale), acc[t]);
            if constexpr (HAS_MINIMA<K>) acc[t] = fma(minimum, set1(activations.scaled_sum), acc[t]);
        });
    }
    each<T>([&](auto t) INLINE { put(out + t * stride, acc[t], adds); });
}

// Weights of a kind that is not quantised, G groups at a time so that sums overlap.
template <Kind K> inline F load_column(const uint8_t* p) {
    if constexpr (K == Kind::F32) return load((const float*)p);
    if constexpr (K == Kind::BF16) return load_bf16((const uint16_t*)p);
    return load_f16((const uint16_t*)p);
}

template <Kind K, int T, int G>
void tile_f32(const Matrix& a, int g, int side, const float* x, float* out, size_t stride, bool adds) {
    constexpr int step = traits(K).payload_bytes;
    F acc[T][G];
    each<T>([&](auto t) INLINE { each<G>([&](auto i) INLINE { acc[t][i] = zero(); }); });
    for (int k = 0; k < a.columns; k++, x += side)
        each<G>([&](auto i) INLINE {
            const uint8_t* p = a.group(g + i) + (size_t)k * step;
            if (k % 2 == 0) prefetch_ahead<2 * step, T>(p);
            const F w = load_column<K>(p);
            each<T>([&](auto t) INLINE { acc[t][i] = fma(w, set1(x[t]), acc[t][i]); });
        });
    each<T>([&](auto t) INLINE { each<G>([&](auto i) INLINE { put(out + t * stride + LANES * i, acc[t][i], adds); }); });
}

#ifdef CAMELID_BF16
template <int T, int G>
void tile_bf16(const Matrix& a, int g, int side, const uint32_t* pairs, float* out, size_t stride, bool adds) {
    F acc[T][G];
    each<T>([&](auto t) INLINE { each<G>([&](auto i) INLINE { acc[t][i] = zero(); }); });
    for (int k = 0; k < a.columns; k += 2, pairs += side)
        each<G>([&](auto i) INLINE {
            const uint8_t* p = a.group(g + i) + 32 * (size_t)k;
            prefetch_ahead<64, T>(p);
            const I w = iload(p);
            each<T>([&](auto t) INLINE { acc[t][i] = dot2(acc[t][i], w, ibroadcast(pairs + t)); });
        });
    each<T>([&](auto t) INLINE { each<G>([&](auto i) INLINE { put(out + t * stride + LANES * i, acc[t][i], adds); }); });
}
#endif

// Groups first … last − 1 times T tokens from `token` on.
template <Kind K, int T, bool INT16>
void tiles(const Matrix& a, const ActivationLayout& layout, const uint8_t* activations, int token, int first, int last,
           float* out, size_t stride, bool adds) {
    const int side = layout.side;
    const auto tile = [&](auto n, int g) INLINE {
        float* to = out + LANES * (g - first);
        if constexpr (!is_float(K))
            tile_q8<K, T, INT16>(a, g, side, layout.blocks(activations, token), to, stride, adds);
#ifdef CAMELID_BF16
        else if constexpr (K == Kind::F16_AS_BF16)
            tile_bf16<T, n()>(a, g, side, layout.bf16(activations, token), to, stride, adds);
#endif
        else
            tile_f32<K, T, n()>(a, g, side, layout.f32(activations, token), to, stride, adds);
    };
    constexpr int G = is_float(K) && T > 1 ? FLOAT_GROUPS : 1;  // for one token memory is the limit: it likes one stream most
    int g = first;
    for (; g + G <= last; g += G) tile(std::integral_constant<int, G>{}, g);
    for (; g < last; g++) tile(std::integral_constant<int, 1>{}, g);
}

void matmul(const Matrix& a, const ActivationLayout& layout, const uint8_t* activations, int token, int tokens, int first,
            int last, float* out, size_t stride, bool adds) {
    const auto run = [&](auto kind) {
        for (int strip = 0; strip < tokens; strip += layout.side) {
            const auto go = [&](auto most, auto int16) {
                in_tiles<most()>(tokens - strip < layout.side ? tokens - strip : layout.side, 0, [&](auto t, int done) {
                    const int at = strip + done;
                    tiles<kind(), t(), int16()>(a, layout, activations, token + at, first, last, out + at * stride, stride, adds);
                });
            };
            if constexpr (is_float(kind())) go(std::integral_constant<int, TILE_FLOAT_TOKENS>{}, std::false_type{});
            else if (layout.is_int16(token + strip)) go(std::integral_constant<int, TILE_INT16_TOKENS>{}, std::true_type{});
            else go(std::integral_constant<int, TILE_TOKENS>{}, std::false_type{});
        }
    };
    switch (a.kind) {
#define CAMELID_CASE(NAME, ...) \
    case Kind::NAME: return run(std::integral_constant<Kind, Kind::NAME>{});
        CAMELID_KINDS(CAMELID_CASE)
#undef CAMELID_CASE
    }
}

}  // namespace camelid::CAMELID_ISA
