#define CAMELID_ISA avx512bf16
#define CAMELID_NAME "avx512bf16"
#define CAMELID_BF16
#include "simd_avx512.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* avx512bf16_kernels() { return &avx512bf16::TABLE; }
}  // namespace camelid
