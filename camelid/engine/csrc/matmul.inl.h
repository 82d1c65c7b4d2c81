// Matrices times activations, for any instruction set.
//
// Every row of a product is summed block by block along the columns in one order, whichever kernel does it:
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

// Minus the sum of a record's bytes of one round (0 high, 1 low) under scale `part`.
template <int Q> inline int32_t minus_of(const Record* record, int part, int round) {
    if (Q == 8) return record->minus[round];
    return part ? record->minus[round] - record->minus_first[round] : record->minus_first[round];
}

constexpr int HIGH_BITS = 7;  // an activation is 128 · high byte + low byte

template <Kind K> constexpr bool HAS_MINIMA = traits(K).scales == Scales::TWO || traits(K).scales == Scales::SUPER;
template <Kind K> constexpr int QUADS = traits(K).scales == Scales::SUPER16 ? 4 : 8;  // registers under one scale
template <Kind K> constexpr int MIDDLE = traits(K).bits == 8 ? ZERO8 : traits(K).middle;

// The 32 columns of a block as eight registers of four columns each.
template <int BITS> inline __attribute__((always_inline)) void open_block(const uint8_t* p, I w[8]) {
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
inline __attribute__((always_inline)) void open_scales(const uint8_t* s, const uint8_t* super, F scale[2], F& minimum) {
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

// Fetches what a product of one token will read a little later: the memory's answer takes longer than the work.
template <int BYTES> inline __attribute__((always_inline)) void prefetch_ahead(const uint8_t* p) {
    constexpr int ahead = 4096;  // of 512 … 4096 the best on Zen 5
    for (int i = 0; i < BYTES; i += 64) prefetch(p + ahead + i);
}

template <Kind K>
void multiply_one_bytes(const Matrix& a, const RowLayout& layout, const Record* x, int first, int last, float* out) {
    constexpr Traits T = traits(K);
    constexpr int Q = QUADS<K>, parts = 8 / Q;
    const I middle = iset1(MIDDLE<K>);
    const int blocks = a.columns / 32;
    for (int g = first; g < last; g++) {
        const uint8_t *block = a.group(g), *super = block;
        const Record* record = x;
        F acc = zero();
        for (int b = 0; b < blocks; b++, block += T.block_bytes + T.scale_bytes, record += layout.side) {
            I w[8];
            F scale[2], minimum = zero();
            if (T.super_bytes && b % 8 == 0) super = block, block += T.super_bytes;
            prefetch_ahead<T.block_bytes + T.scale_bytes + T.super_bytes>(block);
            open_block<T.bits>(block, w);
            open_scales<K>(block + T.block_bytes, super, scale, minimum);
            const int wide = record->wide;
            for (int part = 0; part < parts; part++) {
                I even = izero(), odd = izero();
                for (int low = 0; low <= wide; low++) {
                    if (low) even = shl<HIGH_BITS>(even), odd = shl<HIGH_BITS>(odd);
                    if (MIDDLE<K>) even = iadd(even, imul(iset1(minus_of<Q>(record, part, low)), middle));
                    const int8_t* p = (low ? record->low : record->high) + 4 * part * Q;
                    for (int q = 0; q < Q; q += 2) {
                        even = dot4<T.bits>(even, w[part * Q + q], ispread(p + 4 * q));
                        odd = dot4<T.bits>(odd, w[part * Q + q + 1], ispread(p + 4 * q + 4));
                    }
                }
                acc = fma(mul(to_float(iadd(even, odd)), scale[part]), set1(record->scale[wide]), acc);
            }
            if constexpr (HAS_MINIMA<K>) acc = fma(minimum, set1(record->scaled_sum), acc);
        }
        store(out + LANES * (g - first), acc);
    }
}

// Weights of a kind that is not quantised, four groups at a time so that their sums overlap.
template <Kind K> inline F load_column(const uint8_t* p) {
    if constexpr (K == Kind::F32) return load((const float*)p);
    if constexpr (K == Kind::BF16) return load_bf16((const uint16_t*)p);
    return load_f16((const uint16_t*)p);
}

template <Kind K, int G>
void multiply_one_floats(const Matrix& a, const float* x, int side, int g, float* out) {
    constexpr int step = traits(K).block_bytes;
    F acc[G];
    for (int i = 0; i < G; i++) acc[i] = zero();
    for (int k = 0; k < a.columns; k++)
        for (int i = 0; i < G; i++)
            acc[i] = fma(load_column<K>(a.group(g + i) + (size_t)k * step), set1(x[(size_t)k * side]), acc[i]);
    for (int i = 0; i < G; i++) store(out + LANES * i, acc[i]);
}

template <Kind K>
void multiply_one_floats(const Matrix& a, const RowLayout& layout, const float* x, int first, int last, float* out) {
    int g = first;
    for (; g + 4 <= last; g += 4) multiply_one_floats<K, 4>(a, x, layout.side, g, out + LANES * (g - first));
    for (; g < last; g++) multiply_one_floats<K, 1>(a, x, layout.side, g, out + LANES * (g - first));
}

#ifdef CAMELID_BF16
template <int G> void multiply_one_brain(const Matrix& a, const uint32_t* pairs, int side, int g, float* out) {
    F acc[G];
    for (int i = 0; i < G; i++) acc[i] = zero();
    for (int k = 0; k < a.columns; k += 2)
        for (int i = 0; i < G; i++) {
            const uint8_t* w = a.group(g + i) + 32 * (size_t)k;
            prefetch_ahead<64>(w);
            acc[i] = dot2(acc[i], iload(w), ispread(pairs + (size_t)(k / 2) * side));
        }
    for (int i = 0; i < G; i++) store(out + LANES * i, acc[i]);
}
#endif

inline void multiply_one_brain([[maybe_unused]] const Matrix& a, [[maybe_unused]] const RowLayout& layout,
                               [[maybe_unused]] const uint32_t* pairs, [[maybe_unused]] int first,
                               [[maybe_unused]] int last, [[maybe_unused]] float* out) {
#ifdef CAMELID_BF16
    int g = first;
    for (; g + 2 <= last; g += 2) multiply_one_brain<2>(a, pairs, layout.side, g, out + LANES * (g - first));
    for (; g < last; g++) multiply_one_brain<1>(a, pairs, layout.side, g, out + LANES * (g - first));
#endif
}

void multiply_one(const Matrix& a, const RowLayout& layout, const uint8_t* rows, int first, int last, float* out) {
    const Record* records = layout.records(rows, 0);
    const float* numbers = layout.numbers(rows, 0);
    switch (a.kind) {
        case Kind::Q4_0: return multiply_one_bytes<Kind::Q4_0>(a, layout, records, first, last, out);
        case Kind::Q4_1: return multiply_one_bytes<Kind::Q4_1>(a, layout, records, first, last, out);
        case Kind::Q5_0: return multiply_one_bytes<Kind::Q5_0>(a, layout, records, first, last, out);
        case Kind::Q5_1: return multiply_one_bytes<Kind::Q5_1>(a, layout, records, first, last, out);
        case Kind::Q8_0: return multiply_one_bytes<Kind::Q8_0>(a, layout, records, first, last, out);
        case Kind::Q4_K: return multiply_one_bytes<Kind::Q4_K>(a, layout, records, first, last, out);
        case Kind::Q5_K: return multiply_one_bytes<Kind::Q5_K>(a, layout, records, first, last, out);
        case Kind::Q6_K: return multiply_one_bytes<Kind::Q6_K>(a, layout, records, first, last, out);
        case Kind::F32: return multiply_one_floats<Kind::F32>(a, layout, numbers, first, last, out);
        case Kind::BF16: return multiply_one_floats<Kind::BF16>(a, layout, numbers, first, last, out);
        case Kind::F16: return multiply_one_floats<Kind::F16>(a, layout, numbers, first, last, out);
        case Kind::F16_AS_BF16: return multiply_one_brain(a, layout, layout.pairs(rows, 0), first, last, out);
    }
}

// --- many tokens -----------------------------------------------------------------------------------------------

constexpr int R = TILE_GROUPS;

template <Kind K> void unpack_bytes(const Matrix& a, int g, const Panel& panel, int slot) {
    constexpr Traits T = traits(K);
    constexpr int parts = 8 / QUADS<K>;
    const uint8_t* group = a.group(g);
    for (int b = 0; b < a.columns / 32; b++) {
        I w[8];
        F scale[2], minimum = zero();
        const uint8_t* block = group + block_at(T, b);
        open_block<T.bits>(block, w);
        open_scales<K>(block + T.block_bytes, group + super_at(T, b), scale, minimum);
        for (int q = 0; q < 8; q++) istore(panel.weights + 64 * ((size_t)(8 * b + q) * R + slot), w[q]);
        for (int part = 0; part < parts; part++) store(panel.scales + LANES * ((b * parts + part) * R + slot), scale[part]);
        if constexpr (HAS_MINIMA<K>) store(panel.minima + LANES * (b * R + slot), minimum);
    }
}

template <Kind K> void unpack_floats(const Matrix& a, int g, const Panel& panel, int slot) {
    const uint8_t* payload = a.group(g);
    for (int k = 0; k < a.columns; k++)
        store((float*)panel.weights + LANES * ((size_t)k * R + slot), load_column<K>(payload + (size_t)k * traits(K).block_bytes));
}

inline void unpack_brain(const Matrix& a, int g, const Panel& panel, int slot) {
    for (int k = 0; k < a.columns; k += 2)
        istore(panel.weights + 64 * ((size_t)(k / 2) * R + slot), iload(a.group(g) + 32 * (size_t)k));
}

void unpack(const Matrix& a, int g, const Panel& panel, int slot) {
    switch (a.kind) {
        case Kind::Q4_0: return unpack_bytes<Kind::Q4_0>(a, g, panel, slot);
        case Kind::Q4_1: return unpack_bytes<Kind::Q4_1>(a, g, panel, slot);
        case Kind::Q5_0: return unpack_bytes<Kind::Q5_0>(a, g, panel, slot);
        case Kind::Q5_1: return unpack_bytes<Kind::Q5_1>(a, g, panel, slot);
        case Kind::Q8_0: return unpack_bytes<Kind::Q8_0>(a, g, panel, slot);
        case Kind::Q4_K: return unpack_bytes<Kind::Q4_K>(a, g, panel, slot);
        case Kind::Q5_K: return unpack_bytes<Kind::Q5_K>(a, g, panel, slot);
        case Kind::Q6_K: return unpack_bytes<Kind::Q6_K>(a, g, panel, slot);
        case Kind::F32: return unpack_floats<Kind::F32>(a, g, panel, slot);
        case Kind::BF16: return unpack_floats<Kind::BF16>(a, g, panel, slot);
        case Kind::F16: return unpack_floats<Kind::F16>(a, g, panel, slot);
        case Kind::F16_AS_BF16: return unpack_brain(a, g, panel, slot);
    }
}

template <int T> using Sums = F[T][R];

template <int T> inline __attribute__((always_inline)) void finish(Sums<T>& acc, float* out, size_t stride, bool adds) {
    each<T>([&](auto t) INLINE {
        each<R>([&](auto r) INLINE {
            float* p = out + t * stride + LANES * r;
            store(p, adds ? add(load(p), acc[t][r]) : acc[t][r]);
        });
    });
}

// dots += weights times a round (0 high, 1 low) of T records; Q registers share a scale.
template <int T, int BITS, int Q, bool MINIMA, int ROUND>
inline INLINE void tile_round(const uint8_t* weights, int middle, const Record* records, int part, I (&dots)[T][R]) {
    if constexpr (!MINIMA)
        each<T>([&](auto t) INLINE {
            const I start = imul(iset1(minus_of<Q>(records + t, part, ROUND)), iset1(middle));
            each<R>([&](auto r) INLINE { dots[t][r] = ROUND ? iadd(dots[t][r], start) : start; });
        });
    each<Q>([&](auto q) INLINE {
        I w[R];
        each<R>([&](auto r) INLINE { w[r] = iload(weights + 64 * (q * R + r)); });
        each<T>([&](auto t) INLINE {
            const I x = ispread((ROUND ? records[t].low : records[t].high) + 4 * (part * Q + q));
            each<R>([&](auto r) INLINE { dots[t][r] = dot4<BITS>(dots[t][r], w[r], x); });
        });
    });
}

// BITS 6 stands for all below 8. Low bytes are gone through where any of the tokens has them: zeros add nothing.
template <int T, int BITS, int Q, bool MINIMA>
void tile_bytes(const Panel& panel, int middle, const RowLayout& layout, const Record* records, float* out, size_t stride,
                bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const uint8_t* weights = panel.weights;
    const float *scales = panel.scales, *minima = panel.minima;
    for (int b = 0; b < layout.width / 32; b++, records += layout.side) {
        int wide = 0;
        each<T>([&](auto t) INLINE { wide |= records[t].wide; });
        each<8 / Q>([&](auto part) INLINE {
            I dots[T][R];
            each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { dots[t][r] = izero(); }); });
            tile_round<T, BITS, Q, MINIMA, 0>(weights, middle, records, part, dots);
            asm volatile("" : "+r"(weights));  // loaded anew for the low bytes: held, they push the sums out of registers
            if (wide) {
                each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { dots[t][r] = shl<HIGH_BITS>(dots[t][r]); }); });
                tile_round<T, BITS, Q, MINIMA, 1>(weights, middle, records, part, dots);
            }
            F scale[R];
            each<R>([&](auto r) INLINE { scale[r] = load(scales + LANES * r); });
            each<T>([&](auto t) INLINE {
                const F x = set1(records[t].scale[wide]);
                each<R>([&](auto r) INLINE { acc[t][r] = fma(mul(to_float(dots[t][r]), scale[r]), x, acc[t][r]); });
            });
            weights += 64 * Q * R, scales += LANES * R;
        });
        if constexpr (MINIMA) {
            each<R>([&](auto r) INLINE {
                const F minimum = load(minima + LANES * r);
                each<T>([&](auto t) INLINE { acc[t][r] = fma(minimum, set1(records[t].scaled_sum), acc[t][r]); });
            });
            minima += LANES * R;
        }
    }
    finish<T>(acc, out, stride, adds);
}

