#pragma once

#include <cuda_runtime.h>

#include <cstddef>

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
/// Bound by reading the weights once. A row's result has the same bits whatever other rows there are. All targets have
/// the same cols and the same linear_operand().
struct LinearParams {
  LinearTarget targets[kLinearTargetsMax];
  int n_targets;  // 1 .. kLinearTargetsMax
  Operand x;      // 0 .. kLinearRowsMax rows, of linear_operand(weight.dtype)
  bool accumulate;
  float* scratch;  // linear_scratch_bytes(), 16-byte aligned; may be null where that is 0
  NormedRow row;   // with it, x has one row and no data
};

/// Scratch of a product with up to n_rows rows and weights of `rows` rows together; 0 up to 16 rows.
size_t linear_scratch_bytes(int n_rows, int rows);

cudaError_t linear(const LinearParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
