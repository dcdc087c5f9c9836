// Attention of one run of blocks, for any vectors `S`, in two shapes that give the same bits
// because they do the same operations in the same order:
//
//   tokens in lanes   for chunks: a vector holds the same head of several tokens, a key's or a
//   value's
//                     elements are broadcast, and nothing is summed across lanes
//   keys in lanes     for one or a few tokens: keys are transposed, values are read as they lie
//
// Of both: the terms of a block are summed over every S::lanes-th key and then by halves. How q . k
// and the sums of values are computed is `Math`'s: see attention_float.h and attention_bf16.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

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
  int n_first = 0;  // keys that token 0 sees; each later token sees one more, in own blocks
  bool own = false;

  float bias_of(int key) const { return bias == nullptr || key >= n_keys ? 0.0f : bias[key]; }

  /// The biases of the keys from `first` to below `n`, then zeros.
  template <typename S>
  typename S::F biases(int first, int n) const {
    return bias == nullptr || first >= n ? S::zero() : S::load_n(bias + first, n - first);
  }

  /// Keys that token `t` sees.
  int visible(int t) const { return own ? std::clamp(n_first + t, 0, n_keys) : n_keys; }
};

/// Asks for a row that is needed soon.
template <typename S>
[[gnu::always_inline]] inline void prefetch_row(const std::byte* row, int64_t row_bytes) {
  for (int64_t i = 0; i < row_bytes; i += 64) S::prefetch(row + i);
}

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

  /// What was not handed out yet.
  std::byte* rest() const { return at_; }

 private:
  std::byte* at_;
};

