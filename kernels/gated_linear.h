#pragma once

#include <cuda_runtime.h>

#include "operand.h"
#include "pack_weights.h"

namespace nosa::cuda {

/// The gated half of a feed-forward layer, for few rows, ready for the product that follows:
///
///   g = gate x[n], u = up x[n];    out[n, r] = g[r] / (1 + exp(-g[r])) * u[r]
struct GatedLinearParams {
  PackedWeight gate;  // [rows, cols], rows a multiple of 32
  PackedWeight up;    // [rows, cols], any type with the same linear_operand()
  Operand x;          // 0 .. kLinearRowsMax rows
  Operand out;        // as many rows, out.cols = rows; any type
  float* scratch;     // linear_scratch_bytes(n_rows, 2 * rows); may be null where that is 0
  NormedRow row;      // with it, x has one row and no data
};

cudaError_t gated_linear(const GatedLinearParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
