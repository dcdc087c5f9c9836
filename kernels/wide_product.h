#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "operand.h"
#include "pack_weights.h"

namespace nosa::cuda {

inline constexpr int kWideTargetsMax = 3;

/// One weight of a group that shares its input, and where its sums go.
struct WideTarget {
  PackedWeight weight;  // [rows, cols]
  float* sums;          // [n_splits, n_rows, rows]
};

/// Sums of a product with 17 to 64 rows over runs of the columns: `linear` and `gated_linear` add them up and finish.
///
///   sums[s, n, r] = sum of weight[r, c] x[n, c] over run s of the records of a row, n_records s / n_splits onwards
struct WideProductParams {
  WideTarget targets[kWideTargetsMax];
  int n_targets;
  Operand x;  // 17 .. 64 rows, of linear_operand(weight.dtype)
  int n_splits;
};

cudaError_t wide_product(const WideProductParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
