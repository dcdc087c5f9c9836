#pragma once

#include "layout.h"
#include "operand.h"

namespace nosa::cuda {

/// Attention of a chunk of consecutive tokens of one sequence, on the matrix units. For token t and query head g of
/// KV head h:
///
///   out[t, g] = sum_j softmax_j(scale q[t, g] . k[j] + bias[j]) v[j]
///
/// over the tokens j of the attended blocks that are not masked, and of the own blocks up to token own_start + t; or,
/// given `chosen`, over those of them that lie in the token's list for h. Queries and probabilities are rounded to f16,
/// sums are float32. Blocks are numbered attended first, then own.
struct PrefillAttentionParams {
  const float* q;           // [n_tokens, n_heads, head_dim], rotated; 16-byte aligned
  Operand out;              // n_tokens rows of n_heads * head_dim; kF16 or kBF16
  KvPool pool;              // of the layer; lane_stride is not used
  const int32_t* indices;   // [n_attended + own blocks to the chunk's end] where each block lies in the pool
  const BlockInfo* info;    // [n_attended], or null when all are whole and none is masked
  const float* token_bias;  // [n_kv_heads, n_pages, 64] (SideCarView.token_scores), or null for none
  const int32_t* pages;     // as indices: each block's page, for token_bias; else null
  const int32_t* chosen;    // [n_tokens, n_kv_heads, n_selected_max] blocks, ascending; null for all
  const int32_t* n_chosen;  // [n_tokens, n_kv_heads]
  std::byte* scratch;       // prefill_attention_scratch_bytes(), 16-byte aligned
  size_t scratch_bytes;     // what there is; with less than asked for, the chunk is done in parts
  float scale;
  int n_tokens;
  int own_start;
  int n_attended;
  int n_heads;
  int n_kv_heads;  // n_heads / n_kv_heads is at most kGroupMax
  int head_dim;    // 64 or 128
  int n_pages;
  int n_selected_max;
};

/// Scratch with which a chunk is done in one go: 0 where it needs none, and never more than 128 MiB.
size_t prefill_attention_scratch_bytes(int n_tokens, int n_blocks, int n_heads, int head_dim);

cudaError_t prefill_attention(const PrefillAttentionParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
