// How attention is cut into work that threads share, and put together again.
//
// The blocks of a KV head, context then own, form runs whose borders depend on the block's index
// alone. Each run is summed from nothing and the runs' states are joined in order, whether one
// thread went through all of them or several did: so the result has the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/backend.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {

/// The block after the last of the run that starts at `begin`. Runs are short at first, so that a
/// short context too has enough of them to share, then longer.
constexpr int run_end(int begin, int n_blocks) {
  constexpr int n_short_blocks = 32;
  const int end = begin + (begin < n_short_blocks ? 4 : 16);
  return end < n_blocks ? end : n_blocks;
}

/// The items of one call, and the memory that they need.
struct AttentionPlan {
  int group = 0;     // heads of a KV head
  int n_blocks = 0;  // context and own
  int n_picks = 0;   // of each query
  int n_tiles = 0;   // of tokens
  int tile_tokens = 0;
  int n_block_runs = 0;  // over context and own
  int n_runs = 0;        // and over picks
  bool runs_apart = false;  // an item is one run, and its state is joined later
  int64_t n_items = 0;
  int64_t worker_bytes = 0;  // scratch of each thread
  int64_t state_bytes = 0;   // states of runs, when apart
  int64_t share_bytes = 0;   // BlockShare [n_heads, n_blocks + n_picks]
};

/// Picked blocks form runs of their own, after the others.
inline constexpr int pick_run_blocks = 16;

AttentionPlan plan_attention(const AttentionArgs& args, int n_threads);

/// The inner loops of one precision.
struct AttentionOps {
  void (*attend)(const AttendRun&);
  void (*attend_picks)(const AttendPicks&);
};

/// Attends item 0 .. n_items - 1. Writes args.out, or its run's states when runs are apart.
/// states: [n_runs, n_kv_heads, n_tokens, group] of state_floats, or unused; shares may be null.
void attend_item(const AttentionArgs& args, const AttentionPlan& plan, int64_t item,
                 const AttentionOps& ops, float* states, BlockShare* shares, std::byte* scratch);

/// Joins the runs of the queries (token, head) in [begin, end) into args.out.
void merge_runs(const AttentionArgs& args, const AttentionPlan& plan, const float* states,
                int64_t begin, int64_t end);

/// Adds the last query's shares to args.block_mass.
void add_block_mass(const AttentionArgs& args, const AttentionPlan& plan, const BlockShare* shares);

}  // namespace nosa::cpu
