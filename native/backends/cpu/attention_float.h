// Attention of one run of blocks in float32, for any vectors `S`, in two shapes that give the same
// bits because they do the same operations in the same order:
//
//   tokens in lanes   for chunks: a vector holds the same head of several tokens, a key's or a value's
//                     elements are broadcast, and nothing is summed across lanes
//   keys in lanes     for one or a few tokens: keys are transposed, values are read as they lie
//
// Of both: q . k is one chain of fused additions over the dimensions; the terms of a block are summed
// over every S::lanes-th key and then by halves; values are added key by key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backends/cpu/elementwise.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {
namespace {

inline constexpr float log2_e = 1.44269504f;

/// One block as a run sees it.
struct BlockView {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  const float* bias = nullptr;  // or null
  int n_keys = 0;               // that some token of the run sees
  int n_first = 0;              // keys that token 0 sees; each later token sees one more, in own blocks
  bool own = false;

  /// Keys that token `t` sees.
  int visible(int t) const { return own ? std::clamp(n_first + t, 0, n_keys) : n_keys; }
};

inline BlockView block_view(const AttendRun& run, int block_idx) {
  const int n_context = static_cast<int>(run.context.size());
  BlockView view;
  view.own = block_idx >= n_context;
  const KvBlockRef& block = view.own ? run.own[static_cast<size_t>(block_idx - n_context)]
                                     : run.context[static_cast<size_t>(block_idx)];
  view.k = block.extent;
  view.v = block.extent + int64_t{kBlockTokens} * run.head_dim * block_bytes(run.kv_dtype);
  view.bias = block.token_bias;
  view.n_keys = block.n_tokens;
  if (view.own) {
    view.n_first = run.own_start + 1 - (block_idx - n_context) * kBlockTokens;
    view.n_keys = std::clamp(view.n_first + run.n_tokens - 1, 0, block.n_tokens);
  }
  return view;
}

/// Expands `n_rows` rows of `head_dim` keys or values; head_dim is a multiple of 16.
template <typename S>
void expand_rows(const std::byte* from, DType dtype, int n_rows, int head_dim, float* to) {
  const int64_t n = int64_t{n_rows} * head_dim;
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(from);
  for (int64_t i = 0; i < n; i += S::lanes) S::store(to + i, S::load_f16(halves + i));
}

/// Hands out pieces of a run's scratch.
class ScratchCursor {
 public:
  explicit ScratchCursor(std::byte* at) : at_(at) {}
  template <typename T>
  T* take(int64_t n) {
    auto* piece = reinterpret_cast<T*>(at_);
    at_ += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }

 private:
  std::byte* at_;
};

/// Queries and sums of a run with 16 tokens of one head in the innermost place.
///
/// A bundle is a head of the group and 16 tokens of the run; the tokens missing to 16 have zero queries.
struct TokenLanes {
  static constexpr int tokens = 16;

  TokenLanes(const AttendRun& run, ScratchCursor* scratch)
      : n_token_groups((run.n_tokens + tokens - 1) / tokens),
        n_bundles(n_token_groups * run.group),
        head_dim(run.head_dim) {
    q = scratch->take<float>(int64_t{n_bundles} * head_dim * tokens);
    o = scratch->take<float>(int64_t{n_bundles} * head_dim * tokens);
    peak = scratch->take<float>(int64_t{n_bundles} * tokens);
    sum = scratch->take<float>(int64_t{n_bundles} * tokens);
  }

  int head(int bundle) const { return bundle / n_token_groups; }
  int first_token(int bundle) const { return bundle % n_token_groups * tokens; }
  float* q_of(int bundle) const { return q + int64_t{bundle} * head_dim * tokens; }
  float* o_of(int bundle) const { return o + int64_t{bundle} * head_dim * tokens; }

