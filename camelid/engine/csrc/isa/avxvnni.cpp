#define CAMELID_ISA avxvnni
#define CAMELID_NAME "avxvnni"
#define CAMELID_AVXVNNI
#include "simd_avx2.h"

#include "kernels.inl.h"

namespace camelid {
const Kernels* avxvnni_kernels() { return &avxvnni::TABLE; }
}  // namespace camelid
