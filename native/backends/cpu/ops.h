#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/backend.h"
#include "core/dtype.h"
#include "core/rope_pairing.h"
#include "core/tensor_view.h"

namespace nosa::cpu {

/// Rows of a weight that a product handles together, one a vector lane.
inline constexpr int panel_rows = 16;

/// A share of out[t, r] = sum_c weight[r, c] x[t, c] + bias[r]: some rows, all tokens.
struct MatmulSlice {
  const WeightView* weight = nullptr;  // [n_rows, n_cols]
  int64_t row_begin = 0;               // a multiple of panel_rows
  int64_t row_end = 0;                 // a multiple of panel_rows, or n_rows
  const float* bias = nullptr;         // [n_rows] or null
  const std::byte* tokens = nullptr;   // quantised or plain tiles of x, see token_tiles.h
  int n_tokens = 0;
  float* out = nullptr;          // [n_tokens, n_rows]
  std::byte* scratch = nullptr;  // matmul_scratch_bytes(n_cols), 64-byte aligned
};

/// What a low-rank update adds to some rows of a product, all tokens.
struct LowRankSlice {
  const uint16_t* b = nullptr;   // [rank, n_rows] bfloat16
  const float* inner = nullptr;  // [n_tokens, rank], see low_rank_inner
  int rank = 0;
  int64_t n_rows = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int n_tokens = 0;
  float* out = nullptr;  // [n_tokens, n_rows]
};

/// How much of a query's softmax a run of blocks has seen: maximum logit in units of log 2, sum of
/// exp2(logit - peak), and the values weighted by the same terms.
///
/// In memory: head_dim values, then peak, then sum. `state_floats` apart.
constexpr int state_floats(int head_dim) { return head_dim + 2; }

/// The logit below which nothing is: a state that has seen no key. Finite, so that the difference
/// of two such states is zero and not NaN.
inline constexpr float peak_of_nothing = -1e30f;

/// One block's part of the softmax of one query, before it is known what the other blocks add.
struct BlockShare {
  float peak;
  float sum;
};

/// Attention of a few tokens' query heads over one run of blocks of the KV head they share.
struct AttendRun {
  const float* q = nullptr;  // [n_tokens, n_heads, head_dim] of this run's first token
  int n_tokens = 0;          // 1 .. attend_tokens_max
  int n_heads = 0;           // distance between tokens of q, in heads
  int first_head = 0;        // of the group
  int group = 0;             // heads that share the KV head
  int head_dim = 0;
  int own_start = 0;  // own index of the first token
  float scale = 0.0f;
  DType kv_dtype = DType::kF16;
  std::span<const KvBlockRef> context;  // [n_context_blocks] of this KV head
  std::span<const KvBlockRef> own;      // [n_own_blocks] of this KV head
  int block_begin = 0;                  // in context followed by own
  int block_end = 0;
  bool beside_picks = false;  // the tokens have picks too, and their states meet
  float* states = nullptr;  // [n_tokens, group], each state_floats(head_dim)
  BlockShare* shares =
      nullptr;  // [group, n_context_blocks + n_own_blocks] of the last token, or null
  int64_t shares_stride = 0;  // from a head's shares to the next one's
  std::byte* scratch = nullptr;  // attend_scratch_bytes(group, head_dim), 64-byte aligned
};

/// Tokens of one AttendRun: those of a block, which choose together.
inline constexpr int attend_tokens_max = 64;

/// Attention of the query heads of a few tokens, which share a KV head, over one run of the blocks
/// that each token picked.
struct AttendPicks {
  const float* q = nullptr;  // [n_tokens, n_heads, head_dim] of the first token
  int n_tokens = 0;          // 1 .. attend_tokens_max
  int n_heads = 0;
  int first_head = 0;
  int group = 0;
  int head_dim = 0;
  float scale = 0.0f;
  DType kv_dtype = DType::kF16;
  std::span<const KvBlockRef> blocks;  // picked ones of this KV head
  const int32_t* picks = nullptr;      // [n_tokens, n_picks] indices into blocks, ascending
  int n_picks = 0;
  int pick_begin = 0;  // the run: these columns of picks
  int pick_end = 0;
  float* states = nullptr;       // [n_tokens, group], each state_floats(head_dim)
  std::byte* scratch = nullptr;  // attend_scratch_bytes(group, head_dim), 64-byte aligned
};

/// Queries of one KV head against consecutive compressed keys. Query i is head i % group of token
/// i / group.
struct WindowLogits {
  const float* q = nullptr;  // of the first query
  int n_queries = 0;
  int group = 0;
  int64_t token_stride = 0;  // floats from a token's first query to the next token's
  int head_dim = 0;  // a multiple of 16, at most head_dim_max
  float scale = 0.0f;
  DType kv_dtype = DType::kF16;
  const std::byte* keys = nullptr;  // tiles of windows, see WindowRun; of packed_logits their codes
  const float* ranges = nullptr;    // packed_logits: of the group of the first tile and those after it
  int32_t tile_in_group = 0;        // packed_logits: of the first tile
  int32_t first_window = 0;         // within the first tile
  int32_t n_windows = 0;
  float* logits = nullptr;  // [n_queries, n_windows], rows logits_stride apart
  int64_t logits_stride = 0;

