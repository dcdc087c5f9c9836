#pragma once

#include "layout.h"
#include "rank_blocks.h"

namespace nosa::cuda {

/// Chooses the blocks of every row and KV head, and brings the streams' slots in line with the
/// choice.
///
/// Choice, as in native/kv/selection.h: forced blocks (the first sink_blocks, the last
/// window_blocks own ones, and pinned ones), then the query's best by `best` (see score_blocks.h),
/// then, by NOSA's policy, the first of the eviction ranking that are not in yet; everything, when
/// no more than total_blocks are open. Masked blocks never. Ties go to the higher index. An own
/// block that has left a row's window joins the ranking first.
///
/// Slots: blocks of all rows of a stream that are in a slot stay, stamped with this step; each
/// other takes an empty slot, else the one longest unused, and is listed for gather_blocks. With
/// one query a sequence it is also flagged in `selected` (kToFetch), so that attend_blocks can
/// fetch it instead.
struct SelectBlocksParams {
  StepRows rows;
  LaneBlocks blocks;
  StreamSlots slots;  // n_slots 0: resident, nothing to load
  SideCarView side_car;
  EvictionRanking ranking;
  const float2* best;    // [n_rows, n_kv_heads, n_blocks_max], of score_blocks
  const uint32_t* step;  // number of this step

  SelectedBlock* selected;  // [n_rows, n_kv_heads, n_selected_max] ascending; an index is a slot,
                            // or a page when resident
  int32_t* n_selected;      // [n_rows, n_kv_heads]

  int32_t* load_pages;                // [n_seqs, n_kv_heads, n_slots] what gather_blocks fetches
  int32_t* load_slots;                // likewise: where to
  int32_t* n_loads;                   // [n_seqs, n_kv_heads]
  unsigned long long* n_loads_total;  // [n_lanes] counted up
  int32_t* failed;                    // set to 1 when a choice exceeds n_selected_max or n_slots

  int n_kv_heads;
  int n_selected_max;  // at most kSelectedMax
  int total_blocks;    // at most n_selected_max
  int query_picks;     // of NOSA's policy: blocks by the query, beside the forced ones
  int sink_blocks;
  int window_blocks;
  bool by_eviction;  // NOSA's policy; else InfLLM v2's, where the query fills all places
};

/// At most this many slots a stream.
inline constexpr int kSlotsMax = 512;

cudaError_t select_blocks(const SelectBlocksParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
