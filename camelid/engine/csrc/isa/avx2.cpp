#define CAMELID_ISA avx2
#define CAMELID_NAME "avx2"
#include "simd_avx2.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* avx2_kernels() { return &avx2::TABLE; }
}  // namespace camelid
