// The operations a model is made of, and the only way the model reaches the machine.
//
// Shapes use the same names everywhere: n_tokens, n_embd, n_heads, n_kv_heads, head_dim,
// n_rows and n_cols of a weight (n_rows outputs, n_cols contiguous inputs).
// Activations are float32, row-major, one row a token.
//
// Every result of an operation for one token depends on that token's inputs alone, never on the
// number of threads, on the other tokens of the call or on their order: a prefill that was
// interrupted and resumed is bit-identical to one that was not.
//
// Not thread-safe: called by the native worker thread only. Calls return when the work is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "core/block_tokens.h"
#include "core/dtype.h"
#include "core/rope_pairing.h"
#include "core/tensor_view.h"
#include "kv/packed_keys.h"

namespace nosa {

/// A change of a weight [n_rows, n_cols] by two thin factors: W + scale b^T a. The weight itself,
/// which may be quantised, stays as it is.
struct LowRankUpdate {
  int rank = 0;
  float scale = 1.0f;
  const uint16_t* a = nullptr;  // [rank, n_cols] bfloat16
  const uint16_t* b = nullptr;  // [rank, n_rows] bfloat16
};

/// One weight of a group that shares its input.
struct MatmulTarget {
  const WeightView* weight = nullptr;  // [n_rows, n_cols]
  const float* bias = nullptr;         // [n_rows] or null
  float* out = nullptr;                // [n_tokens, n_rows]
  const LowRankUpdate* update = nullptr;  // or null
};

/// Keys and values of one block of one KV head.
///
/// An extent holds K then V, each [kBlockTokens, head_dim] in the KV type (F16 or F32); K is post-RoPE.
struct KvBlockRef {
  const std::byte* extent = nullptr;
  const float* token_bias = nullptr;  // [kBlockTokens] added to the scaled logits, or null for none
  int32_t n_tokens = 0;               // valid tokens, 1 .. kBlockTokens
};

/// One step of attention for a run of consecutive tokens of one sequence.
///
///   out[t, h] = sum_j softmax_j(scale q[t, h] . k[j] + bias[j]) v[j]
///
/// over the tokens j of every context block (visible to all queries), of the sequence's own blocks up
/// to and including the query itself (query t is own token `own_start + t` of them), and of the blocks
/// that the query picked.
struct AttentionArgs {
  const float* q = nullptr;  // [n_tokens, n_heads, head_dim], after RoPE
  float* out = nullptr;      // [n_tokens, n_heads, head_dim]
  int n_tokens = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int own_start = 0;
  float scale = 0.0f;
  DType kv_dtype = DType::kF16;
  std::span<const KvBlockRef> context;  // [n_kv_heads, n_context_blocks]
  std::span<const KvBlockRef> own;      // [n_kv_heads, n_own_blocks], in order
  /// Blocks that some query picked, all tokens of them visible to it: those of KV head h are
  /// picked[picked_begin[h]] up to picked[picked_begin[h + 1]].
  std::span<const KvBlockRef> picked;
  std::span<const int32_t> picked_begin;  // [n_kv_heads + 1], or empty when none picks
  /// [n_kv_heads, n_tokens, n_picks] ascending indices among the picked blocks of the KV head.
  std::span<const int32_t> picks;
  int n_picks = 0;
  /// When not null: adds, for every block, its share of the softmax of the last query, averaged over
  /// the heads of a KV head. [n_kv_heads, n_context_blocks + n_own_blocks + n_picks]
  /// REQUIRES: one token, if there are picks.
  float* block_mass = nullptr;
};

/// Rotation of queries and keys. `inv_freq` already holds the scaling (linear, YaRN, llama3, longrope).
struct RopeArgs {
  float* x = nullptr;               // [n_tokens, n_heads, head_dim], in place
  int n_tokens = 0;
  int n_heads = 0;
  int head_dim = 0;
  int first_position = 0;           // token t is at first_position + t
  const float* inv_freq = nullptr;  // [n_rotated / 2]
  int n_rotated = 0;                // leading dimensions that rotate, usually head_dim
  float magnitude = 1.0f;           // multiplies cos and sin (YaRN's and longrope's attention factor)
  RopePairing pairing = RopePairing::kHalfSplit;
};

/// Where the keys and values of consecutive tokens of one layer go.
struct StoreKvArgs {
  const float* k = nullptr;  // [n_tokens, n_kv_heads, head_dim], after RoPE
  const float* v = nullptr;  // [n_tokens, n_kv_heads, head_dim]
  int n_tokens = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int own_start = 0;  // index of the first token within its sequence
  DType kv_dtype = DType::kF16;
  std::span<std::byte* const> extents;  // [n_kv_heads, n_own_blocks]
};

/// Compressed keys of consecutive windows, for one KV head, and the blocks that the windows lie in.
struct WindowRun {
  /// Tiles [head_dim, kTileWindows] in the KV type, from window 0 on; the last one may hold fewer
  /// windows, and then anything else. Best aligned to 64 bytes.
  const std::byte* keys = nullptr;
  PackedKeysView packed = {};  // Unless null, what is read instead.
  int32_t first_window = 0;  // The run's windows are first_window up to first_window + n_windows - 1.
  int32_t n_windows = 0;
  int32_t first_block = 0;  // among all blocks
  int32_t n_blocks = 0;
};

/// How well blocks match each token's queries: the first stage of NOSA's selection (arXiv 2510.13602).
///
///   p[h, m] = sum over the query heads g of KV head h of softmax_m(scale q[g] . key[h, m])
///   out[h, b] = the highest p of the windows 4b - 1 .. 4b + 3 of block b in its run
///
/// with the softmax over all windows of all runs that the token sees: of the last run, which is the
/// sequence's own, those that are complete at own token `own_start + t`; of the others all.
/// A block with no window, or in no run, gets minus infinity.
struct BlockScoresArgs {
  const float* q = nullptr;  // [n_tokens, n_heads, head_dim], after RoPE
  int n_tokens = 0;
  int own_start = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  float scale = 0.0f;
  DType kv_dtype = DType::kF16;
  std::span<const WindowRun> runs;  // [n_kv_heads, n_runs], the same numbers for every head
  int n_blocks = 0;                 // of all
  float* out = nullptr;             // [n_tokens, n_kv_heads, n_blocks]

