// Which instruction sets this build holds and this machine runs.
#pragma once
#include <string>
#include <vector>

#include "../kernels.h"

namespace camelid {

// Best first; "scalar" is always there.
std::vector<const Kernels*> usable_kernels();

}  // namespace camelid
