#pragma once

#include "layout.h"

namespace nosa::cuda {

/// The ranking that no query changes, of every stream of one layer: blocks by eviction score, best
/// first, equal ones by higher index. Holds attended blocks that are not masked and own blocks that
/// have left the window.
struct EvictionRanking {
  int32_t* blocks;     // [n_lanes, n_kv_heads, capacity]
  float* scores;       // likewise
  int32_t* n_entries;  // [n_lanes, n_kv_heads]
  int32_t* n_own;      // [n_lanes, n_kv_heads] own blocks that have been ranked
  int capacity;        // total_blocks of the selection, at most kSelectedMax
};

/// Ranks one lane's blocks anew: when it is bound, truncated, or its mask changes. From then on
/// select_blocks keeps the ranking. A block's score is the highest of the windows that overlap it,
/// -inf when none does:
///   window_scores[page, m] of windows 4b - 1 .. 4b + 3.
struct RankBlocksParams {
  LaneBlocks blocks;
  SideCarView side_car;
  EvictionRanking ranking;
  int lane;
  int n_attended;
  int n_own_tokens;
  int window_blocks;  // own blocks that a query at the next token forces, itself included
  int n_kv_heads;
};

cudaError_t rank_blocks(const RankBlocksParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