  /// Called for every token and KV head once its scores are there, by the thread that has just written them:
  /// for several at once, but never for two with the same `worker`, of [0, n_workers()).
  std::function<void(int token, int kv_head, int worker)> scored;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// What the status bar shows, such as "CPU AVX-512 VNNI".
  virtual std::string_view name() const = 0;

  /// out[t] = row ids[t] of `table` [n_vocab, n_embd]. REQUIRES: every id < n_vocab.
  virtual void embed(const WeightView& table, std::span<const uint32_t> ids, float* out) = 0;

  /// out[t, i] = x[t, i] / sqrt(mean(x[t]^2) + eps) * weight[i]; out may be x.
  virtual void rms_norm(const float* x, const float* weight, int n_tokens, int n_embd, float eps,
                        float* out) = 0;

  /// For each target: out[t, r] = sum_c weight[r, c] x[t, c] + bias[r]. x [n_tokens, n_cols].
  /// An update adds scale sum_i b[i, r] sum_c a[i, c] x[t, c], in float32.
  virtual void matmul(std::span<const MatmulTarget> targets, const float* x, int n_tokens) = 0;

  virtual void rope(const RopeArgs& args) = 0;
  virtual void store_kv(const StoreKvArgs& args) = 0;
  virtual void attend(const AttentionArgs& args) = 0;
  virtual void score_blocks(const BlockScoresArgs& args) = 0;

  /// Threads that compute.
  virtual int n_workers() const = 0;

  /// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], over n values.
  virtual void silu_mul(float* gate, const float* up, int64_t n) = 0;

  /// x[i] += y[i], over n values.
  virtual void add(float* x, const float* y, int64_t n) = 0;
};

}  // namespace nosa
