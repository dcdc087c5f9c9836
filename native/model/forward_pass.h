#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/status.h"
#include "kv/block_table.h"
#include "kv/side_car.h"
#include "model/block_selector.h"
#include "model/config.h"

namespace nosa {

/// Tokens of one pass, and of the grid on which a sequence is prefilled.
inline constexpr int kChunkTokens = 128;

/// The activations of one pass, planned once: [kChunkTokens, ...] each, float32.
class PassBuffers {
 public:
  static Result<std::unique_ptr<PassBuffers>> create(const ModelConfig& config);

  /// What they take.
  static size_t bytes(const ModelConfig& config);

  float* x = nullptr;     // [kChunkTokens, n_embd], the residual stream
  float* norm = nullptr;  // [kChunkTokens, n_embd]
  float* q = nullptr;     // [kChunkTokens, n_heads, head_dim]
  float* k = nullptr;     // [kChunkTokens, n_kv_heads, head_dim]
  float* v = nullptr;     // [kChunkTokens, n_kv_heads, head_dim]
  float* attn = nullptr;  // [kChunkTokens, n_heads, head_dim]
  float* gate = nullptr;  // [kChunkTokens, n_ff]
  float* up = nullptr;    // [kChunkTokens, n_ff]

 private:
  AlignedBuffer memory_;
};

/// The sequence that a pass computes.
struct PassTarget {
  std::span<const uint32_t> tokens;  ///< Its own tokens.
  int base_position = 0;             ///< Of its first token.
  BlockTable* blocks = nullptr;      ///< Its own blocks, enough for the tokens of the pass.
  SideCar* side_car = nullptr;       ///< Of its own tokens.
  std::span<const AttendedKv> attended;
  BlockSelector* selector = nullptr;  ///< Over `attended`.
  DeviceKv* device = nullptr;         ///< As in AttendedKv.
};

struct PassPlan {
  int first = 0;       ///< Index of the first token within the sequence.
  int n_tokens = 0;    ///< 1 .. kChunkTokens; on the GPU 1 .. DeviceNetwork::pass_tokens()
  int store_from = 0;  ///< Keys and values of tokens before this index are there already.
  bool masses = false; ///< Adds up the attention mass of the last token by attended block.
  bool selections = false;  ///< Which blocks the last token attends to is wanted.
  bool all_hidden = false;  ///< hidden() of every token is wanted, not of the last alone.
};

/// One run of consecutive tokens on its way through the layers. It can stop between any two steps
/// and go on later, even after other passes: everything half done is in its own buffers or in the
/// blocks of its sequence.
class ForwardPass {
 public:
  /// Without buffers the pass is for the GPU, which does it in one go. REQUIRES: `plan.n_tokens` as PassPlan says.
  ForwardPass(const PassPlan& plan, std::unique_ptr<PassBuffers> buffers);

  const PassPlan& plan() const { return plan_; }
  int end() const { return plan_.first + plan_.n_tokens; }
  bool done() const { return stage_ == Stage::kDone; }
  bool on_device() const { return buffers_ == nullptr; }

  /// Output of the last layer for token `token_idx` of the pass, [n_embd]. REQUIRES: done(); wanted by the plan.
  const float* hidden(int token_idx, int n_embd) const;

  /// Attention mass of the last token by block of all attended sequences, in order, averaged over
  /// layers and heads. REQUIRES: done() and `plan.masses`.
  std::vector<float> attended_masses(const ModelConfig& config, int n_attended_blocks) const;

  /// Blocks that the last token attended to, [n_layers, n_kv_heads] ascending lists in the selector's
  /// order; an empty list stands for all. REQUIRES: done() and `plan.selections`.
  const std::vector<std::vector<int32_t>>& selections() const { return selections_; }

  /// Blocks that the last token attended to, summed over layers and KV heads. REQUIRES: done().
  size_t n_attended() const { return n_attended_; }

  /// Extents that a GPU copied from host memory because its queries chose them.
  uint64_t n_fetched() const { return n_fetched_; }

  /// The buffers, for the next pass. The pass is over.
  std::unique_ptr<PassBuffers> take_buffers() { return std::move(buffers_); }

 private:
  friend class DeviceNetwork;
  friend class Llama;

  enum class Stage { kEmbed, kQkv, kAttend, kAttnOut, kGateUp, kDown, kDone };
  static constexpr int n_stages = int(Stage::kDone);

  PassPlan plan_;
  std::unique_ptr<PassBuffers> buffers_;
  int layer_ = 0;
  Stage stage_ = Stage::kEmbed;
  int next_ = 0;               // First token of the pass that the stage has not done.
  std::vector<float> rows_;    // On the GPU: what hidden() gives for the last tokens.
  std::vector<float> masses_;  // [n_kv_heads, n_attended_blocks + n_own_blocks], over layers.
  std::vector<std::vector<int32_t>> selections_;
  size_t n_attended_ = 0;
  uint64_t n_fetched_ = 0;
};

}  // namespace nosa
