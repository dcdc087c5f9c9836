#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/device_model.h"
#include "cuda/lane_memory.h"
#include "cuda/page_pool.h"
#include "cuda/step_options.h"
#include "kernels/layout.h"
#include "kernels/operand.h"
#include "kernels/rank_blocks.h"
#include "kernels/score_blocks.h"

namespace nosa::cuda {

/// What one sequence's query attended to, for every layer and KV head.
struct StepDetail {
  int n_selected_max = 0;
  std::vector<int32_t> n_blocks;  // [n_layers, n_kv_heads]
  std::vector<int32_t> blocks;    // [n_layers, n_kv_heads, n_selected_max] ascending, attended ones first
  std::vector<float> mass;        // likewise: a block's share of the attention, see kernels/block_mass.h
};

/// What every query of a step chose, where the step's options keep it.
struct StepChoices {
  int n_rows = 0;  // sequences * queries of the step
  int n_kv_heads = 0;
  int n_selected_max = 0;
  std::vector<int32_t> n_blocks;        // [n_layers, n_rows, n_kv_heads]
  std::vector<SelectedBlock> selected;  // [n_layers, n_rows, n_kv_heads, n_selected_max], the first n_blocks ascending
};

/// One step through the whole network for the newest tokens of some lanes, as one CUDA graph: everything that changes from
/// step to step lies on the device, nothing is allocated, and the host is not asked in between.
///
/// Two kinds: a *decode* step takes one token of each sequence and draws the next; a *feed* step takes up to kQueriesMax
/// given tokens of one sequence and draws nothing.
///
/// Not thread-safe.
class DecodeStep {
 public:
  /// Tokens that one command may draw before the host looks.
  static constexpr int n_steps_max = 512;

  /// What is given must outlive the step. `n_seqs_max` is in 1 .. 64.
  static Result<std::unique_ptr<DecodeStep>> create(const DeviceModel& model, const PagePool& pool, LaneMemory& lanes,
                                                    const StepOptions& options, int n_seqs_max);
  ~DecodeStep();
  DecodeStep(const DecodeStep&) = delete;
  DecodeStep& operator=(const DecodeStep&) = delete;

  /// Device bytes that create() takes.
  static size_t bytes_for(const ModelShape& shape, int n_lanes, int n_blocks_max, int n_slots, const StepOptions& options,
                          int n_seqs_max);

  /// Ranks a lane's blocks for the selection: after it was bound.
  Status rank(int lane, int n_attended, int n_own_tokens, cudaStream_t stream);

  /// Prepares a command: lane s computes ids[s] next; teacher [n_steps, lanes.size()] gives what follows each step, -1 to
  /// draw, or is empty. The lanes' n_tokens must count the token to compute.
  Status begin(std::span<const int32_t> lanes, std::span<const int32_t> ids, std::span<const int32_t> teacher, int n_steps,
               cudaStream_t stream);

  /// One decode step of the command begun. The lanes' n_tokens count the next token afterwards. With `detail`, which takes
  /// a selection, read_details() tells what the step attended to.
  Status decode(cudaStream_t stream, bool detail = false);

  /// Reads what the first `n_steps` steps of the command gave, [n_steps, n lanes], and waits for it.
  Status read_tokens(int n_steps, std::vector<int32_t>& tokens, cudaStream_t stream);

  /// Reads the scores of the last decode step for sequence `seq` of the command, [n_vocab], and waits for it.
  Status read_logits(int seq, std::vector<float>& logits, cudaStream_t stream);

  /// What each layer and KV head of the last step with `detail` attended to, for every sequence of it; waits for it.
  Status read_details(std::vector<StepDetail>& details, cudaStream_t stream);

  /// What the queries of the last step, `n_rows` of them, chose; waits for it. REQUIRES: a selection whose options keep it.
  Status read_choices(int n_rows, StepChoices& choices, cudaStream_t stream);

  /// What the last step left on the device: the residual stream behind the last layer, [rows, n_embd], and of a decode step
  /// the scores of the next token, [sequences, n_vocab].
  const float* device_hidden() const;
  const float* device_logits() const;

  const StepOptions& options() const { return options_; }

  /// Computes up to kQueriesMax given tokens of one lane, whose n_tokens counts them already.
  Status feed(int lane, std::span<const int32_t> ids, cudaStream_t stream);

  /// Counts the blocks fetched for a lane, or for each, from here on; read_count() or read_loads() gives them, and waits for it.
  Status start_counting(int lane, cudaStream_t stream);
  Status start_counting_all(cudaStream_t stream);
  Status read_count(int lane, uint64_t& n_loads, cudaStream_t stream);

  /// Blocks fetched from host memory for each lane since counting began, or the step was created, and waits for it.
  Status read_loads(std::vector<unsigned long long>& loads, cudaStream_t stream);

  /// Fails with kIo when a selection did not fit its slots; the answer is void then.
  Status check(cudaStream_t stream);

  /// For benchmarks, set before the first step: scores to choose by in place of the computed ones.
  struct ForcedScores {
    float2* best = nullptr;  // [n_layers, n_rows, n_kv_heads, n_blocks_max] for decode steps, or null
    size_t layer_stride = 0;
    /// Called while a step is captured, at its beginning: enqueues what prepares `best`.
    std::function<cudaError_t(const uint32_t* step, int n_rows, cudaStream_t stream)> prepare;
  };
  ForcedScores forced_scores;

 private:
  struct Buffers;
  struct Kind {
    int n_seqs;
    int n_queries;
    bool detail = false;
    auto operator<=>(const Kind&) const = default;
  };

  DecodeStep(const DeviceModel& model, const PagePool& pool, LaneMemory& lanes, const StepOptions& options, int n_seqs_max);
  Status take_memory();
  Result<cudaGraphExec_t> graph(const Kind& kind, cudaStream_t stream);
  Status enqueue(const Kind& kind, cudaStream_t stream);
  Status enqueue_layer(int layer, const Kind& kind, cudaStream_t stream);
  Status enqueue_attention(int layer, const Kind& kind, cudaStream_t stream);
  Status enqueue_selection(int layer, const Kind& kind, cudaStream_t stream);
  Status enqueue_draw(const Kind& kind, cudaStream_t stream);
  Status set_rows(std::span<const int32_t> lanes, std::span<const int32_t> ids, cudaStream_t stream);
  bool attend_fetches(const Kind& kind) const;
  StepRows rows(const Kind& kind) const;
  SelectedBlock* selected(int layer) const;
  int32_t* n_selected(int layer) const;
  EvictionRanking ranking(int layer) const;
  Operand operand(std::byte* data, DType weight, int n_rows, int cols) const;
  bool resident() const { return pool_.resident(); }

  const DeviceModel& model_;
  const PagePool& pool_;
  LaneMemory& lanes_;
  StepOptions options_;
  int n_seqs_max_;
  int n_rows_max_;
  int n_seqs_ = 0;  // Of the command begun.
  std::unique_ptr<Buffers> buffers_;
  std::map<Kind, cudaGraphExec_t> graphs_;
};

}  // namespace nosa::cuda