  /// Reads the queries, with no key seen yet. `rows`: scratch [16, head_dim].
  template <typename S>
  void open(const AttendRun& run, float* rows) const {
    for (int bundle = 0; bundle < n_bundles; ++bundle) {
      for (int i = 0; i < tokens; ++i) {
        const int t = first_token(bundle) + i;
        float* to = rows + i * head_dim;
        if (t >= run.n_tokens) {
          std::memset(to, 0, static_cast<size_t>(head_dim) * sizeof(float));
          continue;
        }
        const int64_t query = int64_t{t} * run.n_heads + run.first_head + head(bundle);
        std::memcpy(to, run.q + query * head_dim, static_cast<size_t>(head_dim) * sizeof(float));
      }
      for (int d = 0; d < head_dim; d += 8) {
        S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows + d), head_dim * 4,
                             reinterpret_cast<std::byte*>(q_of(bundle) + d * tokens));
      }
      std::memset(o_of(bundle), 0, static_cast<size_t>(head_dim * tokens) * sizeof(float));
      std::fill(peak + bundle * tokens, peak + (bundle + 1) * tokens, peak_of_nothing);
      std::fill(sum + bundle * tokens, sum + (bundle + 1) * tokens, 0.0f);
    }
  }

  /// Writes the states of the run. `rows`: scratch [8, 16].
  template <typename S>
  void close(const AttendRun& run, float* rows) const {
    for (int bundle = 0; bundle < n_bundles; ++bundle) {
      const auto state = [&](int t) {
        return run.states + (int64_t{t} * run.group + head(bundle)) * state_floats(head_dim);
      };
      const int first = first_token(bundle);
      const int n = std::min(tokens, run.n_tokens - first);
      for (int d = 0; d < head_dim; d += 16) {
        for (int i = 0; i < n; i += 8) {
          S::transpose_16x8_to(
              reinterpret_cast<const std::byte*>(o_of(bundle) + d * tokens + i), tokens * 4,
              reinterpret_cast<std::byte*>(rows));
          for (int r = 0; r < std::min(8, n - i); ++r) {
            std::memcpy(state(first + i + r) + d, rows + 16 * r, 16 * sizeof(float));
          }
        }
      }
      for (int i = 0; i < n; ++i) {
        state(first + i)[head_dim] = peak[bundle * tokens + i];
        state(first + i)[head_dim + 1] = sum[bundle * tokens + i];
      }
    }
  }

  int n_token_groups;
  int n_bundles;
  int head_dim;
  float* q;     // [n_bundles, head_dim, 16]
  float* o;     // [n_bundles, head_dim, 16], weighted values
  float* peak;  // [n_bundles, 16], logits in units of log 2
  float* sum;   // [n_bundles, 16]
};

/// The softmax terms of one block for the S::lanes tokens of a vector, in place of their logits.
/// Returns the factor that what was summed before has to be multiplied with.
template <typename S>
[[gnu::always_inline]] inline typename S::F weigh(float* logits, int stride, int n_keys, float* peak,
                                                  float* sum, typename S::F* block_sum) {
  using F = typename S::F;
  F top = S::load(peak);
  for (int j = 0; j < n_keys; ++j) top = S::max(top, S::load(logits + j * stride));
  const F correction = exp2_of<S>(S::sub(S::load(peak), top));
  // The order of keys in lanes: every S::lanes-th key, then by halves.
  F partial[S::lanes];
  for (int i = 0; i < S::lanes; ++i) {
    partial[i] = S::zero();
    for (int j = i; j < n_keys; j += S::lanes) {
      const F term = exp2_of<S>(S::sub(S::load(logits + j * stride), top));
      S::store(logits + j * stride, term);
      partial[i] = S::add(partial[i], term);
    }
  }
  for (int half = S::lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] = S::add(partial[i], partial[i + half]);
  }
  *block_sum = partial[0];
  S::store(sum, S::fma(S::load(sum), correction, partial[0]));
  S::store(peak, top);
  return correction;
}

template <typename S>
class FloatAttention {
 public:
  static void run(const AttendRun& run) {
    if (run.head_dim % 16 != 0) return ops_generic().attend(run);
    run.n_tokens <= few_tokens_max ? keys_in_lanes(run) : tokens_in_lanes(run);
  }

 private:
  using F = typename S::F;

  /// Above this many tokens, lanes full of tokens beat the transposing of keys.
  static constexpr int few_tokens_max = 4;
  static constexpr int keys_at_once = S::broadcast_sums;

