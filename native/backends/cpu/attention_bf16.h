// The arithmetic of attention with the bfloat16 dot products of AVX-512, twice as many a second as
// in float32. Only ops_avx512.cpp includes this.
//
// Logits are differences to the block's first key,
//
//   q . k[j] = q . k[0] + bf16(q) . bf16(k[j] - k[0])
//
// with the first product in float32: what all keys share, such as the bias that some models add to
// their keys and that is much larger than the rest, is not rounded. The first key is seen by
// whoever sees any key of the block and never changes, so a token's result does not depend on later
// ones. Weights and values are rounded, sums are float32.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "backends/cpu/attention_tile.h"
#include "backends/cpu/ops.h"
#include "backends/cpu/simd_avx512.h"

namespace nosa::cpu {
namespace {

struct Bf16Math {
  using S = Avx512;
  using F = S::F;

  static F load_kv(const std::byte* from, DType dtype, int64_t i) {
    return dtype == DType::kF32 ? S::load(reinterpret_cast<const float*>(from) + i)
                                : S::load_f16(reinterpret_cast<const uint16_t*>(from) + i);
  }

  /// Words of the bfloat16 pairs (a[0], b[0]), (a[1], b[1]), ...
  static __m512i pair_up(F a, F b) {
    const auto halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
  }

  static F dot2(F sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }

