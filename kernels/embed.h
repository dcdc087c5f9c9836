#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "pack_weights.h"

namespace nosa::cuda {

/// out[n] = row ids[n] of the table, from the same packed table that the output product reads.
struct EmbedParams {
  PackedWeight table;  // [n_vocab, cols]
  const int32_t* ids;  // [n_rows]; a row whose id is not in 0 .. n_vocab - 1 (idle) becomes zero
  float* out;          // [n_rows, cols], 16-byte aligned
  int n_rows;
};

cudaError_t embed(const EmbedParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