template <int T>
void tile_floats(const Panel& panel, const RowLayout& layout, const float* x, float* out, size_t stride, bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const float* weights = (const float*)panel.weights;
    for (int k = 0; k < layout.width; k++, weights += LANES * R, x += layout.side) {
        F w[R];
        each<R>([&](auto r) INLINE { w[r] = load(weights + LANES * r); });
        each<T>([&](auto t) INLINE {
            const F value = set1(x[t]);
            each<R>([&](auto r) INLINE { acc[t][r] = fma(w[r], value, acc[t][r]); });
        });
    }
    finish<T>(acc, out, stride, adds);
}

#ifdef CAMELID_BF16
template <int T>
void tile_brain(const Panel& panel, const RowLayout& layout, const uint32_t* pairs, float* out, size_t stride, bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const uint8_t* weights = panel.weights;
    for (int k = 0; k < layout.width; k += 2, weights += 64 * R, pairs += layout.side) {
        I w[R];
        each<R>([&](auto r) INLINE { w[r] = iload(weights + 64 * r); });
        each<T>([&](auto t) INLINE {
            const I x = ispread(pairs + t);
            each<R>([&](auto r) INLINE { acc[t][r] = dot2(acc[t][r], w[r], x); });
        });
    }
    finish<T>(acc, out, stride, adds);
}
#endif