  /// to[i] = bf16(x[i] - origin[i]) of 16 values; `origin` may be zero.
  static void store_bf16(F x, F origin, uint16_t* to) {
    const auto bits = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(S::sub(x, origin)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  }

  /// The keys of a block less its first: rows [64, head_dim], zero up to a multiple of 16 rows; the
  /// first key in float32. The keys of `next` are asked for meanwhile.
  static void read_keys(int head_dim, DType dtype, const BlockView& view, const BlockView& next,
                        uint16_t* rows, float* first) {
    const int64_t row_bytes = head_dim * block_bytes(dtype);
    const int n_padded = (view.n_keys + 15) / 16 * 16;
    for (int d = 0; d < head_dim; d += 16) S::store(first + d, load_kv(view.k, dtype, d));
    for (int j = 0; j < view.n_keys; ++j) {
      if (j < next.n_keys) prefetch_row<S>(next.k + j * row_bytes, row_bytes);
      for (int d = 0; d < head_dim; d += 16) {
        const int64_t at = int64_t{j} * head_dim + d;
        store_bf16(load_kv(view.k, dtype, at), S::load(first + d), rows + at);
      }
    }
    std::memset(rows + int64_t{view.n_keys} * head_dim, 0,
                static_cast<size_t>(n_padded - view.n_keys) * static_cast<size_t>(head_dim) * 2);
  }

  /// values [32, head_dim]: pairs of the values of keys 2i and 2i + 1; zero for a key that is not
  /// there. The values of `next` are asked for meanwhile.
  static void read_values(int head_dim, DType dtype, const BlockView& view, const BlockView& next,
                          uint32_t* values) {
    const int64_t row_bytes = head_dim * block_bytes(dtype);
    for (int j = 0; j < view.n_keys; j += 2) {
      if (j < next.n_keys) prefetch_row<S>(next.v + j * row_bytes, 2 * row_bytes);
      for (int d = 0; d < head_dim; d += 16) {
        const int64_t at = int64_t{j} * head_dim + d;
        const F a = load_kv(view.v, dtype, at);
        const F b = j + 1 < view.n_keys ? load_kv(view.v, dtype, at + head_dim) : S::zero();
        S::store_i(values + j / 2 * head_dim + d, pair_up(a, b));
      }
    }
  }

  /// keys [head_dim / 2, 64]: from rows of keys, the pairs of dimensions 2i and 2i + 1.
  static void pair_dimensions(const uint16_t* rows, int head_dim, int n_keys, uint32_t* keys) {
    for (int j = 0; j < n_keys; j += 16) {
      for (int i = 0; i < head_dim / 2; i += 8) {
        const uint16_t* from = rows + j * head_dim + 2 * i;
        S::transpose_16x8_apart(reinterpret_cast<const std::byte*>(from), head_dim * 2,
                                reinterpret_cast<std::byte*>(keys + i * kBlockTokens + j),
                                kBlockTokens * 4);
      }
    }
  }

  class TokenBlock {
   public:
    TokenBlock(const AttendRun& run, ScratchCursor* scratch)
        : run_(run),
          rows_(scratch->take<uint16_t>(int64_t{kBlockTokens} * run.head_dim)),
          values_(scratch->take<uint32_t>(int64_t{kBlockTokens} / 2 * run.head_dim)),
          first_(scratch->take<float>(run.head_dim)) {}

    /// Queries as pairs of dimensions: [n_bundles, head_dim / 2, 16].
    void read_queries(const TokenLanes& lanes, ScratchCursor* scratch) {
      const int64_t n_pairs = run_.head_dim / 2;
      queries_ = scratch->take<uint32_t>(lanes.n_bundles * n_pairs * TokenLanes::tokens);
      for (int bundle = 0; bundle < lanes.n_bundles; ++bundle) {
        const float* q = lanes.q_of(bundle);
        for (int64_t i = 0; i < n_pairs; ++i) {
          const F even = S::load(q + 2 * i * TokenLanes::tokens);
          const F odd = S::load(q + (2 * i + 1) * TokenLanes::tokens);
          S::store_i(queries_of(bundle) + i * TokenLanes::tokens, pair_up(even, odd));
        }
      }
    }

    void read(const BlockView& view) {
      read_keys(run_.head_dim, run_.kv_dtype, view, {}, rows_, first_);
      read_values(run_.head_dim, run_.kv_dtype, view, {}, values_);
    }

    void multiply_keys(const TokenLanes& lanes, int bundle, int, const BlockView& view, int n_keys,
                       float* logits) const {
      const F base = multiply_first(lanes.q_of(bundle));
      const F scale = S::set1(run_.scale * log2_e);
      const int n_pairs = run_.head_dim / 2;
      const uint32_t* q = queries_of(bundle);
      for (int j0 = 0; j0 < n_keys; j0 += at_once) {
        F dots[at_once];
#pragma GCC unroll 16
        for (int j = 0; j < at_once; ++j) dots[j] = base;
        const uint16_t* keys = rows_ + int64_t{j0} * run_.head_dim;
        for (int i = 0; i < n_pairs; ++i) {
          const __m512i q_i = S::load_i(q + i * TokenLanes::tokens);
#pragma GCC unroll 16
          for (int j = 0; j < at_once; ++j) {
            dots[j] = dot2(dots[j], q_i, S::broadcast_i(keys + j * run_.head_dim + 2 * i));
          }
        }
#pragma GCC unroll 16
        for (int j = 0; j < at_once; ++j) {
          const float bias = view.bias_of(j0 + j) * log2_e;
          S::store(logits + (j0 + j) * S::lanes, S::fma(dots[j], scale, S::set1(bias)));
        }
      }
    }

    void add_values(float* terms, int n_keys, F correction, float* o) const {
      const int n_pairs = (n_keys + 1) / 2;
      // Pairs take the place of the terms, always behind what is still to be read.
      for (int i = 0; i < n_pairs; ++i) {
        const F even = S::load(terms + 2 * i * S::lanes);
        const F odd = 2 * i + 1 < n_keys ? S::load(terms + (2 * i + 1) * S::lanes) : S::zero();
        S::store_i(terms + i * S::lanes, pair_up(even, odd));
      }
      for (int d0 = 0; d0 < run_.head_dim; d0 += at_once) {
        F sums[at_once];
#pragma GCC unroll 16
        for (int d = 0; d < at_once; ++d) {
          sums[d] = S::mul(S::load(o + (d0 + d) * TokenLanes::tokens), correction);
        }
        for (int i = 0; i < n_pairs; ++i) {
          const __m512i pair = S::load_i(terms + i * S::lanes);
          const uint32_t* values = values_ + int64_t{i} * run_.head_dim + d0;
#pragma GCC unroll 16
          for (int d = 0; d < at_once; ++d) {
            sums[d] = dot2(sums[d], pair, S::broadcast_i(values + d));
          }
        }
#pragma GCC unroll 16
        for (int d = 0; d < at_once; ++d) S::store(o + (d0 + d) * TokenLanes::tokens, sums[d]);
      }
    }

   private:
    static constexpr int at_once = 16;

    uint32_t* queries_of(int bundle) const {
      return queries_ + int64_t{bundle} * (run_.head_dim / 2) * TokenLanes::tokens;
    }

    /// q . k[0] of 16 tokens, in the order of S::horizontal_sum over every 16th dimension.
    F multiply_first(const float* q) const {
      F sums[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) sums[i] = S::zero();
      for (int d = 0; d < run_.head_dim; d += 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
          const F q_d = S::load(q + (d + i) * TokenLanes::tokens);
          sums[i] = S::fma(q_d, S::set1(first_[d + i]), sums[i]);
        }
      }
#pragma GCC unroll 4
      for (int half = 8; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) sums[i] = S::add(sums[i], sums[i + half]);
      }
      return sums[0];
    }

