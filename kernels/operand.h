// The right-hand side of a matrix product, in the form in which the matrix units take it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace nosa::cuda {

/// kQ8: 32 consecutive values share a scale d = max |x| / 127, value = d level, level in -127 .. 127.
enum class OperandType : uint8_t { kQ8, kF16, kBF16 };

/// What `linear` and `gated_linear` (few rows) want beside a weight of this type.
constexpr OperandType linear_operand(DType weight) {
  return weight == DType::kF16 ? OperandType::kF16 : weight == DType::kBF16 ? OperandType::kBF16 : OperandType::kQ8;
}

/// What `matmul` (many rows) wants beside a weight of this type.
constexpr OperandType matmul_operand(DType weight) {
  return weight == DType::kBF16 ? OperandType::kBF16 : OperandType::kF16;
}

/// Rows of a kQ8 operand's memory: what the shapes of `linear` take, so that strides are constants there.
constexpr int rows_padded(int n_rows) {
  return n_rows <= 8 ? 8 : n_rows <= 16 ? 16 : n_rows <= 32 ? 32 : (n_rows + 63) / 64 * 64;
}

/// n_rows activations of `cols` values each, written by rms_norm, silu_mul, to_operand or gated_linear.
///
/// kF16, kBF16: [n_rows, cols]; what f16 cannot hold becomes its largest.
/// kQ8: levels, int8 [cols / 32, rows_padded, 32], then (d, d * sum of levels), float2 [cols / 32, rows_padded]; the
/// padding's contents mean nothing.
/// Of each 32 values, in all types, 4q .. 4q + 3 lie at 8 (q % 4) + 4 (q / 4): a lane of a warp finds its share of
/// the 32 in 8 consecutive values.
struct Operand {
  void* data;  // operand_bytes(...), 16-byte aligned
  OperandType type;
  int n_rows;
  int cols;  // a multiple of 32
};

/// A single row that a product normalises itself, x weight / sqrt(mean(x^2) + eps), in place of an operand that rms_norm
/// wrote: the same bits, and a kernel less.
struct NormedRow {
  static constexpr int kColsMax = 2048;
  const float* x;       // [cols], or null for none; 16-byte aligned, `weight` too
  const float* weight;  // [cols]
  float eps;
};

constexpr size_t operand_bytes(OperandType type, int n_rows, int cols) {
  if (type != OperandType::kQ8) return size_t(n_rows) * size_t(cols) * 2;
  return size_t(rows_padded(n_rows)) * size_t(cols / 32) * (32 + 8);
}

}  // namespace nosa::cuda
