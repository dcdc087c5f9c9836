#pragma once

#include "layout.h"

namespace nosa::cuda {

/// Attention of every row over its list of blocks. For row r and query head g of KV head h:
///
///   out[r, g] = sum_j softmax_j(scale q[r, g] . k[j] + bias[j]) v[j]
///
/// over the tokens j of the listed blocks that exist and are not after the row's own token. Without a list it is over
/// all blocks that the row sees and that are not masked, whose indices are their pages.
struct AttendBlocksParams {
  StepRows rows;
  LaneBlocks blocks;
  KvPool pool;
  const float* q;  // row r at q + r q_stride: [n_heads, head_dim], rotated; 8-byte aligned
  size_t q_stride;
  const int32_t* chosen;    // [n_rows, n_kv_heads, n_selected_max] blocks, or null for all
  const int32_t* indices;   // likewise: where they are in the pool; -1 is skipped
  const int32_t* n_chosen;  // [n_rows, n_kv_heads]
  const float* token_bias;  // [n_kv_heads, n_pages, 64] (SideCarView.token_scores), or null for none
  float* out;         // row r at out + r out_stride: [n_heads, head_dim]; 16-byte aligned
  size_t out_stride;
  std::byte* scratch;  // attend_blocks_scratch_bytes(), zeroed once before the first use; 16-byte aligned
  float scale;
  int n_heads;
  int n_kv_heads;
  int head_dim;  // 64 or 128
  int n_selected_max;
  int n_pages;
};

size_t attend_blocks_scratch_bytes(int n_rows, int n_heads, int n_kv_heads, int head_dim);

cudaError_t attend_blocks(const AttendBlocksParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
