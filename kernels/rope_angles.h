#pragma once

#include "layout.h"

namespace nosa::cuda {

/// What all layers need to know of a step's rows: their places, into rows.places, and their
/// rotation:
///   rotation[r, pair] = magnitude (cos, sin)(position inv_freq[pair]),  position =
///   base_position[lane] + own token
struct RopeAnglesParams {
  StepRows rows;
  const int32_t* n_attended;     // [n_lanes] attended blocks
  const int32_t* base_position;  // [n_lanes] position of own token 0
  const float* inv_freq;         // [n_rotated / 2]
  float2* rotation;              // [n_rows, n_rotated / 2]
  int n_rotated;
  float magnitude;
};

cudaError_t rope_angles(const RopeAnglesParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
