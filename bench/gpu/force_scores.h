#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::bench {

/// Scores of blocks by which the query's choice, and with it the number of blocks that a stream has to fetch, is known: of
/// `n_picks` blocks that the query chooses, a fresh share changes at every step, `fresh` of them on average (3.58 means 3
/// or 4), taken from all blocks in turn, so that none comes back before nearly all have been; the rest stays.
struct ForcedPicks {
  float2* best;  // [n_layers, n_rows, n_kv_heads, n_blocks_max]
  const uint32_t* step;  // Number of the step; null while setting.
  int n_layers;
  int n_rows;
  int n_kv_heads;
  int n_blocks_max;
  int n_free;  // Blocks 1 .. n_free can be chosen by score in every row.
  int n_picks;
  float fresh;
};

/// Sets all scores, before the first step.
cudaError_t set_forced_picks(const ForcedPicks& picks, cudaStream_t stream);

/// Moves on to the picks of step *step: one launch a step, for all layers.
cudaError_t move_forced_picks(const ForcedPicks& picks, cudaStream_t stream);

}  // namespace nosa::bench
