#define CAMELID_ISA neon
#define CAMELID_NAME "neon"
#include "simd_neon.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* neon_kernels() { return &neon::TABLE; }
}  // namespace camelid
