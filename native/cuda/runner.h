#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/status.h"
#include "cuda/decode_step.h"
#include "cuda/device_model.h"
#include "cuda/lane_memory.h"
#include "cuda/memory_plan.h"
#include "cuda/page_arena.h"
#include "cuda/page_pool.h"
#include "cuda/prefill.h"
#include "cuda/sequences.h"

namespace nosa::cuda {

/// A command for the sequences of one step, each with a token that waits.
struct DecodeCommand {
  std::span<const SequenceKey> sequences;  // 1 .. the plan's n_seqs_max, each once
  int n_steps = 0;                         // 1 .. DecodeStep::n_steps_max
  /// [n_steps, sequences.size()] tokens to take instead of drawing, -1 to draw; or empty.
  std::span<const int32_t> teacher;
};

/// What several runners of one model may share: for benchmarks, which open many.
struct RunnerShared {
  std::shared_ptr<DeviceModel> model;
  std::shared_ptr<PinnedBuffer> host;  // Of keys and values; used by one runner at a time.
};

/// A network on one GPU, and the sequences computed with it.
///
/// A sequence decodes in a *lane*: there its unfinished block and the slots of those it attends to lie. All other blocks
/// are pages of the pool, in pinned host memory. A lane is taken when a sequence decodes and given to another when all
/// are taken; what was not in host memory yet is written there first.
///
/// Not thread-safe.
class Runner {
 public:
  /// Fails with kOutOfMemory when the plan does not fit, and then says what would; as DeviceModel::create() does.
  static Result<std::unique_ptr<Runner>> create(const ModelSource& source, const RunnerOptions& options,
                                                const RunnerShared& shared = {});
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  const ModelShape& shape() const { return model_->shape(); }
  const std::shared_ptr<DeviceModel>& model() const { return model_; }
  const MemoryPlan& plan() const { return plan_; }
  PagePool& pool() { return *pool_; }
  DecodeStep& step() { return *step_; }

  /// See Sequences; these unbind what they change.
  Result<SequenceKey> create_sequence(int base_position, std::span<const SequenceKey> attended);
  Result<SequenceKey> fork(SequenceKey key);
  Status close(SequenceKey key);

  /// Says which tokens the sequence should hold; gives how many keep their keys and values.
  /// Fails with kInvalidArgument when it is attended.
  Result<int> set_tokens(SequenceKey key, std::span<const uint32_t> tokens);

  /// Computes all waiting tokens but the last `n_left`, in chunks.
  Status prefill(SequenceKey key, int n_left = 0);

  /// Computes the last token of every sequence (all but it are prefilled first) and draws, n_steps times; the tokens
  /// drawn are appended, and the last one waits. `drawn` is [n_steps, n_sequences]. Greedy.
  Status decode(const DecodeCommand& command, std::vector<int32_t>& drawn);

  /// Scores of the last decode step for one of its sequences, [n_vocab].
  Status logits(int seq, std::vector<float>& out) { return step_->read_logits(seq, out, stream_); }

  /// Puts a sequence in the state of having computed `n_tokens` tokens, with whatever bytes its pages hold: for benchmarks,
  /// which fill them. REQUIRES: empty.
  Status pretend_computed(SequenceKey key, std::span<const uint32_t> tokens);

  /// Brings a sequence to the device as its next decode would: for timing a resume apart.
  Status bind(SequenceKey key);

  /// Takes a sequence off the device.
  Status unbind(SequenceKey key);

  /// Waits for everything.
  Status synchronise();

  cudaStream_t stream() const { return stream_; }

 private:
  Runner() = default;

  Status bind_lane(Sequence& sequence, SequenceKey key, std::span<const SequenceKey> keep);
  Status unbind_lane(Sequence& sequence);
  Result<int> free_lane(std::span<const SequenceKey> keep);
  Status start_writing_back(const Sequence& sequence, int own_block);
  Status wait_for_writing();
  Status feed(SequenceKey key, int end);
  Status own_tail(Sequence& sequence);
  Status make_room(Sequence& sequence, int n_tokens);
  bool chooses(const Sequence& sequence, int n_tokens) const;
  std::vector<int32_t> preload(const Sequence& sequence) const;

  struct LaneState {
    SequenceKey key{0};
    bool taken = false;
    uint64_t last_use = 0;
  };

  MemoryPlan plan_;
  StepOptions options_;
  cudaStream_t stream_ = nullptr;
  cudaStream_t write_stream_ = nullptr;  // Finished blocks go to host memory beside the next steps.
  cudaEvent_t step_done_ = nullptr;
  cudaEvent_t write_done_ = nullptr;
  bool writing_ = false;
  uint64_t n_steps_ = 0;          // Enqueued ever.
  uint64_t written_at_step_ = 0;  // After which what is being written was finished.
  // In the order of their lives.
  std::shared_ptr<DeviceModel> model_;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<PageArena> arena_;
  std::unique_ptr<LaneMemory> lanes_;
  std::unique_ptr<DecodeStep> step_;
  std::unique_ptr<Prefill> prefill_;
  std::unique_ptr<Sequences> sequences_;
  std::vector<LaneState> lane_states_;
  uint64_t clock_ = 0;
};

}  // namespace nosa::cuda
