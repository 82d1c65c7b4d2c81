#include "isa.h"

#if defined(CAMELID_X86)
#include <cpuid.h>
#endif

namespace camelid {

#if defined(CAMELID_X86)
namespace {

// A bit of eax that not every compiler has a name for.
bool has_bit(unsigned leaf, unsigned subleaf, int bit) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) && (a >> bit & 1);
}

}  // namespace
#endif

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
#if defined(CAMELID_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    [[maybe_unused]] const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
#ifdef CAMELID_HAS_avx512bf16
    if (avx512 && has_bit(7, 1, 5)) usable.push_back(avx512bf16_kernels());
#endif
#ifdef CAMELID_HAS_avx512
    if (avx512) usable.push_back(avx512_kernels());
#endif
#ifdef CAMELID_HAS_avxvnni
    if (avx2 && has_bit(7, 1, 4)) usable.push_back(avxvnni_kernels());
#endif
#ifdef CAMELID_HAS_avx2
    if (avx2) usable.push_back(avx2_kernels());
#endif
#elif defined(CAMELID_NEON)
    usable.push_back(neon_kernels());
#endif
    usable.push_back(scalar_kernels());
    return usable;
}

}  // namespace camelid