  static constexpr int head_dim_max = 256;

  const float* query(int i) const {
    return q + i / group * token_stride + int64_t{i % group} * head_dim;
  }
};

/// The inner loops, for one instruction set. All are pure; none allocates; pointers need no
/// alignment beyond their type unless it is said.
struct Ops {
  const char* name;

  /// Quantises `width` tokens, a tile, to int8 in blocks of 32. x [width, n_cols]; n_cols is a
  /// multiple of 32; out quant_tile_bytes(width, n_cols), 64-byte aligned.
  void (*quantize_tile)(const float* x, int width, int64_t n_cols, std::byte* out);

  /// Puts a tile's columns one after the other: x [width, n_cols] to out [n_cols, width].
  void (*transpose_tile)(const float* x, int width, int64_t n_cols, float* out);

  /// Product of a quantised weight with quantised tiles.
  void (*matmul_quant)(const MatmulSlice& slice);

  /// Product of any weight, expanded to float32, with float32 tiles.
  void (*matmul_float)(const MatmulSlice& slice);

  /// One token: inner[i] = scale sum_c a[i, c] x[c], of a low-rank update.
  void (*low_rank_inner)(const LowRankUpdate& update, const float* x, int64_t n_cols, float* inner);

  /// out[t, r] += sum_i b[i, r] inner[t, i]
  void (*add_low_rank)(const LowRankSlice& slice);

  /// One token: out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int n_embd, float eps, float* out);

  /// One head: rotates the pairs of x by cosine and sine [n_rotated / 2].
  void (*rope)(float* x, const float* cosine, const float* sine, int n_rotated,
               RopePairing pairing);

  /// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]
  void (*silu_mul)(float* gate, const float* up, int64_t n);

  /// x[i] += y[i]
  void (*add)(float* x, const float* y, int64_t n);

  /// To binary16, to nearest even; what is larger than the largest half becomes that.
  void (*to_f16)(const float* x, int64_t n, uint16_t* out);

  /// Fills run.states from nothing; states of tokens that see no key of the run are empty.
  void (*attend)(const AttendRun& run);

  /// As attend, with all sums of products in float32.
  void (*attend_exact)(const AttendRun& run);

  /// Fills args.states from nothing. The same bits for a token as attend over its picks.
  void (*attend_picks)(const AttendPicks& args);

  /// As attend_picks, with all sums of products in float32.
  void (*attend_picks_exact)(const AttendPicks& args);

  /// logits[i, m] = scale query[i] . key[first_window + m]
  void (*window_logits)(const WindowLogits& args);

  /// The same for packed keys (see PackedKeys). Each query is rounded, once multiplied by a group's steps, to
  /// 1 / packed_query_levels of its largest value.
  void (*packed_logits)(const WindowLogits& args);

  /// out[i] += softmax(logits)[i] over n > 0 values; leaves no meaning in logits.
  void (*add_softmax)(float* logits, int64_t n, float* out);
};

/// Packed keys meet whole numbers of two digits from -127 to 127: high 254 + low.
inline constexpr int packed_query_digit = 254;
inline constexpr int packed_query_levels = 127 * packed_query_digit;

/// Scratch of a MatmulSlice, in bytes.
int64_t matmul_scratch_bytes(int64_t n_cols);

/// Scratch of an AttendRun, in bytes.
int64_t attend_scratch_bytes(int group, int head_dim);

/// Plain loops: runs everywhere, and the one to read.
const Ops& ops_generic();

#if defined(NOSA_CPU_X86)
/// REQUIRES: the processor has AVX2, FMA and F16C.
const Ops& ops_avx2();

/// REQUIRES: the processor has AVX-512 F, BW, DQ, VL, VBMI, VNNI and BF16.
const Ops& ops_avx512();
#endif

#if defined(NOSA_CPU_ARM)
/// REQUIRES: the processor has the dot product instructions.
const Ops& ops_neon();
#endif

}  // namespace nosa::cpu
