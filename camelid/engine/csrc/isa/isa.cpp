#include "isa.h"

#if defined(CAMELID_X86)
#include <cpuid.h>
#ifdef CAMELID_HAS_amx
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace camelid {

#if defined(CAMELID_X86)
namespace {

// A bit of eax that not every compiler has a name for.
bool has_bit(unsigned leaf, unsigned subleaf, int bit) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) && (a >> bit & 1);
}

#ifdef CAMELID_HAS_amx
// Linux gives a process the tiles' registers when it asks; what was given stays.
bool may_use_tiles() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool has = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);  // AMX-BF16, AMX-TILE
    static const bool may = has && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return may;
}
#endif

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
#ifdef CAMELID_HAS_amx
    if (avx512 && has_bit(7, 1, 5) && may_use_tiles()) usable.push_back(amx_kernels());
#endif
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
