// Sixteen lanes on AVX-512 with VNNI, and with BF16 where CAMELID_BF16 is defined.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace camelid::CAMELID_ISA {

using F = __m512;   // 16 floats
using I = __m512i;  // 16 integers of 32 bits, or 64 bytes

constexpr int TILE_TOKENS = 12, TILE_INT16_TOKENS = 8, TILE_FLOAT_TOKENS = 12, FLOAT_GROUPS = 2;
constexpr int ZERO8 = 128;  // bytes of weights are made unsigned by adding this
#ifdef CAMELID_BF16
constexpr bool HAS_BF16 = true;
#else
constexpr bool HAS_BF16 = false;
#endif

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline F load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline void store_f16(uint16_t* p, F x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
inline F load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F abs(F a) { return _mm512_abs_ps(a); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline float sum(F a) { return _mm512_reduce_add_ps(a); }
inline float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
inline I izero() { return _mm512_setzero_si512(); }
inline I iset1(int32_t x) { return _mm512_set1_epi32(x); }
inline I iload(const void* p) { return _mm512_loadu_si512(p); }
inline void istore(void* p, I x) { _mm512_storeu_si512(p, x); }
inline I ibroadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
inline I iand(I a, I b) { return _mm512_and_si512(a, b); }
inline I ior(I a, I b) { return _mm512_or_si512(a, b); }
inline I ixor(I a, I b) { return _mm512_xor_si512(a, b); }
inline I imax(I a, I b) { return _mm512_max_epi32(a, b); }
inline I imin(I a, I b) { return _mm512_min_epi32(a, b); }
inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
template <int N> inline I shr(I a) { return N ? _mm512_srli_epi32(a, N) : a; }
template <int N> inline I shl(I a) { return N ? _mm512_slli_epi32(a, N) : a; }
inline I bits_of(F a) { return _mm512_castps_si512(a); }
inline F from_bits(I a) { return _mm512_castsi512_ps(a); }
inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
inline I to_int(F a) { return _mm512_cvtps_epi32(a); }  // to the nearest, ties to even
inline F load_u8(const uint8_t* p) { return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline F load_s8(const uint8_t* p) { return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline void store_s8(int8_t* p, I a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a)); }
// Every other lane of a and then of b, within four lanes side by side; every other four of them.
template <int WHICH> inline I shuffled(I a, I b) {
    return _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), WHICH));
}
inline I evens(I a, I b) { return shuffled<0x88>(a, b); }
inline I odds(I a, I b) { return shuffled<0xdd>(a, b); }
inline I even_fours(I a, I b) { return _mm512_shuffle_i32x4(a, b, 0x88); }
inline I odd_fours(I a, I b) { return _mm512_shuffle_i32x4(a, b, 0xdd); }
inline int32_t isum(I a) {  // wraps, which the last addition of the header's own sum may not
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// acc + Σ of four products in each lane: weights (unsigned when ZERO8, of BITS bits) times the four signed bytes at p. In
// assembly, since GCC would take a second instruction, and a register, to broadcast them.
template <int BITS> inline I dot4(I acc, I weights, const void* p) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*(const int32_t*)p));
    return acc;
}

#ifdef CAMELID_BF16
inline void store_bf16(uint16_t* p, F x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
// acc + both products in each lane, of pairs of bfloat16.
inline F dot2(F acc, I weights, I pairs) { return _mm512_dpbf16_ps(acc, (__m512bh)weights, (__m512bh)pairs); }
#endif

// In assembly, since GCC takes a function that only prefetches for one that does nothing.
inline void prefetch(const void* p) { asm volatile("prefetcht1 %0" ::"m"(*(const char*)p)); }
inline void prefetch_to_write(void* p) { asm volatile("prefetchw %0" ::"m"(*(char*)p)); }

}  // namespace camelid::CAMELID_ISA