    const AttendRun& run_;
    uint16_t* rows_;    // [64, head_dim]
    uint32_t* values_;  // [32, head_dim]
    float* first_;      // [head_dim]
    uint32_t* queries_ = nullptr;
  };

  class KeyBlock {
   public:
    KeyBlock(const AttendRun& run, ScratchCursor* scratch)
        : run_(run),
          rows_(scratch->take<uint16_t>(int64_t{kBlockTokens} * run.head_dim)),
          keys_(scratch->take<uint32_t>(int64_t{kBlockTokens} / 2 * run.head_dim)),
          first_(scratch->take<float>(run.head_dim)),
          queries_(scratch->take<uint16_t>(int64_t{run.n_tokens} * run.group * run.head_dim)),
          pairs_(scratch->take<uint16_t>(int64_t{run.n_tokens} * run.group * kBlockTokens)) {
      for (int m = 0; m < run.n_tokens * run.group; ++m) {
        for (int d = 0; d < run.head_dim; d += 16) {
          store_bf16(S::load(query(m) + d), S::zero(), queries_ + m * run.head_dim + d);
        }
      }
    }

    void read(const BlockView& view, const BlockView& next) {
      read_keys(run_.head_dim, run_.kv_dtype, view, next, rows_, first_);
      pair_dimensions(rows_, run_.head_dim, view.n_keys, keys_);
    }

    /// The logits of query `m`; returns how many queries that is.
    int multiply(int m, const BlockView& view, float* terms) const {
      const int n_keys = view.visible(m / run_.group);
      F base_sum = S::zero();
      for (int d = 0; d < run_.head_dim; d += 16) {
        base_sum = S::fma(S::load(query(m) + d), S::load(first_ + d), base_sum);
      }
      const F base = S::set1(S::horizontal_sum(base_sum));
      const F scale = S::set1(run_.scale * log2_e);
      F dots[4] = {base, base, base, base};
      const uint16_t* q = queries_ + m * run_.head_dim;
      for (int i = 0; i < run_.head_dim / 2; ++i) {
        const __m512i q_i = S::broadcast_i(q + 2 * i);
        const uint32_t* keys = keys_ + i * kBlockTokens;
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) dots[v] = dot2(dots[v], q_i, S::load_i(keys + 16 * v));
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const F bias = S::mul(view.biases<S>(16 * v, n_keys), S::set1(log2_e));
        S::store(terms + 16 * v, S::fma(dots[v], scale, bias));
      }
      return 1;
    }

    /// The values of `next` are asked for meanwhile.
    void add_values(const BlockView& view, const BlockView& next, const float* terms,
                    const float* corrections) const {
      const int n_queries = run_.n_tokens * run_.group;
      for (int64_t i = 0; i < int64_t{n_queries} * kBlockTokens; i += 16) {
        store_bf16(S::load(terms + i), S::zero(), pairs_ + i);
      }
      for (int m = 0; m < n_queries;) {
        const int n_next = m == 0 ? next.n_keys : 0;
        switch (std::min(n_queries - m, 8)) {
          case 8:
            m += add_values_to<8>(view, next, n_next, corrections, m);
            break;
          case 7:
            m += add_values_to<7>(view, next, n_next, corrections, m);
            break;
          case 6:
            m += add_values_to<6>(view, next, n_next, corrections, m);
            break;
          case 5:
            m += add_values_to<5>(view, next, n_next, corrections, m);
            break;
          case 4:
            m += add_values_to<4>(view, next, n_next, corrections, m);
            break;
          case 3:
            m += add_values_to<3>(view, next, n_next, corrections, m);
            break;
          case 2:
            m += add_values_to<2>(view, next, n_next, corrections, m);
            break;
          default:
            m += add_values_to<1>(view, next, n_next, corrections, m);
            break;
        }
      }
    }

