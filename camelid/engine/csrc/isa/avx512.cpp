#define CAMELID_ISA avx512
#define CAMELID_NAME "avx512"
#include "simd_avx512.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* avx512_kernels() { return &avx512::TABLE; }
}  // namespace camelid
