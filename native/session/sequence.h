#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "core/thread_pool.h"
#include "kv/block_table.h"
#include "kv/disk_tier.h"
#include "model/forward_pass.h"
#include "model/model.h"
#include "model/stop_flag.h"
#include "session/draft.h"
#include "session/grammar.h"
#include "session/sampler.h"
#include "session/segment_file.h"

namespace nosa {

struct PrefillOutcome {
  int computed = 0;  ///< Tokens of the sequence whose KV is complete.
  bool done = false;
  bool interrupted = false;
  uint64_t blocks_read = 0;     ///< From disk, by this command.
  uint64_t blocks_fetched = 0;  ///< From host memory to the GPU, because queries of this command chose them.
};

struct PrefetchOutcome {
  uint64_t blocks = 0;  ///< Read from disk.
  bool interrupted = false;
};

struct DecodeRequest {
  int n_steps = 0;
  SamplingOptions sampling;
  std::vector<uint32_t> stop_ids;
  std::vector<uint32_t> banned_ids;
  int top = 0;
  bool forced = false;            ///< Takes the tokens of `teacher`, at most that many.
  std::vector<uint32_t> teacher;
  bool masses = false;
  bool selections = false;  ///< Gives the blocks that each step chose.
  /// Guesses tokens ahead and computes several at once. The steps are the same to the bit; it only
  /// takes less time. Not done with `forced`, `masses` or `selections`, nor on a GPU, where a step of
  /// one token has other bits than one of several.
  bool drafts = false;
  /// What is drawn follows it, or null; shared, as a command may outlive whoever asked for it. Not together
  /// with `forced`. Within a call the repetition penalty rests: JSON and paths repeat themselves.
  std::shared_ptr<const Grammar> grammar;
  int grammar_from = 0;  ///< Token of the sequence with which the grammar's text begins.
};

struct DecodeStep {
  uint32_t token = 0;
  float logprob = 0.0f;
  std::vector<ScoredToken> top;
  /// [n_layers * n_kv_heads] ascending block indices, attended sequences first; an empty list stands
  /// for all blocks. Of the query that drew the token.
  std::vector<std::vector<int32_t>> selections;
};

struct BlockMass {
  int sequence = 0;  ///< Index among the attended sequences.
  int block = 0;
  float mass = 0.0f;
};

struct DecodeOutcome {
  std::vector<DecodeStep> steps;
  bool stopped = false;
  bool interrupted = false;
  std::vector<BlockMass> masses;  ///< Best first, at most masses_max.
  int attended_blocks = 0;   ///< By the last step: the mean over layers and KV heads, rounded.
  int total_blocks = 0;      ///< That there were for it, of the attended sequences and its own.
  uint64_t blocks_read = 0;  ///< From disk, by this command.
  uint64_t blocks_fetched = 0;  ///< As PrefillOutcome.
  int n_drafted = 0;         ///< Tokens guessed ahead, and how many of them were right.
  int n_right = 0;
  int n_shared = 0;          ///< Steps that were shared with other sequences.

  static constexpr size_t masses_max = 1024;
};

class Sequence;

/// One sequence's part in a decode command for several. Both must outlive the command.
struct DecodePart {
  Sequence* sequence = nullptr;
  const DecodeRequest* request = nullptr;
};

struct ScoreOutcome {
  std::vector<float> logprobs;
  bool interrupted = false;
};

/// What the sequences of a model share on the native thread.
class SequenceShared {
 public:
  /// `disk` is the tier below `store`, or null when there is none.
  SequenceShared(Model& model, BlockStore& store, DiskTier* disk, int n_threads)
      : model(model), store(store), disk(disk), n_threads_(n_threads) {}

  /// Buffers for one pass: a spare set, or a new one.
  Result<std::unique_ptr<PassBuffers>> take_buffers();
  void put_buffers(std::unique_ptr<PassBuffers> buffers);

  /// Threads that go through the vocabulary for several sequences while a GPU computes; made when first asked for, and null
  /// where the system refuses them. Sets `samplers`.
  ThreadPool* draw_pool();

  /// Bytes of the buffers of passes, one of them parked, and of logits.
  static size_t work_bytes(const ModelConfig& config);

  Model& model;
  BlockStore& store;
  DiskTier* disk;
  Sampler sampler;
  /// Who draws for several sequences at once, see draw_pool(): a sampler each.
  std::vector<Sampler> samplers;
  std::vector<float> logits;  ///< [rows, n_vocab], grown when first needed.