   private:
    const float* query(int m) const {
      const int64_t head =
          int64_t{m / run_.group} * run_.n_heads + run_.first_head + m % run_.group;
      return run_.q + head * run_.head_dim;
    }

    /// Adds to the states of kQueries queries; returns how many.
    template <int kQueries>
    int add_values_to(const BlockView& view, const BlockView& next, int n_next,
                      const float* corrections, int m) const {
      // As many dimensions at a time as leave registers for what is added.
      constexpr int vectors = kQueries <= 4 ? 4 : 2;
      int d = 0;
      for (; d + 16 * vectors <= run_.head_dim; d += 16 * vectors) {
        add_dimensions<kQueries, vectors>(view, next, d == 0 ? n_next : 0, corrections, {m, d});
      }
      for (; d < run_.head_dim; d += 16) {
        add_dimensions<kQueries, 1>(view, next, d == 0 ? n_next : 0, corrections, {m, d});
      }
      return kQueries;
    }

    struct Corner {
      int first_query;
      int first_dim;
    };

    template <int kQueries, int kVectors>
    void add_dimensions(const BlockView& view, const BlockView& next, int n_next,
                        const float* corrections, Corner at) const {
      const int64_t state_size = state_floats(run_.head_dim);
      const int64_t row = run_.head_dim;
      const int64_t row_bytes = row * block_bytes(run_.kv_dtype);
      float* state = run_.states + at.first_query * state_size + at.first_dim;
      const uint16_t* pairs = pairs_ + at.first_query * kBlockTokens;
      F sums[kQueries][kVectors];
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
        const F correction = S::set1(corrections[at.first_query + i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sums[i][v] = S::mul(S::load(state + i * state_size + 16 * v), correction);
        }
      }
      for (int j = 0; j < view.n_keys; j += 2) {
        if (j < n_next) prefetch_row<S>(next.v + j * row_bytes, 2 * row_bytes);
        __m512i values[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const int64_t from = j * row + at.first_dim + 16 * v;
          const F odd =
              j + 1 < view.n_keys ? load_kv(view.v, run_.kv_dtype, from + row) : S::zero();
          values[v] = pair_up(load_kv(view.v, run_.kv_dtype, from), odd);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kQueries; ++i) {
          const __m512i weights = S::broadcast_i(pairs + i * kBlockTokens + j);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sums[i][v] = dot2(sums[i][v], weights, values[v]);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) S::store(state + i * state_size + 16 * v, sums[i][v]);
      }
    }

    const AttendRun& run_;
    uint16_t* rows_;     // [64, head_dim]
    uint32_t* keys_;     // [head_dim / 2, 64] pairs of dimensions
    float* first_;       // [head_dim]
    uint16_t* queries_;  // [n_tokens, group, head_dim]
    uint16_t* pairs_;    // [n_tokens, group, 64] weights
  };

  /// One block against any of a few tokens' queries: keys in lanes, several queries at a time, whose states
  /// stay where they are.
  class RowBlock {
   public:
    /// `args` is an AttendRun or AttendPicks, and outlives this.
    template <typename Args>
    RowBlock(const Args& args, ScratchCursor* scratch)
        : q_(args.q + int64_t{args.first_head} * args.head_dim),
          token_stride_(int64_t{args.n_heads} * args.head_dim),
          states_(args.states),
          group_(args.group),
          head_dim_(args.head_dim),
          scale_(args.scale * log2_e),
          dtype_(args.kv_dtype),
          rows_(scratch->take<uint16_t>(int64_t{kBlockTokens} * args.head_dim)),
          keys_(scratch->take<uint32_t>(int64_t{kBlockTokens} / 2 * args.head_dim)),
          values_(scratch->take<uint32_t>(int64_t{kBlockTokens} / 2 * args.head_dim)),
          first_(scratch->take<float>(args.head_dim)),
          queries_(scratch->take<uint16_t>(int64_t{args.n_tokens} * args.group * args.head_dim)) {
      for (int m = 0; m < args.n_tokens * group_; ++m) {
        for (int d = 0; d < head_dim_; d += 16) {
          store_bf16(S::load(query(m) + d), S::zero(), queries_ + m * head_dim_ + d);
        }
      }
    }

