// Sixteen lanes as four registers of NEON with dot products (ARMv8.2 and later: Apple M1, Graviton 2, Grace …).
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace camelid::CAMELID_ISA {

struct F {
    float32x4_t v[4];
};
struct I {
    int32x4_t v[4];
};

constexpr int TILE_TOKENS = 6, TILE_INT16_TOKENS = 2, TILE_FLOAT_TOKENS = 4, FLOAT_GROUPS = 1;
constexpr int ZERO8 = 0;  // bytes of weights stay signed
constexpr bool HAS_BF16 = false;

template <class Of> inline F floats(Of of) { return {{of(0), of(1), of(2), of(3)}}; }
template <class Of> inline I ints(Of of) { return {{of(0), of(1), of(2), of(3)}}; }

inline F set1(float x) { return floats([&](int) { return vdupq_n_f32(x); }); }
inline F zero() { return set1(0); }
inline F load(const float* p) { return floats([&](int i) { return vld1q_f32(p + 4 * i); }); }
inline void store(float* p, F x) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]);
}
inline F load_f16(const uint16_t* p) {
    return floats([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline void store_f16(uint16_t* p, F x) {
    for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
inline F load_bf16(const uint16_t* p) {
    return floats([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline F add(F a, F b) { return floats([&](int i) { return vaddq_f32(a.v[i], b.v[i]); }); }
inline F sub(F a, F b) { return floats([&](int i) { return vsubq_f32(a.v[i], b.v[i]); }); }
inline F mul(F a, F b) { return floats([&](int i) { return vmulq_f32(a.v[i], b.v[i]); }); }
inline F div(F a, F b) { return floats([&](int i) { return vdivq_f32(a.v[i], b.v[i]); }); }
inline F max(F a, F b) { return floats([&](int i) { return vmaxq_f32(a.v[i], b.v[i]); }); }
inline F min(F a, F b) { return floats([&](int i) { return vminq_f32(a.v[i], b.v[i]); }); }
inline F fma(F a, F b, F c) { return floats([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); }); }
inline F round(F a) { return floats([&](int i) { return vrndnq_f32(a.v[i]); }); }
inline float sum(F a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]))); }
inline float reduce_max(F a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3]))); }

inline I iset1(int32_t x) { return ints([&](int) { return vdupq_n_s32(x); }); }
inline I izero() { return iset1(0); }
inline I iload(const void* p) { return ints([&](int i) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p + 16 * i)); }); }
inline void istore(void* p, I x) {
    for (int i = 0; i < 4; i++) vst1q_u8((uint8_t*)p + 16 * i, vreinterpretq_u8_s32(x.v[i]));
}
inline I ibroadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return iset1(x);
}
inline I iand(I a, I b) { return ints([&](int i) { return vandq_s32(a.v[i], b.v[i]); }); }
inline I ior(I a, I b) { return ints([&](int i) { return vorrq_s32(a.v[i], b.v[i]); }); }
inline I ixor(I a, I b) { return ints([&](int i) { return veorq_s32(a.v[i], b.v[i]); }); }
inline I imax(I a, I b) { return ints([&](int i) { return vmaxq_s32(a.v[i], b.v[i]); }); }
inline I imin(I a, I b) { return ints([&](int i) { return vminq_s32(a.v[i], b.v[i]); }); }
inline I iadd(I a, I b) { return ints([&](int i) { return vaddq_s32(a.v[i], b.v[i]); }); }
template <int N> inline I shr(I a) {
    if constexpr (N == 0) return a;
    else return ints([&](int i) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), N)); });
}
template <int N> inline I shl(I a) { return ints([&](int i) { return vshlq_n_s32(a.v[i], N); }); }
inline I bits_of(F a) { return ints([&](int i) { return vreinterpretq_s32_f32(a.v[i]); }); }
inline F from_bits(I a) { return floats([&](int i) { return vreinterpretq_f32_s32(a.v[i]); }); }
inline F to_float(I a) { return floats([&](int i) { return vcvtq_f32_s32(a.v[i]); }); }
inline I to_int(F a) { return ints([&](int i) { return vcvtnq_s32_f32(a.v[i]); }); }  // nearest, ties to even
inline F load_u8(const uint8_t* p) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = (float)p[i];
    return load(values);
}
inline F load_s8(const uint8_t* p) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = (float)(int8_t)p[i];
    return load(values);
}
inline void store_s8(int8_t* p, I a) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) p[4 * i + j] = (int8_t)a.v[i][j];
}
// Every other lane of a and then of b, within four lanes side by side; every other four of them.
inline I evens(I a, I b) { return ints([&](int i) { return vuzp1q_s32(a.v[i], b.v[i]); }); }
inline I odds(I a, I b) { return ints([&](int i) { return vuzp2q_s32(a.v[i], b.v[i]); }); }
inline I even_fours(I a, I b) { return {{a.v[0], a.v[2], b.v[0], b.v[2]}}; }
inline I odd_fours(I a, I b) { return {{a.v[1], a.v[3], b.v[1], b.v[3]}}; }
inline int32_t isum(I a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]))); }

// acc + Σ of four products in each lane: weights (signed if of 8 BITS) times the four signed bytes at p.
template <int BITS> inline I dot4(I acc, I weights, const void* p) {
    const I bytes = ibroadcast(p);
    return ints([&](int i) {
        return vdotq_s32(acc.v[i], vreinterpretq_s8_s32(weights.v[i]), vreinterpretq_s8_s32(bytes.v[i]));
    });
}

inline void prefetch(const void* p) { asm volatile("prfm pldl1keep, [%0]" ::"r"(p)); }
inline void prefetch_to_write(void* p) { asm volatile("prfm pstl1keep, [%0]" ::"r"(p)); }

}  // namespace camelid::CAMELID_ISA
