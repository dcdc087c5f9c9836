#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/status.h"
#include "cuda/decode_step.h"
#include "cuda/device_model.h"
#include "cuda/head.h"
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

/// One block of a sequence as host memory has it; see PagePool::write().
struct BlockSource {
  int n_tokens = 0;  // 1 .. 64
  const std::byte* const* extents = nullptr;
  const uint16_t* compressed = nullptr;
  const float* token_scores = nullptr;
  const float* window_scores = nullptr;
};

/// Where rows of a block go in host memory.
struct RowsRead {
  std::byte* const* extents = nullptr;  // [n_layers * n_kv_heads]
  float* scores = nullptr;              // [n_layers * n_kv_heads, n rows] eviction scores
  /// The windows that the rows complete, if `has_windows` says afterwards that they are told: those of tokens computed step
  /// by step are not. [n_layers * n_kv_heads, n windows, head_dim] f16, and [.., n windows].
  uint16_t* compressed = nullptr;
  float* window_scores = nullptr;
  bool* has_windows = nullptr;
};

/// Given tokens to go on with.
struct AdvanceRequest {
  SequenceKey key{0};
  std::span<const uint32_t> tokens;  // 1 .. chunk_tokens, or step_tokens_max of a sequence that chooses
  int n_hidden = 1;                  // Of the last so many, what the last layer gives is wanted.
  bool detail = false;               // And of the last one, what it attended to.
};

/// A sequence's next token.
struct NextToken {
  SequenceKey key{0};
  uint32_t token = 0;
  bool detail = false;  // What it attended to is wanted.
};

/// What one query chose.
struct TokenChoice {
  SequenceKey key{0};
  int own_idx = 0;  // Of its token.
  std::vector<std::vector<int32_t>> blocks;  // [n_layers * n_kv_heads] ascending
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

  /// Makes a runner one whose sequences see up to `n_blocks`: another with the same weights takes its place, and every
  /// sequence is gone; see plan_growth(). When it cannot be made after all, the one of before is made anew.
  /// Fails as plan_growth() while nothing has changed, with kIo when `runner` is none any more.
  static Status grow(std::unique_ptr<Runner>& runner, const ModelSource& source, int n_blocks, size_t host_bytes_max);

  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  const ModelShape& shape() const { return model_->shape(); }
  const std::shared_ptr<DeviceModel>& model() const { return model_; }
  const MemoryPlan& plan() const { return plan_; }
  PagePool& pool() { return *pool_; }
  DecodeStep& step() { return *steps_[0]; }

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
  Status logits(int seq, std::vector<float>& out) { return steps_[0]->read_logits(seq, out, stream_); }

  // For a session that keeps its own copy of everything: token by token, with what they leave behind.

  /// Lets a sequence that attends nothing yet attend these. Fails as create_sequence().
  Status attend(SequenceKey key, std::span<const SequenceKey> attended);

  /// How the sequence's queries attend from here on; `flags` as Sequences::mark() has them. With Policy::kFull each sees
  /// everything. Fails with kUnsupported for a budget that the kernels or the slots do not take.
  Status select(SequenceKey key, const StepOptions& options, std::span<const uint8_t> flags);

  /// Appends a block that is computed already. Fails with kOutOfMemory when all pages are taken.
  /// REQUIRES: whole blocks are there.
  Status put_block(SequenceKey key, const BlockSource& block);

  /// Keeps the first `n_tokens` tokens. Fails with kInvalidArgument when the sequence is attended.
  Status cut(SequenceKey key, int n_tokens);

  /// Whether the next tokens choose their blocks: then a call of advance() takes at most step_tokens_max of them.
  Result<bool> chooses(SequenceKey key, int n_tokens);
  static constexpr int step_tokens_max = 64;

  /// Computes tokens behind those that are there, and waits. Fails with kUnsupported when they would attend to more blocks
  /// than the device holds at once, or when detail is asked for where there is no selection.
  Status advance(const AdvanceRequest& request);

  /// Which of these sequences advance by one token together: the first that goes through a step, and those that select
  /// as it does, no more than a step takes. Indices, ascending; none when each would attend to everything there is.
  Result<std::vector<int>> together(std::span<const SequenceKey> keys);

