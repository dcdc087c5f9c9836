// How the CUDA side lays out sequences, blocks and side-cars: shared by all kernels that touch the
// cache.
//
//   lane   a sequence's place on the device, 0 .. n_lanes - 1
//   row    one query of a step: row = seq * n_queries + t, for the t-th new token of the step's
//   seq-th lane page   the device-side number of one 64-token block of some sequence, for all
//   layers and KV heads;
//          lanes that attend the same sequence share its pages
//   slot   a place for one extent within a stream, that is one (layer, lane, KV head)
//   block  a lane's own numbering: blocks of the attended sequences one after the other, then its
//   own
//
// An extent is K [64, head_dim], then V [64, head_dim], f16, K post-RoPE, as in native/kv/block.h.
// All lengths live in device memory, so that one captured graph serves every step.
//
// Places, block tables, the side-cars of attended blocks and of all own ones but the last two, slot
// maps and rankings are read before
// begin_kernel() (see common/launch.cuh): nothing that writes them may be the kernel directly
// before one that reads them. In a step they are written by rope_angles, which is its first kernel,
// and by append_kv and select_blocks, one after the other.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "core/block_tokens.h"

namespace nosa::cuda {

inline constexpr int kWindowTokens = 32;
inline constexpr int kWindowStride = 16;
inline constexpr int kBlockWindows = kBlockTokens / kWindowStride;

/// Query heads of one KV head that the kernels take at most.
inline constexpr int kGroupMax = 64;
/// New tokens of one sequence in one step.
inline constexpr int kQueriesMax = 8;
/// Blocks that a selection holds at most.
inline constexpr int kSelectedMax = 256;

/// One row of a step, looked up once for all layers: every load that a kernel's first load waits
/// for costs half a microsecond, in every kernel of every layer.
struct alignas(16) RowPlace {
  int32_t lane;        // -1: the row is idle
  int32_t own;         // index of its token within the lane's own
  int32_t n_attended;  // attended blocks of the lane
  int32_t n_blocks;    // that the row sees, its own token's included
};

/// Which queries a step has. Rows beyond a lane's new tokens, and lanes of -1, are idle: kernels
/// leave their outputs alone. A sequence's rows that are not idle come first.
struct StepRows {
  const int32_t* lanes;     // [n_seqs], -1 for none
  const int32_t* n_tokens;  // [n_lanes] own tokens, this step's included
  const int32_t* n_new;     // [n_seqs] new tokens, 0 .. n_queries; or null when all have n_queries
  RowPlace* places;         // [n_rows], set by rope_angles, the first kernel of a step
  int n_seqs;
  int n_queries;  // 1 .. kQueriesMax
};

/// What a lane sees of one block. The counts of own blocks follow from n_tokens; their flags are 0.
struct BlockInfo {
  uint8_t n_tokens;   // of an attended block, 1 .. 64
  uint8_t n_windows;  // complete windows that start in it, 0 .. 4; 0 keeps a block out of the
                      // softmax of scores
  uint8_t masked;     // never chosen
  uint8_t pinned;     // always chosen, unless masked
};

/// The blocks of every lane, the same for all layers.
struct LaneBlocks {
  const int32_t* pages;       // [n_lanes, n_blocks_max]
  const BlockInfo* info;      // [n_lanes, n_blocks_max]
  const int32_t* n_attended;  // [n_lanes] attended blocks: block n_attended is own block 0
  int n_blocks_max;
};

/// A block that a row attends to.
struct alignas(16) SelectedBlock {
  int32_t block;
  int32_t index;     // of its extent in the pool; -1: nowhere, left out
  int32_t page;      // of its side-car
  int32_t n_tokens;  // that the row sees; plus kToFetch when the slot is still to be filled from
                     // the page
};

/// Added to SelectedBlock::n_tokens.
inline constexpr int32_t kToFetch = 1 << 16;

/// Extents of one layer: byte address = base + lane lane_stride + head head_stride + index
/// index_stride. Offloaded, an index is a slot of its stream; resident, it is a page and
/// lane_stride is 0.
struct KvPool {
  std::byte* base;  // 16-byte aligned, strides too
  size_t lane_stride;
  size_t head_stride;
  size_t index_stride;  // at least the extent
};

/// Which blocks of each stream of one layer are in its slots, and when they were last chosen.
struct StreamSlots {
  int16_t* slot_of_block;  // [n_lanes, n_kv_heads, n_blocks_max], -1 for none
  int32_t* block_of_slot;  // [n_lanes, n_kv_heads, n_slots], -1 for none
  uint32_t* last_step;     // [n_lanes, n_kv_heads, n_slots]
  int n_slots;             // of a stream; 0 when the cache is resident and indices are pages
};

/// What is kept of every token, of one layer.
struct SideCarView {
  __half* compressed;    // [n_kv_heads, n_pages, 4, head_dim] mean key of each window
  float* token_scores;   // [n_kv_heads, n_pages, 64] eviction score; the logit bias where it is
                         // additive
  float* window_scores;  // [n_kv_heads, n_pages, 4] mean eviction score of each window
  int n_pages;
};

}  // namespace nosa::cuda
