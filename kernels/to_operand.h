#pragma once

#include <cuda_runtime.h>

#include "operand.h"

namespace nosa::cuda {

/// Float32 rows in the form of a matrix product's right-hand side.
struct ToOperandParams {
  const float* x;  // [n_rows, cols], 16-byte aligned
  Operand out;
};

cudaError_t to_operand(const ToOperandParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