 private:
  static constexpr size_t spare_max = 2;
  static constexpr int draw_threads_max = 16;
  std::vector<std::unique_ptr<PassBuffers>> spare_;
  int n_threads_;
  std::unique_ptr<ThreadPool> draw_pool_;
};

/// Tokens from a base position on, and their KV. Its tokens see all tokens of the *attended*
/// sequences, and their own predecessors. A header attends nothing and starts at 0; a segment
/// attends the header; a tail attends the header and segments; with no attended sequence this is
/// the plain causal *sequence layout*.
///
/// Tokens are computed, or wait. A pass that was interrupted is parked here, half done. While
/// another sequence attends this one it is sealed: its tokens do not change.
///
/// Not thread-safe: used by the native worker thread only.
class Sequence {
 public:
  static constexpr int position_end = 1 << 30;
  static constexpr int score_rows_max = 16;

  /// `shared` and `attended` must outlive the sequence.
  Sequence(SequenceShared& shared, int base_position, std::vector<const Sequence*> attended);
  ~Sequence();

  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  int base_position() const { return base_position_; }
  const std::vector<const Sequence*>& attended() const { return attended_; }
  int n_tokens() const { return int(tokens_.size()); }
  /// [n_tokens()]; those that wait to be computed are among them.
  std::span<const uint32_t> tokens() const { return tokens_; }
  int n_computed() const { return n_computed_; }
  /// Changes with select(), and is not copied by fork().
  BlockSelector& selector() { return *selector_; }
  const BlockTable& blocks() const { return blocks_; }
  size_t side_car_bytes() const { return side_car_.bytes(); }

  /// How the sequence's queries attend from here on. What is computed stays as it is; a chunk that is
  /// half done begins anew. Fails as BlockSelector::validate().
  Status select(const SelectionOptions& options);

  /// One more, or one less, sequence attends this one. Its compressed keys are packed for the first one,
  /// unless there is a GPU: that scores by the exact ones, and the cores go on as it does. REQUIRES: no
  /// token waits.
  void seal() {
    ++n_attending_;
    if (device_ == nullptr) side_car_.pack();
  }
  void unseal() { --n_attending_; }

  /// Says which tokens the sequence should hold; gives how many keep their KV.
  /// Fails with kInvalidArgument for an id outside the vocabulary, or when sealed.
  Result<int> set_tokens(std::span<const uint32_t> tokens);

  /// Reads ahead from disk what the next query will attend to whatever it asks, as far as memory goes.
  /// Changes no result. Fails with kIo or kCorrupt.
  Result<PrefetchOutcome> prefetch(const StopFlag& stop);

  /// Computes at most `tokens_max` waiting tokens, or until `stop` is raised. A parked chunk is
  /// finished whole. Fails with kOutOfMemory, and then can be tried again.
  Result<PrefillOutcome> prefill(int tokens_max, const StopFlag& stop);

  /// Computes what waits, then draws and appends tokens. The last one appended waits.
  /// Fails with kInvalidArgument when there is no token to go on from, when the tokens since `grammar_from`
  /// do not follow the grammar, or when sealed.
  Result<DecodeOutcome> decode(const DecodeRequest& request, const StopFlag& stop);

  /// Decodes several sequences of one model, a step of each after the other, by their own requests: each result is that of
  /// decode(). On a GPU those that wait for one token alone share a step; what they draw is the same within the rounding
  /// of float32, see DeviceNetwork::compute_together(). Without one it takes as long as one command after the other.
  /// When `stop` is raised, all that are not over are interrupted. REQUIRES: each sequence once.
  static std::vector<Result<DecodeOutcome>> decode_together(std::span<const DecodePart> parts, const StopFlag& stop);

  /// Log-probabilities of the tokens `from`, `from` + 1, ... each given all before it. When
  /// interrupted, those of the first few; the same call again goes on.
  /// Fails with kInvalidArgument unless 1 <= from <= n_tokens().
  Result<ScoreOutcome> score(int from, const StopFlag& stop);

  /// A copy that shares all blocks, which are copied when one of the two writes.
  std::unique_ptr<Sequence> fork() const;

  /// Writes the computed tokens and their KV; gives the file's size. See segment_file.h. Finishes
  /// what checkpoint() has written for the same path and key.
  Result<int64_t> save(const std::string& path, const std::string& key);

  /// Saves the whole blocks that are computed beside `path`, so that resume() goes on from there
  /// whenever the process dies; gives their tokens. Writes only what the last call has not.
  Result<int> checkpoint(const std::string& path, const std::string& key);

  /// Takes over what checkpoint() left; gives the number of tokens. Fails as load(), with kNotFound
  /// when there is nothing.
  Result<int> resume(const std::string& path, const std::string& key);

  /// Takes over what `path` holds; gives the number of tokens. On failure the sequence is empty.
  /// Fails with kInvalidArgument unless it was empty and not sealed.
  Result<int> load(const std::string& path, const std::string& key);

