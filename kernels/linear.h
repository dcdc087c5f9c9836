#pragma once

#include <cuda_runtime.h>

#include "operand.h"
#include "pack_weights.h"

namespace nosa::cuda {

inline constexpr int kLinearRowsMax = 64;
inline constexpr int kLinearTargetsMax = 3;

/// One weight of a group that shares its input.
struct LinearTarget {
  PackedWeight weight;  // [rows, cols]
  const float* bias;    // [rows] or null
  float* out;           // [n_rows, rows]
};

/// For each target, for few rows (decoding):
///
///   out[n, r] = sum_c weight[r, c] x[n, c] + bias[r]    (+ out[n, r] with `accumulate`)
///
/// Bound by reading the weights once. All targets have the same cols and the same linear_operand().
struct LinearParams {
  LinearTarget targets[kLinearTargetsMax];
  int n_targets;    // 1 .. kLinearTargetsMax
  Operand x;        // 1 .. kLinearRowsMax rows (0 is no work), of linear_operand(weight.dtype)
  bool accumulate;
};

cudaError_t linear(const LinearParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
