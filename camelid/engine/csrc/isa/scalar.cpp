#define CAMELID_ISA scalar
#define CAMELID_NAME "scalar"
#include "simd_scalar.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* scalar_kernels() { return &scalar::TABLE; }
}  // namespace camelid
