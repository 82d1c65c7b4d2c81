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

struct ByteRow {  // where the parts of a token's eight-bit form lie
    const uint8_t* row;
    const RowLayout& at;
    const uint8_t* block(int b) const { return row + at.bytes + 64 * (size_t)b; }  // 32 high bytes, 32 low ones
    const float* scale() const { return (const float*)(row + at.scale); }
    const float* scaled_sum() const { return (const float*)(row + at.scaled_sum); }
    const int32_t* minus(int quads) const { return (const int32_t*)(row + (quads == 8 ? at.minus32 : at.minus16)); }
};

template <Kind K, bool FINE>
void multiply_one_bytes(const Matrix& a, const RowLayout& layout, const uint8_t* row, int first, int last, float* out) {
    constexpr Traits T = traits(K);
    constexpr int Q = QUADS<K>;
    const ByteRow x{row, layout};
    const int32_t* minus = x.minus(Q);
    const I middle = iset1(MIDDLE<K>);
    const int blocks = a.columns / 32;
    for (int g = first; g < last; g++) {
        const uint8_t *block = a.group(g), *super = block;
        F acc = zero();
        for (int b = 0; b < blocks; b++, block += T.block_bytes + T.scale_bytes) {
            I w[8];
            F scale[2], minimum = zero();
            if (T.super_bytes && b % 8 == 0) super = block, block += T.super_bytes;
            prefetch_ahead<T.block_bytes + T.scale_bytes + T.super_bytes>(block);
            open_block<T.bits>(block, w);
            open_scales<K>(block + T.block_bytes, super, scale, minimum);
            for (int part = 0; part < 8 / Q; part++) {
                I even = izero(), odd = izero();
                for (int low = 0; low < (FINE ? 2 : 1); low++) {
                    const uint8_t* p = x.block(b) + 32 * low + 4 * part * Q;
                    if (low) even = shl<HIGH_BITS>(even), odd = shl<HIGH_BITS>(odd);
                    for (int q = 0; q < Q; q += 2) {
                        even = dot4<T.bits>(even, w[part * Q + q], ispread(p + 4 * q));
                        odd = dot4<T.bits>(odd, w[part * Q + q + 1], ispread(p + 4 * q + 4));
                    }
                }
                if (MIDDLE<K>) even = iadd(even, imul(iset1(minus[b * (8 / Q) + part]), middle));
                acc = fma(mul(to_float(iadd(even, odd)), scale[part]), set1(x.scale()[b]), acc);
            }
            if constexpr (HAS_MINIMA<K>) acc = fma(minimum, set1(x.scaled_sum()[b]), acc);
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
void multiply_one_floats(const Matrix& a, const float* x, int g, float* out) {
    constexpr int step = traits(K).block_bytes;
    F acc[G];
    for (int i = 0; i < G; i++) acc[i] = zero();
    for (int k = 0; k < a.columns; k++)
        for (int i = 0; i < G; i++)
            acc[i] = fma(load_column<K>(a.group(g + i) + (size_t)k * step), set1(x[k]), acc[i]);
    for (int i = 0; i < G; i++) store(out + LANES * i, acc[i]);
}

template <Kind K>
void multiply_one_floats(const Matrix& a, const RowLayout& layout, const uint8_t* row, int first, int last, float* out) {
    const float* x = (const float*)(row + layout.floats);
    int g = first;
    for (; g + 4 <= last; g += 4) multiply_one_floats<K, 4>(a, x, g, out + LANES * (g - first));
    for (; g < last; g++) multiply_one_floats<K, 1>(a, x, g, out + LANES * (g - first));
}

#ifdef CAMELID_BF16
template <int G> void multiply_one_brain(const Matrix& a, const uint8_t* pairs, int g, float* out) {
    F acc[G];
    for (int i = 0; i < G; i++) acc[i] = zero();
    for (int k = 0; k < a.columns; k += 2)
        for (int i = 0; i < G; i++) {
            const uint8_t* w = a.group(g + i) + 32 * (size_t)k;
            prefetch_ahead<64>(w);
            acc[i] = dot2(acc[i], iload(w), ispread(pairs + 2 * k));
        }
    for (int i = 0; i < G; i++) store(out + LANES * i, acc[i]);
}
#endif

inline void multiply_one_brain([[maybe_unused]] const Matrix& a, [[maybe_unused]] const RowLayout& layout,
                               [[maybe_unused]] const uint8_t* row, [[maybe_unused]] int first,
                               [[maybe_unused]] int last, [[maybe_unused]] float* out) {
#ifdef CAMELID_BF16
    const uint8_t* pairs = row + layout.brain;
    int g = first;
    for (; g + 2 <= last; g += 2) multiply_one_brain<2>(a, pairs, g, out + LANES * (g - first));
    for (; g < last; g++) multiply_one_brain<1>(a, pairs, g, out + LANES * (g - first));
#endif
}

template <Kind K>
void multiply_one_bytes(const Matrix& a, const RowLayout& layout, const uint8_t* row, int first, int last, float* out) {
    if (layout.fine) return multiply_one_bytes<K, true>(a, layout, row, first, last, out);
    multiply_one_bytes<K, false>(a, layout, row, first, last, out);
}

void multiply_one(const Matrix& a, const RowLayout& layout, const uint8_t* row, int first, int last, float* out) {
    switch (a.kind) {
        case Kind::Q4_0: return multiply_one_bytes<Kind::Q4_0>(a, layout, row, first, last, out);
        case Kind::Q4_1: return multiply_one_bytes<Kind::Q4_1>(a, layout, row, first, last, out);
        case Kind::Q5_0: return multiply_one_bytes<Kind::Q5_0>(a, layout, row, first, last, out);
        case Kind::Q5_1: return multiply_one_bytes<Kind::Q5_1>(a, layout, row, first, last, out);
        case Kind::Q8_0: return multiply_one_bytes<Kind::Q8_0>(a, layout, row, first, last, out);
        case Kind::Q4_K: return multiply_one_bytes<Kind::Q4_K>(a, layout, row, first, last, out);
        case Kind::Q5_K: return multiply_one_bytes<Kind::Q5_K>(a, layout, row, first, last, out);
        case Kind::Q6_K: return multiply_one_bytes<Kind::Q6_K>(a, layout, row, first, last, out);
        case Kind::F32: return multiply_one_floats<Kind::F32>(a, layout, row, first, last, out);
        case Kind::BF16: return multiply_one_floats<Kind::BF16>(a, layout, row, first, last, out);
        case Kind::F16: return multiply_one_floats<Kind::F16>(a, layout, row, first, last, out);
        case Kind::F16_AS_BF16: return multiply_one_brain(a, layout, row, first, last, out);
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

inline float float_at(const uint8_t* p) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
}

// BITS 6 stands for all below 8; Q registers share a scale.
template <int T, int BITS, int Q, bool MINIMA, bool FINE>
void tile_bytes(int columns, const Panel& panel, int middle, const RowLayout& layout, const uint8_t* rows, float* out,
                size_t stride, bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const uint8_t* weights = panel.weights;
    const I zero_point = iset1(middle);
    const size_t s = layout.stride;
    for (int part = 0; part < columns / (4 * Q); part++) {
        const int b = part * Q / 8;
        const uint8_t* bytes = rows + layout.bytes + 64 * (size_t)b + 4 * (part * Q % 8);
        const uint8_t* minus = rows + (Q == 8 ? layout.minus32 : layout.minus16) + 4 * (size_t)part;
        I dots[T][R];
        each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { dots[t][r] = izero(); }); });
        each<FINE ? 2 : 1>([&](auto low) INLINE {
            each<Q>([&](auto q) INLINE {
                I w[R];
                each<R>([&](auto r) INLINE { w[r] = iload(weights + 64 * (q * R + r)); });
                each<T>([&](auto t) INLINE {
                    const I x = ispread(bytes + t * s + 32 * low + 4 * q);
                    each<R>([&](auto r) INLINE { dots[t][r] = dot4<BITS>(dots[t][r], w[r], x); });
                });
            });
            asm volatile("" : "+r"(weights));  // loaded anew for the low bytes: held, they push the sums out of registers
            if constexpr (FINE && low == 0)
                each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { dots[t][r] = shl<HIGH_BITS>(dots[t][r]); }); });
        });
        weights += 64 * Q * R;
        if constexpr (!MINIMA)
            each<T>([&](auto t) INLINE {
                const I start = imul(ispread(minus + t * s), zero_point);
                each<R>([&](auto r) INLINE { dots[t][r] = iadd(dots[t][r], start); });
            });
        F scale[R];
        each<R>([&](auto r) INLINE { scale[r] = load(panel.scales + LANES * (part * R + r)); });
        const uint8_t* d = rows + layout.scale + 4 * (size_t)b;
        each<T>([&](auto t) INLINE {
            const F x = set1(float_at(d + t * s));
            each<R>([&](auto r) INLINE { acc[t][r] = fma(mul(to_float(dots[t][r]), scale[r]), x, acc[t][r]); });
        });
        if constexpr (MINIMA) {
            const uint8_t* sums = rows + layout.scaled_sum + 4 * (size_t)b;
            each<R>([&](auto r) INLINE {
                const F minimum = load(panel.minima + LANES * (b * R + r));
                each<T>([&](auto t) INLINE { acc[t][r] = fma(minimum, set1(float_at(sums + t * s)), acc[t][r]); });
            });
        }
    }
    finish<T>(acc, out, stride, adds);
}