  static void tokens_in_lanes(const AttendRun& run) {
    const int head_dim = run.head_dim;
    ScratchCursor scratch(run.scratch);
    auto* k = scratch.take<float>(int64_t{kBlockTokens} * head_dim);
    auto* v = scratch.take<float>(int64_t{kBlockTokens} * head_dim);
    auto* logits = scratch.take<float>(int64_t{kBlockTokens} * TokenLanes::tokens);
    const TokenLanes lanes(run, &scratch);
    lanes.open<S>(run, k);
    for (int b = run.block_begin; b < run.block_end; ++b) {
      const BlockView block = block_view(run, b);
      expand_rows<S>(block.k, run.kv_dtype, block.n_keys, head_dim, k);
      expand_rows<S>(block.v, run.kv_dtype, block.n_keys, head_dim, v);
      const int n_padded = (block.n_keys + keys_at_once - 1) / keys_at_once * keys_at_once;
      std::fill(k + block.n_keys * head_dim, k + n_padded * head_dim, 0.0f);
      for (int bundle = 0; bundle < lanes.n_bundles; ++bundle) {
        for (int lane = 0; lane < TokenLanes::tokens; lane += S::lanes) {
          const int token = lanes.first_token(bundle) + lane;
          if (token >= run.n_tokens) break;
          const int n_keys = block.visible(token + S::lanes - 1);
          if (n_keys == 0) continue;
          multiply_keys(run, block, k, n_keys, token, lanes.q_of(bundle) + lane, logits);
          F block_sum;
          const int at = bundle * TokenLanes::tokens + lane;
          const F correction = weigh<S>(logits, S::lanes, n_keys, lanes.peak + at, lanes.sum + at,
                                        &block_sum);
          add_values(logits, v, n_keys, head_dim, correction, lanes.o_of(bundle) + lane);
          if (run.shares != nullptr) {
            put_share(run, b, lanes.head(bundle), token, lanes.peak + at, block_sum);
          }
        }
      }
    }
    lanes.close<S>(run, k);
  }

  static void put_share(const AttendRun& run, int block_idx, int head, int token, const float* peak,
                        F block_sum) {
    const int lane = run.n_tokens - 1 - token;
    if (lane < 0 || lane >= S::lanes) return;
    float sums[S::lanes];
    S::store(sums, block_sum);
    const int64_t n_blocks = static_cast<int64_t>(run.context.size() + run.own.size());
    run.shares[head * n_blocks + block_idx] = {peak[lane], sums[lane]};
  }

  /// logits[j] = log2(e) (scale q . k[j] + bias[j]) of S::lanes tokens, minus infinity where unseen.
  static void multiply_keys(const AttendRun& run, const BlockView& block, const float* k, int n_keys,
                            int token, const float* q, float* logits) {
    const F scale = S::set1(run.scale * log2_e);
    int32_t visible[S::lanes];
    for (int i = 0; i < S::lanes; ++i) visible[i] = block.visible(token + i);
    const typename S::I n_visible = S::load_i(visible);
    for (int j0 = 0; j0 < n_keys; j0 += keys_at_once) {
      F dots[keys_at_once];
#pragma GCC unroll 16
      for (int j = 0; j < keys_at_once; ++j) dots[j] = S::zero();
      const float* keys = k + int64_t{j0} * run.head_dim;
      for (int d = 0; d < run.head_dim; ++d) {
        const F q_d = S::load(q + d * TokenLanes::tokens);
#pragma GCC unroll 16
        for (int j = 0; j < keys_at_once; ++j) {
          dots[j] = S::fma(q_d, S::set1(keys[j * run.head_dim + d]), dots[j]);
        }
      }
#pragma GCC unroll 16
      for (int j = 0; j < keys_at_once; ++j) {
        const float bias = block.bias == nullptr || j0 + j >= n_keys ? 0.0f : block.bias[j0 + j];
        F logit = S::fma(dots[j], scale, S::set1(bias * log2_e));
        logit = S::select_above(logit, S::set1(-std::numeric_limits<float>::infinity()), n_visible,
                                j0 + j);
        S::store(logits + (j0 + j) * S::lanes, logit);
      }
    }
  }

