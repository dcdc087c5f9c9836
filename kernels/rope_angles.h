#pragma once

#include "layout.h"

namespace nosa::cuda {

/// The rotation of every row of a step, once for all layers:
///   rotation[r, pair] = magnitude (cos, sin)(position inv_freq[pair]),  position = base_position[lane] + own token
struct RopeAnglesParams {
  StepRows rows;
  const int32_t* base_position;  // [n_lanes] position of own token 0
  const float* inv_freq;         // [n_rotated / 2]
  float2* rotation;              // [n_rows, n_rotated / 2]
  int n_rotated;
  float magnitude;
};

cudaError_t rope_angles(const RopeAnglesParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