template <int T>
void tile_floats(int columns, const Panel& panel, const RowLayout& layout, const uint8_t* rows, float* out,
                 size_t stride, bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const float* weights = (const float*)panel.weights;
    const uint8_t* x = rows + layout.floats;
    for (int k = 0; k < columns; k++, weights += LANES * R, x += 4) {
        F w[R];
        each<R>([&](auto r) INLINE { w[r] = load(weights + LANES * r); });
        each<T>([&](auto t) INLINE {
            const F value = set1(float_at(x + t * layout.stride));
            each<R>([&](auto r) INLINE { acc[t][r] = fma(w[r], value, acc[t][r]); });
        });
    }
    finish<T>(acc, out, stride, adds);
}

#ifdef CAMELID_BF16
template <int T>
void tile_brain(int columns, const Panel& panel, const RowLayout& layout, const uint8_t* rows, float* out,
                size_t stride, bool adds) {
    Sums<T> acc;
    each<T>([&](auto t) INLINE { each<R>([&](auto r) INLINE { acc[t][r] = zero(); }); });
    const uint8_t *weights = panel.weights, *pairs = rows + layout.brain;
    for (int k = 0; k < columns; k += 2, weights += 64 * R, pairs += 4) {
        I w[R];
        each<R>([&](auto r) INLINE { w[r] = iload(weights + 64 * r); });
        each<T>([&](auto t) INLINE {
            const I x = ispread(pairs + t * layout.stride);
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

void multiply(Kind kind, int columns, const Panel& panel, const RowLayout& layout, const uint8_t* rows, int tokens,
              float* out, size_t stride, bool adds) {
    const int middle = traits(kind).bits == 8 ? ZERO8 : traits(kind).middle;
    const bool minima = traits(kind).scales == Scales::TWO || traits(kind).scales == Scales::SUPER;
    auto bytes = [&](auto bits, auto quads, auto has_minima) {
        in_tiles<TILE_TOKENS>(tokens, 0, [&](auto t, int done) {
            const auto tile = layout.fine ? tile_bytes<t(), bits(), quads(), has_minima(), true>
                                          : tile_bytes<t(), bits(), quads(), has_minima(), false>;
            tile(columns, panel, middle, layout, rows + done * layout.stride, out + done * stride, stride, adds);
        });
    };
    using std::integral_constant;
    if (kind == Kind::F16_AS_BF16) {
#ifdef CAMELID_BF16
        in_tiles<TILE_FLOAT_TOKENS>(tokens, 0, [&](auto t, int done) {
            tile_brain<t()>(columns, panel, layout, rows + done * layout.stride, out + done * stride, stride, adds);
        });
#endif
    } else if (is_float(kind)) {
        in_tiles<TILE_FLOAT_TOKENS>(tokens, 0, [&](auto t, int done) {
            tile_floats<t()>(columns, panel, layout, rows + done * layout.stride, out + done * stride, stride, adds);
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