    /// What is of `next` is asked for meanwhile.
    void read(const BlockView& view, const BlockView& next) {
      read_keys(head_dim_, dtype_, view, next, rows_, first_);
      pair_dimensions(rows_, head_dim_, view.n_keys, keys_);
      read_values(head_dim_, dtype_, view, next, values_);
    }

    /// Adds the block to the states of the queries of tokens token(0), token(1), ..., as far as each sees
    /// it.
    template <typename Token>
    void attend(const BlockView& view, int n_tokens, Token&& token) {
      const int n_queries = n_tokens * group_;
      for (int first = 0; first < n_queries;) {
        // Groups of about the same size.
        const int n_left = n_queries - first;
        const int n_groups = (n_left + at_once - 1) / at_once;
        const int n = (n_left + n_groups - 1) / n_groups;
        int queries[at_once];
        int n_keys[at_once];
        for (int i = 0; i < n; ++i) {
          const int t = token((first + i) / group_);
          queries[i] = t * group_ + (first + i) % group_;
          n_keys[i] = view.visible(t);
        }
        attend_up_to<at_once>(view, queries, n_keys, n);
        first += n;
      }
    }

   private:
    /// Four vectors of sums each, four of keys or values and what is broadcast fill the registers.
    static constexpr int at_once = 6;

    const float* query(int m) const {
      return q_ + m / group_ * token_stride_ + int64_t{m % group_} * head_dim_;
    }

    float* state(int m) const { return states_ + m * int64_t{state_floats(head_dim_)}; }

    template <int kQueries>
    void attend_up_to(const BlockView& view, const int* queries, const int* n_keys, int n) {
      if constexpr (kQueries > 1) {
        if (n < kQueries) return attend_up_to<kQueries - 1>(view, queries, n_keys, n);
      }
      alignas(64) float logits[kQueries][kBlockTokens];
      multiply_keys<kQueries>(view, queries, logits);
      alignas(64) uint16_t weights[kQueries][kBlockTokens];
      alignas(64) float corrections[S::lanes];
      weigh<kQueries>(queries, n_keys, logits, weights, corrections);
      int d = 0;
      for (; d + 64 <= head_dim_; d += 64) add_values<kQueries, 4>(view, queries, weights, corrections, d);
      for (; d < head_dim_; d += 16) add_values<kQueries, 1>(view, queries, weights, corrections, d);
    }

    /// What `op` makes of the lanes of x[i], in lane i, in the order of S::horizontal_sum: lanes j and j + 8, then j + 4,
    /// j + 2, j + 1. Other lanes have no meaning.
    template <int n, typename Op>
    [[gnu::always_inline]] static inline F across(const F* x, Op&& op) {
      static_assert(n <= 8);
      const auto halves = [&](int i) {
        const F a = x[std::min(i, n - 1)];
        const F b = x[std::min(i + 1, n - 1)];
        return op(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
      };
      const auto quarters = [&](int i) {
        const F a = halves(i);
        const F b = halves(i + 2);
        return op(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
      };
      // Four lanes of each x[i], in quarter i % 4 of a or b.
      const F a = quarters(0);
      const F b = n > 4 ? quarters(4) : a;
      const F two = op(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
      const F one = op(two, _mm512_shuffle_ps(two, two, 0xb1));
      const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
      return _mm512_permutexvar_ps(order, one);
    }

    /// As weigh_row(), for several queries: what is summed across lanes is summed for all of them at once. The terms as
    /// bfloat16.
    template <int kQueries>
    void weigh(const int* queries, const int* n_keys, float (*logits)[kBlockTokens], uint16_t (*weights)[kBlockTokens],
               float* corrections) const {
      alignas(64) float peaks[S::lanes] = {};
      alignas(64) float sums[S::lanes] = {};
      F each[kQueries];
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
        const float* at = state(queries[i]) + head_dim_;
        peaks[i] = at[0];
        sums[i] = at[1];
        float* of = logits[i];
        if (n_keys[i] < kBlockTokens) {
          for (int j = 0; j < kBlockTokens; j += S::lanes) {
            S::store(of + j, S::select_below(S::load(of + j), unseen<S>(), j, n_keys[i]));
          }
        }
        each[i] = S::max(S::max(S::load(of), S::load(of + 16)), S::max(S::load(of + 32), S::load(of + 48)));
      }
      const F before = S::load(peaks);
      const F top = S::max(before, across<kQueries>(each, [](F a, F b) { return S::max(a, b); }));
      const F correction = exp2_of<S>(S::sub(before, top));
      S::store(corrections, correction);
      S::store(peaks, top);
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
        const F peak = S::set1(peaks[i]);
        F terms[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) terms[v] = exp2_of<S>(S::sub(S::load(logits[i] + 16 * v), peak));
        each[i] = S::add(S::add(S::add(terms[0], terms[1]), terms[2]), terms[3]);
#pragma GCC unroll 2
        for (int v = 0; v < 4; v += 2) {
          S::store_i(weights[i] + 16 * v, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(terms[v + 1], terms[v])));
        }
      }
      S::store(sums, S::fma(S::load(sums), correction, across<kQueries>(each, [](F a, F b) { return S::add(a, b); })));
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
        float* at = state(queries[i]) + head_dim_;
        at[0] = peaks[i];
        at[1] = sums[i];
      }
    }

