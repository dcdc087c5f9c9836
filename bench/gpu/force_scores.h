#pragma once

#include <cuda_runtime.h>

#include "kernels/score_blocks.h"

namespace nosa::bench {

/// Replaces the scores of blocks so that the query's choice, and with it the number of blocks that a stream has to fetch,
/// is known: of `n_picks` blocks that the query chooses, a fresh share changes at every step, `fresh` of them on average
/// (3.58 means 3 or 4), taken from all blocks in turn, so that none comes back before nearly all have been; the rest stays.
struct ForceScoresParams {
  cuda::ScoreBlocksParams scores;
  const uint32_t* step;
  int n_picks = 0;
  float fresh = 0.0f;
  int layer = 0;
  int window_blocks = 0;  // The last ones of a lane, which are not chosen by score.
};

cudaError_t force_scores(const ForceScoresParams& params, cudaStream_t stream);

}  // namespace nosa::bench