  /// Computes one token of each sequence in one step, and waits; what each leaves is as of advance(), but that attention
  /// is summed up in other parts. REQUIRES: together() named all of them. Fails as advance(), and then no sequence has
  /// advanced.
  Status advance_together(std::span<const NextToken> tokens);

  /// Of the last advance(): [n_hidden, n_embd], and with `detail` what the last token attended to. Of the last
  /// advance_together(): [n sequences, n_embd], and what each attended to if any of them asked.
  std::span<const float> hidden() const { return {hidden_.as<float>(), n_hidden_}; }
  const StepDetail& detail(int seq = 0) const { return details_[size_t(seq)]; }
  uint64_t n_fetched(int seq = 0) const { return n_fetched_[size_t(seq)]; }  // Extents that its queries chose and slots did not have.
  const float* logits_together(int seq) const { return logits_.as<float>() + size_t(seq) * size_t(shape().n_vocab); }  // [n_vocab]

  /// What queries chose since the last call, in the order in which they were computed, those left out that had no choice;
  /// nothing unless the plan's step keeps it.
  std::vector<TokenChoice> take_choices() { return std::exchange(choices_, {}); }

  /// Rows [first_row, first_row + n_rows) of own block `block`, which the last advance() computed.
  Status read_rows(SequenceKey key, int block, int first_row, int n_rows, const RowsRead& to);

  /// Scores of the tokens that follow rows of hidden(): hidden [n_rows, n_embd] to logits [n_rows, n_vocab].
  Status head(const float* hidden, int n_rows, float* logits);

  /// Tokens that all pages together hold, and those that are free.
  int n_free_pages() const { return pool_->n_free(); }

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
  DecodeStep& step_of(const Sequence& sequence) const { return *steps_[size_t(sequence.step)]; }
  Result<int> step_for(const StepOptions& options);
  int queries_at_once(const Sequence& sequence) const;
  Status compute_chunk(Sequence& sequence, int n);
  Status advance_by_steps(Sequence& sequence, const AdvanceRequest& request, int end);
  bool by_steps(const Sequence& sequence, int n_tokens) const;
  Status step_together(std::span<Sequence* const> sequences, std::span<const NextToken> tokens);
  Status make_staging(size_t n_hidden, size_t n_logits);
  Status stage_rows(const Sequence& sequence, int n);
  Status stage_side_cars(const Sequence& sequence, int first);
  void copy_windows(int first_token, int end_token, const RowsRead& to) const;
  Status stage_hidden(const float* rows, int n_rows, int first_row);
  std::vector<int32_t> preload(const Sequence& sequence) const;
  Status keep_choices(DecodeStep& step, std::span<const Sequence* const> sequences, std::span<const SequenceKey> keys, int n_queries);

  struct LaneState {
    SequenceKey key{0};
    bool taken = false;
    uint64_t last_use = 0;
  };

  MemoryPlan plan_;
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
  std::vector<std::unique_ptr<DecodeStep>> steps_;  // The plan's, then those that sequences asked for.
  std::unique_ptr<Prefill> prefill_;
  std::unique_ptr<Sequences> sequences_;
  std::vector<LaneState> lane_states_;
  uint64_t clock_ = 0;

  // What the last advance(), or advance_together(), left in host memory.
  struct Staged {
    SequenceKey key{0};
    int first = 0;  // Own tokens whose rows are here; others are in their pages.
    int end = 0;
  };
  std::vector<Staged> staged_;  // Their rows follow one another.
  size_t n_staged_ = 0;         // Rows of all.
  PinnedBuffer side_cars_;    // Of the blocks that the last chunk touched, and of the one before them; see SideCarStage.
  int first_side_car_ = 0;    // Which own block is the first.
  PinnedBuffer rows_;    // [step_tokens_max, n_streams, 2, head_dim] f16
  PinnedBuffer scores_;  // [step_tokens_max, n_streams]
  PinnedBuffer hidden_;  // [n, n_embd]
  PinnedBuffer logits_;  // [n, n_vocab], of the last hidden row if has_logits_
  size_t n_hidden_ = 0;  // Values.
  bool has_logits_ = false;
  std::vector<StepDetail> details_;   // By sequence,
  std::vector<uint64_t> n_fetched_;  // likewise.
  std::vector<TokenChoice> choices_;
  std::unique_ptr<Head> head_;  // Made when first needed.
};

}  // namespace nosa::cuda
