#pragma once

#include <cstddef>
#include <string>

#include "core/status.h"
#include "cuda/model_source.h"
#include "cuda/step_options.h"

namespace nosa::cuda {

/// Blocks of a sequence that the kernels take at most: a million tokens (kBlocksMax of kernels/common/top_blocks.cuh).
inline constexpr int n_blocks_most = 16384;

/// What a runner is asked to hold. Zero lets the plan choose from the free memory.
struct RunnerOptions {
  StepOptions step;
  bool resident = false;      ///< Keys and values on the device for good, none in host memory.
  /// Prompts attend to every block, whatever the policy of what is drawn ("NOSA^F"); else each token selects.
  bool dense_prefill = false;
  int n_lanes = 4;            ///< Sequences that can be on the device at once; zero for a share of the memory, 4 .. 64.
  int n_seqs_max = 4;         ///< Sequences of one step, no more than lanes and 64; zero for as many as lanes.
  int n_slots = 128;          ///< Extents of one stream on the device, at least the blocks of a selection.
  int n_blocks_max = 0;       ///< Blocks that one sequence sees at most.
  int n_pages = 0;            ///< Blocks of all sequences.
  int n_arena_pages = 0;      ///< Blocks that a prefill sees at once, when its tokens attend to everything.
  int chunk_tokens = 2048;    ///< Tokens of one prefill step.
  size_t device_bytes_max = 0;  ///< Device memory to plan with, weights included; 0 is what is free.
  size_t host_bytes_max = size_t(4) << 30;  ///< Pinned host memory for keys and values.
};

/// Where the device memory goes. All of it is taken when a runner is created.
struct MemoryPlan {
  RunnerOptions options;  ///< With every zero chosen.
  size_t weights_bytes = 0;
  size_t side_car_bytes = 0;
  size_t resident_bytes = 0;  ///< Keys and values, when resident.
  size_t lanes_bytes = 0;
  size_t arena_bytes = 0;
  size_t step_bytes = 0;
  size_t prefill_bytes = 0;
  size_t host_bytes = 0;      ///< Pinned.

  size_t device_bytes() const {
    return weights_bytes + side_car_bytes + resident_bytes + lanes_bytes + arena_bytes + step_bytes + prefill_bytes;
  }

  /// A line for each part, for people.
  std::string describe() const;
};

/// Plans within `free_bytes` of device memory. Fails with kOutOfMemory when it does not fit, saying how much would be
/// needed and what to ask less of.
Result<MemoryPlan> plan_memory(const ModelSource& source, const RunnerOptions& options, size_t free_bytes);

/// What a runner of plan `now` becomes for a sequence that sees `n_blocks`, more than it takes now: as many lanes, longer
/// tables, and pages for all those blocks, within `host_bytes_max` of page-locked memory. `free_bytes` of device memory are
/// free once the runner has gone, weights included. A plan for everybody's longest would cost every user what few need:
/// page-locked memory, the time to take it, and kernels whose shared memory has no room for their look-ups any more.
/// Fails with kUnsupported beyond what the kernels take, with kOutOfMemory when it does not fit.
Result<MemoryPlan> plan_growth(const ModelSource& source, const MemoryPlan& now, int n_blocks, size_t host_bytes_max,
                               size_t free_bytes);

}  // namespace nosa::cuda
