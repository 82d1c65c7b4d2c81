// What this machine can do at most: bytes read and products made in a second.
#pragma once
#include "kernels.h"

namespace camelid {

double read_bandwidth(const Kernels& kernels, int threads, size_t megabytes);  // bytes a second, the best of several
double multiply_peak(const Kernels& kernels, int what, int threads);  // operations a second; `what` as in Kernels::multiply_loop

}  // namespace camelid