    template <int kQueries>
    void multiply_keys(const BlockView& view, const int* queries, float (*logits)[kBlockTokens]) const {
      const uint16_t* q[kQueries];
      F each[kQueries];
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
        q[i] = queries_ + int64_t{queries[i]} * head_dim_;
        const float* exact = query(queries[i]);
        each[i] = S::zero();
        for (int d = 0; d < head_dim_; d += 16) each[i] = S::fma(S::load(exact + d), S::load(first_ + d), each[i]);
      }
      alignas(64) float bases[S::lanes];
      S::store(bases, across<kQueries>(each, [](F a, F b) { return S::add(a, b); }));
      F dots[kQueries][4];
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) dots[i][v] = S::set1(bases[i]);
      }
      for (int pair = 0; pair < head_dim_ / 2; ++pair) {
        __m512i keys[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) keys[v] = S::load_i(keys_ + pair * kBlockTokens + 16 * v);
#pragma GCC unroll 6
        for (int i = 0; i < kQueries; ++i) {
          const __m512i q_i = S::broadcast_i(q[i] + 2 * pair);
#pragma GCC unroll 4
          for (int v = 0; v < 4; ++v) dots[i][v] = dot2(dots[i][v], q_i, keys[v]);
        }
      }
      const F scale = S::set1(scale_);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const F bias = S::mul(view.biases<S>(16 * v, view.n_keys), S::set1(log2_e));
#pragma GCC unroll 6
        for (int i = 0; i < kQueries; ++i) S::store(logits[i] + 16 * v, S::fma(dots[i][v], scale, bias));
      }
    }

    template <int kQueries, int kVectors>
    void add_values(const BlockView& view, const int* queries, const uint16_t (*weights)[kBlockTokens],
                    const float* corrections, int first_dim) const {
      F sums[kQueries][kVectors];
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
        const F correction = S::set1(corrections[i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sums[i][v] = S::mul(S::load(state(queries[i]) + first_dim + 16 * v), correction);
        }
      }
      for (int pair = 0; 2 * pair < view.n_keys; ++pair) {
        __m512i values[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          values[v] = S::load_i(values_ + int64_t{pair} * head_dim_ + first_dim + 16 * v);
        }
#pragma GCC unroll 6
        for (int i = 0; i < kQueries; ++i) {
          const __m512i weight = S::broadcast_i(weights[i] + 2 * pair);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sums[i][v] = dot2(sums[i][v], weight, values[v]);
        }
      }
#pragma GCC unroll 6
      for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          S::store(state(queries[i]) + first_dim + 16 * v, sums[i][v]);
        }
      }
    }

    const float* q_;  // of the first token's first query
    int64_t token_stride_;
    float* states_;
    int group_;
    int head_dim_;
    float scale_;  // in units of log 2
    DType dtype_;
    uint16_t* rows_;     // [64, head_dim]
    uint32_t* keys_;     // [head_dim / 2, 64] pairs of dimensions
    uint32_t* values_;   // [32, head_dim] pairs of keys
    float* first_;       // [head_dim]
    uint16_t* queries_;  // [n_tokens, group, head_dim]
  };
};

}  // namespace
}  // namespace nosa::cpu
