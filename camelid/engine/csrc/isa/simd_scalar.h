// Sixteen lanes in plain C++: the specification of what the other instruction sets do.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace camelid::CAMELID_ISA {

struct F {
    float v[16];
};
struct I {
    int32_t v[16];
};

constexpr int TILE_TOKENS = 1, TILE_INT16_TOKENS = 1, TILE_FLOAT_TOKENS = 1, FLOAT_GROUPS = 1;
constexpr int ZERO8 = 0;  // bytes of weights stay signed
constexpr bool HAS_BF16 = false;

template <class Of> inline F floats(Of of) {
    F x;
    for (int i = 0; i < 16; i++) x.v[i] = of(i);
    return x;
}
template <class Of> inline I ints(Of of) {
    I x;
    for (int i = 0; i < 16; i++) x.v[i] = of(i);
    return x;
}

inline F set1(float x) { return floats([&](int) { return x; }); }
inline F zero() { return set1(0); }
inline F load(const float* p) { return floats([&](int i) { return p[i]; }); }
inline void store(float* p, F x) { std::memcpy(p, x.v, sizeof x.v); }
inline F load_f16(const uint16_t* p) { return floats([&](int i) { return from_f16(p[i]); }); }
inline void store_f16(uint16_t* p, F x) {
    for (int i = 0; i < 16; i++) p[i] = to_f16(x.v[i]);
}
inline F load_bf16(const uint16_t* p) { return floats([&](int i) { return from_bf16(p[i]); }); }
inline F add(F a, F b) { return floats([&](int i) { return a.v[i] + b.v[i]; }); }
inline F sub(F a, F b) { return floats([&](int i) { return a.v[i] - b.v[i]; }); }
inline F mul(F a, F b) { return floats([&](int i) { return a.v[i] * b.v[i]; }); }
inline F div(F a, F b) { return floats([&](int i) { return a.v[i] / b.v[i]; }); }
inline F max(F a, F b) { return floats([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline F min(F a, F b) { return floats([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
inline F fma(F a, F b, F c) { return floats([&](int i) { return a.v[i] * b.v[i] + c.v[i]; }); }
inline F round(F a) { return floats([&](int i) { return std::nearbyintf(a.v[i]); }); }
inline float sum(F a) {  // in the order of a tree, as the registers of other instruction sets do it
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.v[i] += a.v[i + width];
    return a.v[0];
}
inline float reduce_max(F a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
    return a.v[0];
}

inline I iset1(int32_t x) { return ints([&](int) { return x; }); }
inline I izero() { return iset1(0); }
inline I iload(const void* p) {
    I x;
    std::memcpy(x.v, p, sizeof x.v);
    return x;
}
inline void istore(void* p, I x) { std::memcpy(p, x.v, sizeof x.v); }
inline I ibroadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return iset1(x);
}
inline I iand(I a, I b) { return ints([&](int i) { return a.v[i] & b.v[i]; }); }
inline I ior(I a, I b) { return ints([&](int i) { return a.v[i] | b.v[i]; }); }
inline I ixor(I a, I b) { return ints([&](int i) { return a.v[i] ^ b.v[i]; }); }
inline I imax(I a, I b) { return ints([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline I imin(I a, I b) { return ints([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
// Sums wrap, as in registers: what is not finite leaves any integer, which nobody reads.
inline int32_t wrapped(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
inline I iadd(I a, I b) { return ints([&](int i) { return wrapped(a.v[i], b.v[i]); }); }
template <int N> inline I shr(I a) { return ints([&](int i) { return (int32_t)((uint32_t)a.v[i] >> N); }); }
template <int N> inline I shl(I a) { return ints([&](int i) { return (int32_t)((uint32_t)a.v[i] << N); }); }
inline I bits_of(F a) {
    return ints([&](int i) {
        int32_t bits;
        std::memcpy(&bits, &a.v[i], 4);
        return bits;
    });
}
inline F from_bits(I a) {
    return floats([&](int i) {
        float x;
        std::memcpy(&x, &a.v[i], 4);
        return x;
    });
}
inline F to_float(I a) { return floats([&](int i) { return (float)a.v[i]; }); }
inline I to_int(F a) {  // to the nearest, ties to even; what does not fit becomes the smallest integer, as on x86
    return ints([&](int i) {
        const float whole = std::nearbyintf(a.v[i]);
        return whole > -2147483648.0f && whole < 2147483648.0f ? (int32_t)whole : INT32_MIN;
    });
}
inline F load_u8(const uint8_t* p) { return floats([&](int i) { return (float)p[i]; }); }
inline F load_s8(const uint8_t* p) { return floats([&](int i) { return (float)(int8_t)p[i]; }); }
inline void store_s8(int8_t* p, I a) {
    for (int i = 0; i < 16; i++) p[i] = (int8_t)a.v[i];
}
// Every other lane of a and then of b, within four lanes side by side; every other four of them.
template <class Of> inline I select(I a, I b, Of of) {
    return ints([&](int i) {
        const int lane = of(i);
        return lane < 16 ? a.v[lane] : b.v[lane - 16];
    });
}
inline I evens(I a, I b) { return select(a, b, [](int i) { return i % 4 / 2 * 16 + i / 4 * 4 + i % 2 * 2; }); }
inline I odds(I a, I b) { return select(a, b, [](int i) { return i % 4 / 2 * 16 + i / 4 * 4 + i % 2 * 2 + 1; }); }
inline I even_fours(I a, I b) { return select(a, b, [](int i) { return i / 4 * 8 + i % 4; }); }
inline I odd_fours(I a, I b) { return select(a, b, [](int i) { return i / 4 * 8 + 4 + i % 4; }); }
inline int32_t isum(I a) {
    int32_t total = 0;
    for (int32_t value : a.v) total = wrapped(total, value);
    return total;
}

// acc + Σ of four products in each lane: weights (signed if of 8 BITS) times the four signed bytes at p.
template <int BITS> inline I dot4(I acc, I weights, const void* p) {
    int8_t x[4];
    std::memcpy(x, p, 4);
    return ints([&](int i) {
        int8_t w[4];
        std::memcpy(w, &weights.v[i], 4);
        return wrapped(acc.v[i], w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3]);
    });
}

inline void prefetch(const void*) {}
inline void prefetch_to_write(void*) {}

}  // namespace camelid::CAMELID_ISA
