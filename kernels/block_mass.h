#pragma once

#include "layout.h"

namespace nosa::cuda {

/// How much of each query's attention went to each block of its list, after attend_blocks. For row r, KV head h and entry
/// i of the list:
///
///   mass[r, h, i] = mean over the query heads g of h of  sum_j softmax_j(scale q[r, g] . k[j] + bias[j])
///
/// over the tokens j of the entry's block that the row sees, with the softmax over all tokens of the list. The list itself
/// comes along, in the order of all blocks.
struct BlockMassParams {
  StepRows rows;  // one query a sequence
  KvPool pool;
  const float* q;  // row r at q + r q_stride: [n_heads, head_dim], rotated
  size_t q_stride;
  const SelectedBlock* selected;  // [n_rows, n_kv_heads, n_selected_max]
  const int32_t* n_selected;      // [n_rows, n_kv_heads]
  const float* token_bias;        // [n_kv_heads, n_pages, 64], or null for none
  const std::byte* parts;         // of attend_blocks for the same rows
  float* mass;                    // [n_rows, n_kv_heads, n_selected_max]; entries beyond the list are left alone
  int32_t* blocks;                // likewise: which block it is
  int32_t* n_blocks;              // [n_rows, n_kv_heads]
  float scale;
  int n_heads;
  int n_kv_heads;
  int head_dim;  // 64 or 128
  int n_selected_max;
  int n_pages;
};

cudaError_t block_mass(const BlockMassParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
