#pragma once

#include "layout.h"
#include "operand.h"

namespace nosa::cuda {

/// Attention of every row over its list of blocks. For row r and query head g of KV head h:
///
///   out[r, g] = sum_j softmax_j(scale q[r, g] . k[j] + bias[j]) v[j]
///
/// over the tokens j of the listed blocks that the row sees. Without a list it is over all blocks
/// that the row sees and that are not masked, whose indices are their pages. The list is cut into
/// parts, each attended to on its own; merge_parts joins them.
struct AttendBlocksParams {
  StepRows rows;
  LaneBlocks blocks;
  KvPool pool;
  const float* q;  // row r at q + r q_stride: [n_heads, head_dim], rotated; 8-byte aligned
  size_t q_stride;
  /// Mapped host memory with every page, as for gather_blocks, or no base: then blocks that are to
  /// be fetched have been. With it, they are read from there and their slots are filled on the way.
  /// For steps of one query a sequence: rows of one sequence would each fetch what they share.
  KvPool pages;
  const SelectedBlock* selected;  // [n_rows, n_kv_heads, n_selected_max], or null for all
  const int32_t* n_selected;      // [n_rows, n_kv_heads]
  const float*
      token_bias;    // [n_kv_heads, n_pages, 64] (SideCarView.token_scores), or null for none
  std::byte* parts;  // attention_parts_bytes(); 16-byte aligned
  float scale;
  int n_heads;
  int n_kv_heads;
  int head_dim;  // 64 or 128
  int n_selected_max;
  int n_pages;
};

/// Room for the parts of n_rows rows, written by attend_blocks and read by merge_parts.
size_t attention_parts_bytes(int n_rows, int n_heads, int head_dim);

cudaError_t attend_blocks(const AttendBlocksParams& p, cudaStream_t stream);

/// Joins the parts of every row:
///   out[r, g] = sum_i part[i, g] e^peak[i, g] / sum_i total[i, g] e^peak[i, g]
/// as the next product takes it, and as floats. Idle rows become zeros.
struct MergePartsParams {
  StepRows rows;
  const std::byte* parts;
  Operand out;     // [n_rows, n_heads * head_dim], or no data
  float* out_f32;  // row r at out_f32 + r out_stride, or null; 16-byte aligned
  size_t out_stride;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

/// The shape must be the one that attend_blocks was given.
cudaError_t merge_parts(const MergePartsParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
