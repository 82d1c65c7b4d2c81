// The kernels of one instruction set: its object file names it in CAMELID_ISA and includes its sixteen lanes first.
#pragma once
#include <cmath>
#include <type_traits>
#include <utility>

#include "half.h"
#include "kernels.h"

// clang-format off
#include "matmul.inl.h"
#include "rows.inl.h"
#include "attention.inl.h"
// clang-format on

namespace camelid::CAMELID_ISA {

void prefetch_range(const uint8_t* p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) prefetch(p + i);
}

uint64_t read(const uint8_t* p, size_t bytes) {
    I sums[4] = {izero(), izero(), izero(), izero()};
    for (size_t i = 0; i < bytes; i += 1024)
        for (int j = 0; j < 16; j++) {
            prefetch(p + i + 4096 + 64 * j);
            sums[j % 4] = ixor(sums[j % 4], iload(p + i + 64 * j));
        }
    return (uint64_t)isum(ixor(ixor(sums[0], sums[1]), ixor(sums[2], sums[3])));
}

// Multiplies in registers, for the machine's peak.
double busy(int what, long rounds) {
    constexpr int n = 12;
    F floats[n];
    I ints[n];
    for (int i = 0; i < n; i++) floats[i] = set1((float)i), ints[i] = iset1(i);
    const F x = set1(0.5f);
    const I bytes = iset1(0x01020301);
    const int8_t four[4] = {1, 3, 2, 1};
    for (long round = 0; round < rounds; round++) {
        if (what == 0)
            for (int i = 0; i < n; i++) floats[i] = fma(floats[i], x, x);
#ifdef CAMELID_BF16
        if (what == 1)
            for (int i = 0; i < n; i++) floats[i] = dot2(floats[i], bytes, bytes);
#endif
        if (what == 2)
            for (int i = 0; i < n; i++) ints[i] = dot4<6>(ints[i], bytes, four);
    }
    F total = zero();
    for (int i = 0; i < n; i++) total = add(total, add(floats[i], to_float(ints[i])));
    volatile float sink = sum(total);  // so that the work is not left out
    (void)sink;
    const double lanes = LANES * n * (double)rounds;
    return what == 0 ? 2 * lanes : what == 1 ? (HAS_BF16 ? 4 * lanes : 0) : 8 * lanes;
}

const Kernels TABLE = {
    CAMELID_NAME, HAS_BF16, norm,  prepare, multiply,       silu, rotate, write_key,
    write_value,  attend,   merge, prefetch_range, read, busy,
};

}  // namespace camelid::CAMELID_ISA