 private:
  struct ScoreProgress {
    int from = 0;
    std::vector<float> logprobs;
  };
  struct MassSum {
    std::vector<double> by_block;
    int n_passes = 0;
  };

  /// A decode command under way.
  struct Decoding {
    const DecodeRequest* request = nullptr;
    size_t n_steps = 0;
    bool drafts = false;
    DecodeOutcome outcome;
    MassSum masses;
    uint64_t n_fetched_before = 0;

    bool goes_on() const { return outcome.steps.size() < n_steps && !outcome.stopped && !outcome.interrupted; }
  };
  class Participant;

  Status begin_decode(const DecodeRequest& request, Decoding& decoding);
  Status decode_step(Decoding& decoding, const StopFlag& stop);
  DecodeOutcome end_decode(Decoding& decoding);
  bool waits_for_one_token() const;
  void finish_pass();
  void add_masses(MassSum& masses) const;

  Status check_growable() const;
  Status check_ids(std::span<const uint32_t> ids) const;
  Status follow_grammar(const DecodeRequest& request);
  PassTarget target();
  int n_context_blocks() const { return selector_->n_context_blocks(); }

  /// What a pass is wanted to tell beside its last token's output.
  struct Wanted {
    bool masses = false;
    bool selections = false;
    bool all_hidden = false;
  };

  int pass_end(int first);
  Status start_pass(int first, int n_tokens, const Wanted& wanted);
  Status start_on_cores(const PassPlan& plan);
  Result<bool> advance(const StopFlag& stop);
  Result<bool> advance_on_device(const StopFlag& stop);
  Status leave_device();
  bool logits(const float* hidden, int n_rows, float* out, const StopFlag& stop);
  int logits_rows_per_step() const;
  void drop_pass();
  void forget_score() { score_.reset(); }

  Result<bool> catch_up(const StopFlag& stop, MassSum* masses, bool selections);
  Result<bool> next_logits(const StopFlag& stop, MassSum* masses, bool selections);
  DecodeStep draw(const DecodeRequest& request, size_t step_idx, size_t n_tokens, Sampler& sampler);
  void append(const DecodeRequest& request, DecodeOutcome& outcome, DecodeStep step);
  Result<bool> decode_drafted(const DecodeRequest& request, int n_left, const StopFlag& stop,
                              DecodeOutcome& outcome);
  Result<bool> judge(const DecodeRequest& request, int n_drafted, const StopFlag& stop,
                     DecodeOutcome& outcome);
  std::vector<uint32_t> draft(int n_left) const;
  void drop_from(int n_tokens);
  std::vector<BlockMass> best_masses(const MassSum& masses) const;
  bool harvest_scores(const StopFlag& stop);
  BlockId block_id(int block, size_t i) const;
  std::vector<BlockId> missing_base_blocks();
  Status check_empty() const;
  Result<SegmentWriter*> partial_writer(const std::string& path, const std::string& key);
  bool begins_with(std::span<const uint32_t> tokens) const;
  Status append_blocks(SegmentWriter& writer, int n_blocks);
  Status adopt_saved(const std::string& path, const SegmentWriter& writer, int first_block, int n_blocks);
  Status take_over(const std::string& path, SegmentIndex index);
  Status adopt_blocks(const std::string& path, const SegmentIndex& index);
  Status read_blocks(const std::string& path, const SegmentIndex& index);
  void clear();

  SequenceShared& shared_;
  int base_position_;
  std::vector<const Sequence*> attended_;
  std::vector<AttendedKv> attended_kv_;
  uint64_t n_fetched_ = 0;  // To the GPU, ever.
  std::unique_ptr<BlockSelector> selector_;
  int n_attending_ = 0;

  std::vector<uint32_t> tokens_;
  int n_computed_ = 0;
  BlockTable blocks_;
  SideCar side_car_;
  std::unique_ptr<DeviceKv> device_;  // Its copy on the GPU; null where there is none.
  std::optional<ForwardPass> pass_;  // Parked, or done and not yet looked at by score().
  DraftLength draft_length_;
  std::optional<GrammarState> grammar_state_;  // Of the decode command that runs: behind the last token drawn.

  // Of the last token that went through the layers.
  struct Last {
    int token_idx = -1;
    std::vector<float> hidden;  // [n_embd]
    std::vector<std::vector<int32_t>> selections;  // [n_layers * n_kv_heads]
    bool tells = false;         // Whether it has selections: a pass on the GPU tells only what is wanted.
    size_t n_attended = 0;      // Blocks, summed over layers and KV heads.
  };
  Last last_;
  std::optional<ScoreProgress> score_;

  struct Partial {
    std::string path;
    SegmentWriter writer;
  };
  std::optional<Partial> partial_;  // The file that checkpoint() writes.
};

}  // namespace nosa
