#pragma once

#include "layout.h"

namespace nosa::cuda {

/// How well blocks match each query, the first stage of NOSA's selection (arXiv 2510.13602). For
/// row r and KV head h:
///
///   p[g, m]  = softmax_m(scale q[r, g] . compressed[m])     over the windows m of all blocks that
///   r sees s[m]     = sum of p[g, m] over the query heads g of h best[b]  = { max of s over the
///   windows that start in block b, s of its window 3 }, -inf where there is none
///
/// so that max(best[b].x, best[b - 1].y) is the highest window that overlaps block b: a sequence's
/// last block never has a window 3. Own windows count when their last token is not after the query.
/// At most 512 rows. Rows that see no more than `total_blocks` blocks have nothing to choose and are skipped.
struct ScoreBlocksParams {
  StepRows rows;
  LaneBlocks blocks;
  SideCarView side_car;
  const float* q;  // row r at q + r q_stride: [n_heads, head_dim], rotated; 8-byte aligned
  size_t q_stride;
  float2* best;  // [n_rows, n_kv_heads, n_blocks_max]
  std::byte* scratch;  // score_blocks_scratch_bytes() of the largest launch that uses it, zeroed
                       // once before the first; 16-byte aligned
  float scale;
  int n_heads;
  int n_kv_heads;
  int head_dim;  // 64 or 128
  int total_blocks;
};

size_t score_blocks_scratch_bytes(int n_rows, int n_heads, int n_kv_heads, int n_blocks_max);

cudaError_t score_blocks(const ScoreBlocksParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