  /// o[d] = correction o[d] + sum_j terms[j] v[j, d]
  static void add_values(const float* terms, const float* v, int n_keys, int head_dim, F correction,
                         float* o) {
    for (int d0 = 0; d0 < head_dim; d0 += keys_at_once) {
      F sums[keys_at_once];
#pragma GCC unroll 16
      for (int d = 0; d < keys_at_once; ++d) {
        sums[d] = S::mul(S::load(o + (d0 + d) * TokenLanes::tokens), correction);
      }
      for (int j = 0; j < n_keys; ++j) {
        const F term = S::load(terms + j * S::lanes);
        const float* values = v + int64_t{j} * head_dim + d0;
#pragma GCC unroll 16
        for (int d = 0; d < keys_at_once; ++d) sums[d] = S::fma(term, S::set1(values[d]), sums[d]);
      }
#pragma GCC unroll 16
      for (int d = 0; d < keys_at_once; ++d) {
        S::store(o + (d0 + d) * TokenLanes::tokens, sums[d]);
      }
    }
  }

  static constexpr int block_vectors = kBlockTokens / S::lanes;

  static void keys_in_lanes(const AttendRun& run) {
    const int head_dim = run.head_dim;
    const int n_queries = run.n_tokens * run.group;
    ScratchCursor scratch(run.scratch);
    auto* rows = scratch.take<float>(int64_t{kBlockTokens} * head_dim);
    auto* keys = scratch.take<float>(int64_t{kBlockTokens} * head_dim);
    auto* logits = scratch.take<float>(int64_t{kBlockTokens} * n_queries);
    auto* corrections = scratch.take<float>(n_queries);
    const int64_t state_size = state_floats(head_dim);
    for (int m = 0; m < n_queries; ++m) {
      float* state = run.states + m * state_size;
      std::memset(state, 0, static_cast<size_t>(state_size) * sizeof(float));
      state[head_dim] = peak_of_nothing;
    }
    for (int b = run.block_begin; b < run.block_end; ++b) {
      const BlockView block = block_view(run, b);
      if (block.n_keys == 0) continue;
      transpose_keys(run, block, rows, keys);
      for (int m = 0; m < n_queries; ++m) {
        const int t = m / run.group;
        const int64_t query = int64_t{t} * run.n_heads + run.first_head + m % run.group;
        const int n_keys = block.visible(t);
        float* terms = logits + m * kBlockTokens;
        multiply_query(run, block, keys, n_keys, run.q + query * head_dim, terms);
        corrections[m] = weigh_query(run, b, m, n_keys, terms);
      }
      add_values_to_queries(run, block, logits, corrections);
    }
  }

