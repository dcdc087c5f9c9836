#pragma once

#include <cuda_runtime.h>

#include "operand.h"

namespace nosa::cuda {

inline constexpr int kRmsNormColsMax = 16384;

/// out[n, i] = x[n, i] / sqrt(mean(x[n]^2) + eps) * weight[i], for the matrix product that follows.
struct RmsNormParams {
  const float* x;       // [n_rows, cols], 16-byte aligned
  const float* weight;  // [cols], likewise
  float eps;
  Operand out;   // n_rows, cols (a multiple of 32, at most kRmsNormColsMax); any type
  float* plain;  // [n_rows, cols], the same in float32, or null
};

cudaError_t rms_norm(const RmsNormParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
