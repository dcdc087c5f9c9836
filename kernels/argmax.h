#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::cuda {

/// out[n] = the index of the highest of scores[n]; the lowest index among equals; not-a-number counts as the lowest value.
struct ArgmaxParams {
  const float* scores;  // [n_rows, n_values], 16-byte aligned
  int32_t* out;         // [n_rows]
  std::byte* scratch;   // argmax_scratch_bytes(), zeroed once before the first use; 16-byte aligned
  int n_rows;
  int n_values;         // 1 .. 2^31 - 1
};

size_t argmax_scratch_bytes(int n_rows);

cudaError_t argmax(const ArgmaxParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
