#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "core/status.h"
#include "formats/weights.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/eviction_scores.h"
#include "model/forward_pass.h"
#include "model/rope.h"
#include "model/step_sizer.h"
#include "model/stop_flag.h"

namespace nosa {

/// The network of the Llama family (Qwen2 is the same with biases on q, k and v): pre-norm layers
/// of grouped-query attention and SwiGLU.
///
/// Not thread-safe: used by the native worker thread only.
class Llama {
 public:
  /// `weights`, `adapter` (or null) and `backend` must outlive the network. Fails with kNotFound or
  /// kCorrupt, naming the tensor, when one is missing or has another shape than `config` says.
  static Result<std::unique_ptr<Llama>> create(const Weights& weights, const Adapter* adapter,
                                               const ModelConfig& config, const KvShape& kv_shape,
                                               Backend& backend);

  /// Runs steps of `pass` until it is done or `stop` is raised (see ForwardPass::done()); a step
  /// lasts some 10 ms. `target` must describe the same sequence in every call.
  /// Fails with kOutOfMemory when a shared block cannot be copied; the pass may then be tried again.
  Status advance(ForwardPass& pass, const PassTarget& target, const StopFlag& stop);

  /// Scores of the token that follows each of `n_tokens` hidden rows [n_tokens, n_embd]:
  /// out [n_tokens, n_vocab]. False when `stop` was raised before all were there.
  /// REQUIRES: `n_tokens` in 1 .. kChunkTokens.
  bool logits(const float* hidden, int n_tokens, float* out, const StopFlag& stop);

  /// Whether eviction heads rank the blocks, and add to the attention logits.
  bool adds_scores() const { return eviction_scores_.additive(); }

  /// Most rows that one call of logits() does in about one step.
  int logits_rows_per_step() const;

 private:
  struct Linear {
    WeightView weight;         // [n_rows, n_cols]
    std::vector<float> bias;   // [n_rows] or empty
    const LowRankUpdate* update = nullptr;
    MatmulTarget target(float* out) const {
      return {&weight, bias.empty() ? nullptr : bias.data(), out, update};
    }
    double flops() const { return 2.0 * double(weight.rows) * double(weight.cols); }
  };
  struct Layer {
    std::vector<float> attn_norm, ffn_norm;  // [n_embd]
    Linear q, k, v, out, gate, up, down;

    Linear& linear(Projection projection) {
      Linear* const all[n_projections] = {&q, &k, &v, &out, &gate, &up, &down};
      return *all[int(projection)];
    }
  };

  /// The blocks that some queries attend to, by their numbers in the selector's order, and where they lie.
  struct Gather {
    struct Head {
      std::span<const int32_t> common;  // Blocks that all queries see whole
      std::span<const int32_t> picks;   // [n_tokens, n_picks]
    };
    std::vector<int32_t> common;
    std::vector<int32_t> own;  // The sequence's own last blocks, in order
    std::vector<Head> heads;   // [n_kv_heads]
    // As AttentionArgs wants them.
    std::vector<KvBlockRef> context_refs, own_refs, picked_refs;
    std::vector<int32_t> picked_begin, picks;

    void clear();
  };

  /// A block that is wanted: `block` of a sequence, of which `n_tokens` are there.
  struct Wanted {
    const BlockTable* blocks;
    const SideCar* side_car;
    int kv_head;
    int block;
    int n_tokens;
  };

  Llama(const ModelConfig& config, const KvShape& kv_shape, Backend& backend)
      : config_(config),
        kv_shape_(kv_shape),
        backend_(backend),
        eviction_scores_(EvictionScores::training_free(kv_shape)) {}

  Status load(const Weights& weights, const Adapter* adapter);
  Result<Linear> load_linear(const Weights& weights, const std::string& stem, int n_rows,
                             int n_cols) const;

  static int whole_blocks(const ForwardPass& pass, const PassTarget& target, int n_fit, int n_left);
  double item_flops(const ForwardPass& pass, const PassTarget& target) const;
  Result<int> step(ForwardPass& pass, const PassTarget& target, int n_tokens);
  void embed(ForwardPass& pass, const PassTarget& target);
  Status qkv(ForwardPass& pass, const PassTarget& target, int n_tokens);
  Status store_kv(ForwardPass& pass, const PassTarget& target, int n_tokens);
  Status append_side_car(const PassTarget& target, int layer, int begin, int end, const float* k,
                         const float* v);
  Status attend(ForwardPass& pass, const PassTarget& target, int n_tokens);
  void attn_out(ForwardPass& pass, int n_tokens);
  void gate_up(ForwardPass& pass, int n_tokens);
  void down(ForwardPass& pass, int n_tokens);

  Status attend_all(ForwardPass& pass, const PassTarget& target, int token, int n_tokens);
  Status attend_chosen(ForwardPass& pass, const PassTarget& target, int token, int n_tokens);
  Status gather(const PassTarget& target, int layer, int n_own_tokens);
  void want(const PassTarget& target, int layer, int kv_head, std::span<const int32_t> blocks, int n_own_tokens);
  void refer(const PassTarget& target, int layer, size_t n, std::vector<KvBlockRef>& refs);
  void attend_gathered(ForwardPass& pass, const PassTarget& target, int token, int n_tokens,
                       int n_picks);
  int selector_blocks(const PassTarget& target, int n_own_tokens) const;

  ModelConfig config_;
  KvShape kv_shape_;
  Backend& backend_;
  EvictionScores eviction_scores_;
  RopeTable rope_;
  WeightView embedding_;           // [n_vocab, n_embd]
  std::vector<float> output_norm_;  // [n_embd]
  WeightView output_;              // [n_vocab, n_embd]
  std::vector<Layer> layers_;

  std::array<StepSizer, ForwardPass::n_stages> sizers_;  // By stage.
  StepSizer logits_sizer_;
  std::vector<float> logits_norm_;       // [kChunkTokens, n_embd]
  // Of the current step.
  std::vector<Wanted> gathered_;
  std::vector<BlockId> wanted_;
  size_t n_referred_ = 0;  // Of those gathered, whose places are known.
  Gather gather_;
  SelectorScratch selector_scratch_;
  std::vector<int32_t> picked_;          // Blocks that some query picked, KV head by KV head
  std::vector<float> mass_;              // [n_kv_heads, n_context_blocks + n_own_blocks + n_picks]
  std::vector<float> token_scores_;      // [n_kv_heads, n_tokens]
  std::vector<std::byte*> extents_;      // [n_kv_heads, n_blocks written]
};

}  // namespace nosa