// Calls tile(T) for stretches of T tokens, the widest first.
template <int T, class Tile> inline void in_tiles(int tokens, int done, Tile&& tile) {
    for (; done + T <= tokens; done += T) tile(std::integral_constant<int, T>{}, done);
    if constexpr (T > 1) in_tiles<(T > 8 ? 8 : T > 6 ? 6 : T > 4 ? 4 : T - 1)>(tokens, done, tile);
}

void multiply(Kind kind, const Panel& panel, const RowLayout& layout, const uint8_t* rows, int first, int tokens, float* out,
              size_t stride, bool adds) {
    const int middle = traits(kind).bits == 8 ? ZERO8 : traits(kind).middle;
    const bool minima = traits(kind).scales == Scales::TWO || traits(kind).scales == Scales::SUPER;
    auto bytes = [&](auto bits, auto quads, auto has_minima) {
        in_tiles<TILE_TOKENS>(tokens, 0, [&](auto t, int done) {
            tile_bytes<t(), bits(), quads(), has_minima()>(panel, middle, layout, layout.records(rows, first + done),
                                                           out + done * stride, stride, adds);
        });
    };
    using std::integral_constant;
    if (kind == Kind::F16_AS_BF16) {
#ifdef CAMELID_BF16
        in_tiles<TILE_FLOAT_TOKENS>(tokens, 0, [&](auto t, int done) {
            tile_brain<t()>(panel, layout, layout.pairs(rows, first + done), out + done * stride, stride, adds);
        });
#endif
    } else if (is_float(kind)) {
        in_tiles<TILE_FLOAT_TOKENS>(tokens, 0, [&](auto t, int done) {
            tile_floats<t()>(panel, layout, layout.numbers(rows, first + done), out + done * stride, stride, adds);
        });
    } else if (kind == Kind::Q8_0) {
        bytes(integral_constant<int, 8>{}, integral_constant<int, 8>{}, std::false_type{});
    } else if (kind == Kind::Q6_K) {
        bytes(integral_constant<int, 6>{}, integral_constant<int, 4>{}, std::false_type{});
    } else if (minima) {
        bytes(integral_constant<int, 6>{}, integral_constant<int, 8>{}, std::true_type{});
    } else {
        bytes(integral_constant<int, 6>{}, integral_constant<int, 8>{}, std::false_type{});
    }
}

}  // namespace camelid::CAMELID_ISA
