#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/rope_pairing.h"

namespace nosa::cuda {

/// Rotates heads in place: each pair (a, b) of the first n_rotated dimensions becomes
///
///   magnitude (a cos - b sin, b cos + a sin),    angle = position * inv_freq[pair]
struct RopeParams {
  float* x;  // [n_rows, n_heads, head_dim]
  int n_rows;
  int n_heads;
  int head_dim;
  const int32_t* positions;  // [n_rows], or null: row n is at *first_position + n
  const int32_t* first_position;
  const float* inv_freq;  // [n_rotated / 2]
  int n_rotated;          // even, at most head_dim
  float magnitude;
  RopePairing pairing;
};

cudaError_t rope(const RopeParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