/// Queries and sums of a run with 16 tokens of one head in the innermost place.
///
/// A bundle is a head of the group and 16 tokens of the run; the tokens missing to 16 have zero
/// queries.
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

  /// Goes on from run.states instead of from nothing. `rows`: scratch [16, head_dim].
  template <typename S>
  void load_states(const AttendRun& run, float* rows) const {
    for (int bundle = 0; bundle < n_bundles; ++bundle) {
      for (int i = 0; i < std::min(tokens, run.n_tokens - first_token(bundle)); ++i) {
        const int64_t query = int64_t{first_token(bundle) + i} * run.group + head(bundle);
        const float* state = run.states + query * state_floats(head_dim);
        std::memcpy(rows + i * head_dim, state, static_cast<size_t>(head_dim) * sizeof(float));
        peak[bundle * tokens + i] = state[head_dim];
        sum[bundle * tokens + i] = state[head_dim + 1];
      }
      for (int d = 0; d < head_dim; d += 8) {
        S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows + d), head_dim * 4,
                             reinterpret_cast<std::byte*>(o_of(bundle) + d * tokens));
      }
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
          S::transpose_16x8_to(reinterpret_cast<const std::byte*>(o_of(bundle) + d * tokens + i),
                               tokens * 4, reinterpret_cast<std::byte*>(rows));
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
[[gnu::always_inline]] inline typename S::F weigh(float* logits, int stride, int n_keys,
                                                  float* peak, float* sum,
                                                  typename S::F* block_sum) {
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

/// Minus infinity: the logit of a key that a token does not see.
template <typename S>
[[gnu::always_inline]] inline typename S::F unseen() {
  return S::set1(-std::numeric_limits<float>::infinity());
}

/// As weigh(), for the first n_keys of the 64 keys of one query, whose peak and sum lie at `peak`.
/// Returns the correction.
template <typename S>
[[gnu::always_inline]] inline float weigh_row(int n_keys, float* peak, float* terms,
                                              float* block_sum) {
  using F = typename S::F;
  if (n_keys == 0) {
    std::memset(terms, 0, kBlockTokens * sizeof(float));
    return 1.0f;
  }
  constexpr int n_vectors = kBlockTokens / S::lanes;
  F top = S::set1(*peak);
  for (int i = 0; i < n_vectors; ++i) {
    F logit = S::load(terms + i * S::lanes);
    logit = S::select_below(logit, unseen<S>(), i * S::lanes, n_keys);
    S::store(terms + i * S::lanes, logit);
    top = S::max(top, logit);
  }
  const float top_value = S::horizontal_max(top);
  top = S::set1(top_value);
  float correction[S::lanes];
  S::store(correction, exp2_of<S>(S::sub(S::set1(*peak), top)));
  F partial = S::zero();
  for (int i = 0; i < n_vectors; ++i) {
    const F term = exp2_of<S>(S::sub(S::load(terms + i * S::lanes), top));
    S::store(terms + i * S::lanes, term);
    partial = S::add(partial, term);
  }
  *block_sum = S::horizontal_sum(partial);
  peak[1] = std::fma(peak[1], correction[0], *block_sum);
  *peak = top_value;
  return correction[0];
}

template <typename S, typename Math>
class Attention {
 public:
  static void run(const AttendRun& run) {
    if (run.head_dim % 16 != 0) return ops_generic().attend(run);
    if (run.n_tokens <= few_tokens_max) return keys_in_lanes(run);
    if constexpr (has_rows) {
      if (run.beside_picks) return tokens_in_rows(run);
    }
    tokens_in_lanes(run);
  }

  /// Block by block, the queries of all tokens that picked it together.
  static void picks(const AttendPicks& args) {
    if (args.head_dim % 16 != 0) return ops_generic().attend_picks(args);
    clear_states(args.states, args.n_tokens * args.group, args.head_dim);
    if constexpr (has_rows) {
      ScratchCursor scratch(args.scratch);
      typename Math::RowBlock block(args, &scratch);
      for_each_picked(args, [&](int32_t block_idx, std::span<const int32_t> tokens) {
        const BlockView view = picked_view(args, block_idx);
        const bool last = static_cast<size_t>(block_idx) + 1 == args.blocks.size();
        block.read(view, last ? BlockView{} : picked_view(args, block_idx + 1));
        const auto token = [tokens](int i) { return tokens[static_cast<size_t>(i)]; };
        block.attend(view, static_cast<int>(tokens.size()), token);
      });
    } else {
      picks_in_lanes(args);
    }
  }

 private:
  using F = typename S::F;

  /// Whether there is a block for queries that are not in order.
  static constexpr bool has_rows = requires { typename Math::RowBlock; };

  /// Above this many tokens, lanes full of tokens beat the transposing of keys.
  static constexpr int few_tokens_max = 4;

  /// Up to this many queries of one block, transposing its keys costs less than lanes that are empty.
  static constexpr int few_queries_max = 10;

  static void clear_states(float* states, int n_states, int head_dim) {
    const int64_t state_size = state_floats(head_dim);
    std::memset(states, 0, static_cast<size_t>(n_states * state_size) * sizeof(float));
    for (int m = 0; m < n_states; ++m) states[m * state_size + head_dim] = peak_of_nothing;
  }

  static BlockView picked_view(const AttendPicks& args, int32_t block_idx) {
    const KvBlockRef& ref = args.blocks[static_cast<size_t>(block_idx)];
    BlockView view;
    view.k = ref.extent;
    view.v = ref.extent + int64_t{kBlockTokens} * args.head_dim * block_bytes(args.kv_dtype);
    view.bias = ref.token_bias;
    view.n_keys = ref.n_tokens;
    return view;
  }

  /// Calls fn(block, tokens that picked it) for the run's blocks, ascending.
  template <typename Fn>
  static void for_each_picked(const AttendPicks& args, Fn&& fn) {
    int at[attend_tokens_max];
    std::fill(at, at + args.n_tokens, args.pick_begin);
    const auto pick_of = [&](int t) { return args.picks[int64_t{t} * args.n_picks + at[t]]; };
    for (;;) {
      int32_t block_idx = std::numeric_limits<int32_t>::max();
      for (int t = 0; t < args.n_tokens; ++t) {
        if (at[t] < args.pick_end) block_idx = std::min(block_idx, pick_of(t));
      }
      if (block_idx == std::numeric_limits<int32_t>::max()) return;
      int32_t picking[attend_tokens_max];
      size_t n_picking = 0;
      for (int t = 0; t < args.n_tokens; ++t) {
        if (at[t] == args.pick_end || pick_of(t) != block_idx) continue;
        picking[n_picking++] = t;
        at[t] += 1;
      }
      fn(block_idx, std::span<const int32_t>(picking, n_picking));
    }
  }

  /// Queries in lanes: those that picked a block, whatever their tokens and heads, 16 at a time.
  static void picks_in_lanes(const AttendPicks& args) {
    const int state_size = state_floats(args.head_dim);
    ScratchCursor scratch(args.scratch);
    auto* queries = scratch.take<float>(int64_t{TokenLanes::tokens} * args.head_dim);
    auto* states = scratch.take<float>(int64_t{TokenLanes::tokens} * state_size);
    AttendRun bundle;
    bundle.q = queries;
    bundle.n_tokens = TokenLanes::tokens;
    bundle.n_heads = 1;
    bundle.group = 1;
    bundle.head_dim = args.head_dim;
    bundle.scale = args.scale;
    bundle.kv_dtype = args.kv_dtype;
    bundle.states = states;
    typename Math::TokenBlock block(bundle, &scratch);
    auto* logits =
        scratch.take<float>(int64_t{TokenLanes::tokens} * std::max(kBlockTokens, args.head_dim));
    const TokenLanes lanes(bundle, &scratch);
    bundle.scratch = scratch.rest();

    for_each_picked(args, [&](int32_t block_idx, std::span<const int32_t> picking) {
      const KvBlockRef& ref = args.blocks[static_cast<size_t>(block_idx)];
      const BlockView view = picked_view(args, block_idx);
      const int n_here = static_cast<int>(picking.size()) * args.group;
      if (n_here > few_queries_max) block.read(view);
      for (int first = 0; first < n_here; first += TokenLanes::tokens) {
        const int n = std::min(TokenLanes::tokens, n_here - first);
        const auto query_idx = [&](int i) {
          return picking[static_cast<size_t>((first + i) / args.group)] * args.group + (first + i) % args.group;
        };
        const auto put_states = [&] {
          for (int i = 0; i < n; ++i) {
            std::memcpy(args.states + int64_t{query_idx(i)} * state_size,
                        states + int64_t{i} * state_size,
                        static_cast<size_t>(state_size) * sizeof(float));
          }
        };
        for (int i = 0; i < n; ++i) {
          const int query = query_idx(i);
          const int64_t row = int64_t{query / args.group} * args.n_heads + args.first_head +
                              query % args.group;
          std::memcpy(queries + int64_t{i} * args.head_dim, args.q + row * args.head_dim,
                      static_cast<size_t>(args.head_dim) * sizeof(float));
          std::memcpy(states + int64_t{i} * state_size, args.states + int64_t{query} * state_size,
                      static_cast<size_t>(state_size) * sizeof(float));
        }
        bundle.n_tokens = n;
        if (n_here <= few_queries_max) {
          bundle.context = {&ref, 1};
          bundle.block_begin = 0;
          bundle.block_end = 1;
          add_keys_in_lanes(bundle);
          put_states();
          continue;
        }
        lanes.template open<S>(bundle, logits);
        lanes.template load_states<S>(bundle, logits);
        ScratchCursor rest = scratch;
        block.read_queries(lanes, &rest);
        for (int lane = 0; lane < n; lane += S::lanes) {
          block.multiply_keys(lanes, 0, lane, view, view.n_keys, logits);
          F block_sum;
          const F correction = weigh<S>(logits, S::lanes, view.n_keys, lanes.peak + lane,
                                        lanes.sum + lane, &block_sum);
          block.add_values(logits, view.n_keys, correction, lanes.o_of(0) + lane);
        }
        lanes.template close<S>(bundle, logits);
        put_states();
      }
    });
  }

  static void tokens_in_lanes(const AttendRun& run) {
    ScratchCursor scratch(run.scratch);
    typename Math::TokenBlock block(run, &scratch);
    // Also where queries are transposed from, before there are logits.
    auto* logits =
        scratch.take<float>(int64_t{TokenLanes::tokens} * std::max(kBlockTokens, run.head_dim));
    const TokenLanes lanes(run, &scratch);
    lanes.open<S>(run, logits);
    block.read_queries(lanes, &scratch);
    for (int b = run.block_begin; b < run.block_end; ++b) {
      const BlockView view = block_view(run, b);
      block.read(view);
      for (int bundle = 0; bundle < lanes.n_bundles; ++bundle) {
        for (int lane = 0; lane < TokenLanes::tokens; lane += S::lanes) {
          const int token = lanes.first_token(bundle) + lane;
          if (token >= run.n_tokens) break;
          const int n_keys = view.visible(token + S::lanes - 1);
          if (n_keys == 0) continue;
          block.multiply_keys(lanes, bundle, lane, view, n_keys, logits);
          hide(view, n_keys, token, logits);
          F block_sum;
          const int at = bundle * TokenLanes::tokens + lane;
          const F correction =
              weigh<S>(logits, S::lanes, n_keys, lanes.peak + at, lanes.sum + at, &block_sum);
          block.add_values(logits, n_keys, correction, lanes.o_of(bundle) + lane);
          if (run.shares != nullptr) {
            put_share(run, b, lanes.head(bundle), token, lanes.peak + at, block_sum);
          }
        }
      }
    }
    lanes.close<S>(run, logits);
  }

  /// REQUIRES: nobody asks for the shares.
  static void tokens_in_rows(const AttendRun& run) {
    clear_states(run.states, run.n_tokens * run.group, run.head_dim);
    ScratchCursor scratch(run.scratch);
    typename Math::RowBlock block(run, &scratch);
    for (int b = run.block_begin; b < run.block_end; ++b) {
      const BlockView view = block_view(run, b);
      if (view.n_keys == 0) continue;
      block.read(view, b + 1 < run.block_end ? block_view(run, b + 1) : BlockView{});
      block.attend(view, run.n_tokens, [](int i) { return i; });
    }
  }

  /// Hides the keys that only later tokens than a lane's see.
  static void hide(const BlockView& view, int n_keys, int token, float* logits) {
    const int n_all_see = view.visible(token);
    if (n_all_see >= n_keys) return;
    int32_t visible[S::lanes];
    for (int i = 0; i < S::lanes; ++i) visible[i] = view.visible(token + i);
    const typename S::I n_visible = S::load_i(visible);
    for (int j = n_all_see; j < n_keys; ++j) {
      float* at = logits + j * S::lanes;
      S::store(at, S::select_above(S::load(at), unseen<S>(), n_visible, j));
    }
  }

  static void put_share(const AttendRun& run, int block_idx, int head, int token, const float* peak,
                        F block_sum) {
    const int lane = run.n_tokens - 1 - token;
    if (lane < 0 || lane >= S::lanes) return;
    float sums[S::lanes];
    S::store(sums, block_sum);
    run.shares[head * run.shares_stride + block_idx] = {peak[lane], sums[lane]};
  }

  static void keys_in_lanes(const AttendRun& run) {
    clear_states(run.states, run.n_tokens * run.group, run.head_dim);
    add_keys_in_lanes(run);
  }

  /// Goes on from run.states.
  static void add_keys_in_lanes(const AttendRun& run) {
    const int n_queries = run.n_tokens * run.group;
    ScratchCursor scratch(run.scratch);
    typename Math::KeyBlock block(run, &scratch);
    auto* logits = scratch.take<float>(int64_t{kBlockTokens} * n_queries);
    auto* corrections = scratch.take<float>(n_queries);
    const int n_blocks = static_cast<int>(run.context.size() + run.own.size());
    for (int b = run.block_begin; b < run.block_end; ++b) {
      const BlockView view = block_view(run, b);
      if (view.n_keys == 0) continue;
      // The block after the run's last is likely to be this thread's next.
      const BlockView next = b + 1 < n_blocks ? block_view(run, b + 1) : BlockView{};
      block.read(view, next);
      for (int m = 0; m < n_queries;) {
        const int end = m + block.multiply(m, view, logits + m * kBlockTokens);
        for (; m < end; ++m) {
          const int n_keys = view.visible(m / run.group);
          corrections[m] = weigh_query(run, b, m, n_keys, logits + m * kBlockTokens);
        }
      }
      block.add_values(view, next, logits, corrections);
    }
  }

  static float weigh_query(const AttendRun& run, int block_idx, int m, int n_keys, float* terms) {
    float* peak = run.states + m * int64_t{state_floats(run.head_dim)} + run.head_dim;
    float block_sum = 0.0f;
    const float correction = weigh_row<S>(n_keys, peak, terms, &block_sum);
    if (run.shares != nullptr && n_keys > 0 && m / run.group == run.n_tokens - 1) {
      run.shares[m % run.group * run.shares_stride + block_idx] = {*peak, block_sum};
    }
    return correction;
  }
};

}  // namespace
}  // namespace nosa::cpu
