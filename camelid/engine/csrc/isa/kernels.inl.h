// The kernels of one instruction set: its object file names it in CAMELID_ISA and includes its sixteen lanes first.
#pragma once
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "half.h"
#include "../kernels.h"

// clang-format off
#include "matmul.inl.h"
#include "rows.inl.h"
#include "attention.inl.h"
#include "logprobs.inl.h"
#include "sampling.inl.h"
// clang-format on

namespace camelid::CAMELID_ISA {

void prefetch_range(const uint8_t* p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) prefetch(p + i);
}

uint64_t read(const uint8_t* p, size_t bytes) {
    I sums[4] = {izero(), izero(), izero(), izero()};
    for (size_t i = 0; i < bytes; i += 1024)
        for (int j = 0; j < 16; j++) sums[j % 4] = ixor(sums[j % 4], iload(p + i + 64 * j));
    return (uint64_t)isum(ixor(ixor(sums[0], sums[1]), ixor(sums[2], sums[3])));
}

inline F number(F x) { return x; }
inline F number(I x) { return to_float(x); }

// Twelve chains of `step` in registers, so that none waits for another; their sum, so that the work is not left out.
template <class Start, class Step> inline F chains(long rounds, Start&& start, Step&& step) {
    decltype(start(0)) sums[12];
    each<12>([&](auto i) INLINE { sums[i] = start(i()); });
    for (long round = 0; round < rounds; round++) each<12>([&](auto i) INLINE { sums[i] = step(sums[i]); });
    F total = zero();
    each<12>([&](auto i) INLINE { total = add(total, number(sums[i])); });
    return total;
}

// Multiplies for the machine's peak.
double multiply_loop(int what, long rounds) {
    const int8_t four[4] = {1, 3, 2, 1};
    const auto numbers = [](int i) INLINE { return set1((float)i); };
    F total = zero();
    if (what == 0) total = chains(rounds, numbers, [](F sum) INLINE { return fma(sum, set1(0.5f), set1(0.5f)); });
#ifdef CAMELID_BF16
    if (what == 1) total = chains(rounds, numbers, [](F sum) INLINE { return dot2(sum, iset1(0x3f803f80), iset1(0x3f003f00)); });
#endif
    // Weights that change, or their products would be made once.
    const auto weights = [](int i) INLINE { return iset1(0x01020301 + i); };
    if (what == 2) total = chains(rounds, weights, [&](I sum) INLINE { return dot4<6>(sum, sum, four); });
    volatile float sink = sum(total);
    (void)sink;
    const double lanes = LANES * 12 * (double)rounds;
    return what == 0 ? 2 * lanes : what == 1 ? (HAS_BF16 ? 4 * lanes : 0) : 8 * lanes;
}

const Kernels TABLE = {
    CAMELID_NAME, HAS_BF16,    norm,       log_sum,   quantize,  matmul, silu,           rope, write_key,
    write_value,  pack_query,  attention,  merge,     prefetch_range, read, multiply_loop, &SAMPLING,
};

}  // namespace camelid::CAMELID_ISA
