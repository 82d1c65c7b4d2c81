// Sixteen lanes as two registers of AVX2 with FMA and F16C; with AVX-VNNI where CAMELID_AVXVNNI is defined.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace camelid::CAMELID_ISA {

struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};

constexpr int TILE_TOKENS = 6, TILE_INT16_TOKENS = 2, TILE_FLOAT_TOKENS = 4, FLOAT_GROUPS = 1;
constexpr bool HAS_BF16 = false;
#ifdef CAMELID_AVXVNNI
constexpr int ZERO8 = 128;  // bytes of weights are made unsigned by adding this
#else
constexpr int ZERO8 = 0;
#endif

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
inline __m256 f16x8(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline F load_f16(const uint16_t* p) { return {f16x8(p), f16x8(p + 8)}; }
inline void store_f16(uint16_t* p, F x) {
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256 bf16x8(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline F load_bf16(const uint16_t* p) { return {bf16x8(p), bf16x8(p + 8)}; }
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F round(F x) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, nearest), _mm256_round_ps(x.b, nearest)};
}
inline float sum(F x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float reduce_max(F x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline I izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I iload(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
inline void istore(void* p, I x) { _mm256_storeu_si256((__m256i*)p, x.a), _mm256_storeu_si256((__m256i*)p + 1, x.b); }
inline I ibroadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return iset1(x);
}
inline I iand(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline I ior(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline I ixor(I x, I y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
inline I imax(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
inline I imin(I x, I y) { return {_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)}; }
inline I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
template <int N> inline I shr(I x) { return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)}; }
template <int N> inline I shl(I x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
inline I bits_of(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline F from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }  // nearest, ties to even
inline F load_u8(const uint8_t* p) {
    return to_float({_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)),
                     _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8)))});
}
inline F load_s8(const uint8_t* p) {
    return to_float({_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)),
                     _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8)))});
}
inline void store_s8(int8_t* p, I x) {
    alignas(32) int32_t values[16];
    istore(values, x);
    for (int i = 0; i < 16; i++) p[i] = (int8_t)values[i];
}
// Every other lane of x and then of y, within four lanes side by side; every other four of them.
template <int WHICH> inline __m256i shuffled(__m256i x, __m256i y) {
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(y), WHICH));
}
inline I evens(I x, I y) { return {shuffled<0x88>(x.a, y.a), shuffled<0x88>(x.b, y.b)}; }
inline I odds(I x, I y) { return {shuffled<0xdd>(x.a, y.a), shuffled<0xdd>(x.b, y.b)}; }
inline I even_fours(I x, I y) {
    return {_mm256_permute2x128_si256(x.a, x.b, 0x20), _mm256_permute2x128_si256(y.a, y.b, 0x20)};
}
inline I odd_fours(I x, I y) {
    return {_mm256_permute2x128_si256(x.a, x.b, 0x31), _mm256_permute2x128_si256(y.a, y.b, 0x31)};
}
inline int32_t isum(I x) {
    const __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// acc + Σ of four products in each lane: weights (unsigned when ZERO8 or fewer than 8 BITS) times the four signed bytes at p.
template <int BITS> inline __m256i dot4_half(__m256i acc, __m256i weights, __m256i bytes) {
#ifdef CAMELID_AVXVNNI
    return _mm256_dpbusd_avx_epi32(acc, weights, bytes);
#else
    if (BITS < 8) {  // pairs cannot overflow 16 bits
        const __m256i pairs = _mm256_maddubs_epi16(weights, bytes);
        return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    const __m256i even = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8),
                                           _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srai_epi16(weights, 8), _mm256_srai_epi16(bytes, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
#endif
}
template <int BITS> inline I dot4(I acc, I weights, const void* p) {
    const I bytes = ibroadcast(p);
    return {dot4_half<BITS>(acc.a, weights.a, bytes.a), dot4_half<BITS>(acc.b, weights.b, bytes.b)};
}

// In assembly, since GCC takes a function that only prefetches for one that does nothing.
inline void prefetch(const void* p) { asm volatile("prefetcht1 %0" ::"m"(*(const char*)p)); }
inline void prefetch_to_write(void* p) { asm volatile("prefetchw %0" ::"m"(*(char*)p)); }

}  // namespace camelid::CAMELID_ISA
