// Floats of 16 bits, in plain integer arithmetic (IEEE 754-2019 binary16; bfloat16).
#pragma once
#include <cstdint>
#include <cstring>

namespace camelid {
namespace {  // every instruction set's object has its own: a shared one could be compiled for a machine that is not there

inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float from_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu;
    if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return float_of(sign | ((rest << 13) + 0x38000000u));
    const float small = (float)rest * 5.9604644775390625e-8f;  // 2^-24
    return float_of(sign | bits_of(small));
}

inline uint16_t to_f16(float x) {  // to the nearest, ties to even
    const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (rest >= 0x38800000u) return (uint16_t)(sign | (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13);
    const float aligned = float_of(rest) + 0.5f;  // the sum's last bit is 2^-24, a half's smallest step
    return (uint16_t)(sign | (bits_of(aligned) - 0x3f000000u));
}

inline float from_bf16(uint16_t bf16) { return float_of((uint32_t)bf16 << 16); }

inline uint16_t to_bf16(float x) {  // to the nearest, ties to even
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace
}  // namespace camelid