  /// keys [head_dim, 64] of a block, zero where there is no key.
  static void transpose_keys(const AttendRun& run, const BlockView& block, float* rows, float* keys) {
    const int head_dim = run.head_dim;
    expand_rows<S>(block.k, run.kv_dtype, block.n_keys, head_dim, rows);
    const int n_padded = (block.n_keys + 15) / 16 * 16;
    std::fill(rows + block.n_keys * head_dim, rows + n_padded * head_dim, 0.0f);
    for (int j = 0; j < n_padded; j += 16) {
      for (int d = 0; d < head_dim; d += 8) {
        alignas(64) float columns[8][16];
        S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows + j * head_dim + d),
                             head_dim * 4, reinterpret_cast<std::byte*>(columns));
        for (int i = 0; i < 8; ++i) {
          for (int lane = 0; lane < 16; lane += S::lanes) {
            S::store(keys + (d + i) * kBlockTokens + j + lane, S::load(columns[i] + lane));
          }
        }
      }
    }
  }

  static void multiply_query(const AttendRun& run, const BlockView& block, const float* keys,
                             int n_keys, const float* q, float* terms) {
    const F scale = S::set1(run.scale * log2_e);
    for (int j0 = 0; j0 < kBlockTokens; j0 += vectors_at_once * S::lanes) {
      F dots[vectors_at_once];
#pragma GCC unroll 4
      for (int i = 0; i < vectors_at_once; ++i) dots[i] = S::zero();
      if (j0 < n_keys) {
        for (int d = 0; d < run.head_dim; ++d) {
          const F q_d = S::set1(q[d]);
#pragma GCC unroll 4
          for (int i = 0; i < vectors_at_once; ++i) {
            const float* at = keys + d * kBlockTokens + j0 + i * S::lanes;
            dots[i] = S::fma(q_d, S::load(at), dots[i]);
          }
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < vectors_at_once; ++i) {
        const int j = j0 + i * S::lanes;
        F bias = S::zero();
        if (block.bias != nullptr && j < n_keys) bias = S::load_n(block.bias + j, n_keys - j);
        const F logit = S::fma(dots[i], scale, S::mul(bias, S::set1(log2_e)));
        const F unseen = S::set1(-std::numeric_limits<float>::infinity());
        S::store(terms + j, S::select_below(logit, unseen, j, n_keys));
      }
    }
  }

  static constexpr int vectors_at_once = 4;

  /// As weigh(), for the keys of one query. Returns the correction.
  static float weigh_query(const AttendRun& run, int block_idx, int m, int n_keys, float* terms) {
    float* peak = run.states + m * int64_t{state_floats(run.head_dim)} + run.head_dim;
    if (n_keys == 0) {
      std::memset(terms, 0, kBlockTokens * sizeof(float));
      return 1.0f;
    }
    F top = S::set1(*peak);
    for (int i = 0; i < block_vectors; ++i) top = S::max(top, S::load(terms + i * S::lanes));
    const float top_value = S::horizontal_max(top);
    top = S::set1(top_value);
    float correction[S::lanes];
    S::store(correction, exp2_of<S>(S::sub(S::set1(*peak), top)));
    F partial = S::zero();
    for (int i = 0; i < block_vectors; ++i) {
      const F term = exp2_of<S>(S::sub(S::load(terms + i * S::lanes), top));
      S::store(terms + i * S::lanes, term);
      partial = S::add(partial, term);
    }
    const float block_sum = S::horizontal_sum(partial);
    float& sum = peak[1];
    sum = std::fma(sum, correction[0], block_sum);
    *peak = top_value;
    if (run.shares != nullptr && m / run.group == run.n_tokens - 1) {
      const int64_t n_blocks = static_cast<int64_t>(run.context.size() + run.own.size());
      run.shares[m % run.group * n_blocks + block_idx] = {top_value, block_sum};
    }
    return correction[0];
  }

  static void add_values_to_queries(const AttendRun& run, const BlockView& block, const float* terms,
                                    const float* corrections) {
    const int n_queries = run.n_tokens * run.group;
    for (int m = 0; m < n_queries;) {
      const int n_left = n_queries - m;
      if (n_left >= 4) {
        add_values_to<4>(run, block, terms + m * kBlockTokens, corrections + m, m);
        m += 4;
      } else if (n_left >= 2) {
        add_values_to<2>(run, block, terms + m * kBlockTokens, corrections + m, m);
        m += 2;
      } else {
        add_values_to<1>(run, block, terms + m * kBlockTokens, corrections + m, m);
        m += 1;
      }
    }
  }

  template <int kQueries>
  static void add_values_to(const AttendRun& run, const BlockView& block, const float* terms,
                            const float* corrections, int m) {
    constexpr int vectors = 16 / S::lanes;
    float* state = run.states + int64_t{m} * state_floats(run.head_dim);
    for (int d = 0; d < run.head_dim; d += 16) {
      F sums[kQueries][vectors];
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const float* at = state + i * int64_t{state_floats(run.head_dim)} + d + v * S::lanes;
          sums[i][v] = S::mul(S::load(at), S::set1(corrections[i]));
        }
      }
      for (int j = 0; j < block.n_keys; ++j) {
        F values[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const int64_t at = int64_t{j} * run.head_dim + d + v * S::lanes;
          values[v] = run.kv_dtype == DType::kF32
                          ? S::load(reinterpret_cast<const float*>(block.v) + at)
                          : S::load_f16(reinterpret_cast<const uint16_t*>(block.v) + at);
        }
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) {
          const F term = S::set1(terms[i * kBlockTokens + j]);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) sums[i][v] = S::fma(term, values[v], sums[i][v]);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          float* at = state + i * int64_t{state_floats(run.head_dim)} + d + v * S::lanes;
          S::store(at, sums[i][v]);
        }
      }
    }
  }
};

template <typename S>
void attend_float(const AttendRun& run) {
  FloatAttention<S>::run(run);
}

}  // namespace
}  // namespace nosa::cpu
