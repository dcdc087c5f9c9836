#pragma once

#include <cuda_runtime.h>

#include "operand.h"

namespace nosa::cuda {

/// out[n, i] = gate[n, i] / (1 + exp(-gate[n, i])) * up[n, i], for the matrix product that follows.
/// For few rows gated_linear does this on its way out.
struct SiluMulParams {
  const float* gate;  // [n_rows, cols], 16-byte aligned
  const float* up;    // [n_rows, cols], likewise
  Operand out;
};

cudaError_t silu_mul(const SiluMulParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
