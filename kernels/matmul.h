#pragma once

#include <cuda_runtime.h>

#include "operand.h"
#include "pack_weights.h"

namespace nosa::cuda {

inline constexpr int kMatmulTargetsMax = 3;

/// One weight of a group that shares its input.
struct MatmulTarget {
  PackedWeight weight;  // [rows, cols]
  const float* bias;    // [rows] or null
  float* out;           // [n_rows, rows]
};

/// For each target, for many rows (prefill), on the matrix units with 16-bit operands and float32 sums:
///
///   out[n, r] = sum_c weight[r, c] x[n, c] + bias[r]    (+ out[n, r] with `accumulate`)
///
/// Quantised weights become halves in registers: 2^-11 of a weight is lost, less than activations lose.
struct MatmulParams {
  MatmulTarget targets[kMatmulTargetsMax];
  int n_targets;  // 1 .. kMatmulTargetsMax, of one matmul_operand() type
  Operand x;      // any number of rows, of matmul_operand(weight.dtype)
  bool accumulate;
};

cudaError_t matmul(const MatmulParams& p, cudaStream_t stream);

/// As gated_linear, for many rows: out[n, r] = g[r] / (1 + exp(-g[r])) * u[r], g = gate x[n], u = up x[n].
struct GatedMatmulParams {
  PackedWeight gate;  // [rows, cols], rows a multiple of 32
  PackedWeight up;    // the same type and size
  Operand x;          // any number of rows, of matmul_operand(gate.dtype)
  Operand out;        // as many rows, out.cols = rows; kF16 or kBF16
};

cudaError_t gated_matmul(const GatedMatmulParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
