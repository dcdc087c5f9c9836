// The arithmetic of attention in float32: q . k is one chain of fused additions over the
// dimensions, and values are added key by key.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "backends/cpu/attention_tile.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {
namespace {

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

template <typename S>
struct FloatMath {
  using F = typename S::F;

  /// One block against many tokens.
  class TokenBlock {
   public:
    TokenBlock(const AttendRun& run, ScratchCursor* scratch)
        : run_(run),
          k_(scratch->take<float>(int64_t{kBlockTokens} * run.head_dim)),
          v_(scratch->take<float>(int64_t{kBlockTokens} * run.head_dim)) {}

    void read_queries(const TokenLanes&, ScratchCursor*) {}

    void read(const BlockView& view) {
      const int head_dim = run_.head_dim;
      expand_rows<S>(view.k, run_.kv_dtype, view.n_keys, head_dim, k_);
      expand_rows<S>(view.v, run_.kv_dtype, view.n_keys, head_dim, v_);
      const int n_padded = (view.n_keys + at_once - 1) / at_once * at_once;
      std::fill(k_ + view.n_keys * head_dim, k_ + n_padded * head_dim, 0.0f);
    }

    /// logits[j] = log2(e) (scale q . k[j] + bias[j]) for the tokens of one vector
    void multiply_keys(const TokenLanes& lanes, int bundle, int lane, const BlockView& view,
                       int n_keys, float* logits) const {
      const float* q = lanes.q_of(bundle) + lane;
      const F scale = S::set1(run_.scale * log2_e);
      for (int j0 = 0; j0 < n_keys; j0 += at_once) {
        F dots[at_once];
#pragma GCC unroll 16
        for (int j = 0; j < at_once; ++j) dots[j] = S::zero();
        const float* keys = k_ + int64_t{j0} * run_.head_dim;
        for (int d = 0; d < run_.head_dim; ++d) {
          const F q_d = S::load(q + d * TokenLanes::tokens);
#pragma GCC unroll 16
          for (int j = 0; j < at_once; ++j) {
            dots[j] = S::fma(q_d, S::set1(keys[j * run_.head_dim + d]), dots[j]);
          }
        }
#pragma GCC unroll 16
        for (int j = 0; j < at_once; ++j) {
          const float bias = view.bias_of(j0 + j) * log2_e;
          S::store(logits + (j0 + j) * S::lanes, S::fma(dots[j], scale, S::set1(bias)));
        }
      }
    }

    /// o[d] = correction o[d] + sum_j terms[j] v[j, d]
    void add_values(const float* terms, int n_keys, F correction, float* o) const {
      for (int d0 = 0; d0 < run_.head_dim; d0 += at_once) {
        F sums[at_once];
#pragma GCC unroll 16
        for (int d = 0; d < at_once; ++d) {
          sums[d] = S::mul(S::load(o + (d0 + d) * TokenLanes::tokens), correction);
        }
        for (int j = 0; j < n_keys; ++j) {
          const F term = S::load(terms + j * S::lanes);
          const float* values = v_ + int64_t{j} * run_.head_dim + d0;
#pragma GCC unroll 16
          for (int d = 0; d < at_once; ++d) sums[d] = S::fma(term, S::set1(values[d]), sums[d]);
        }
#pragma GCC unroll 16
        for (int d = 0; d < at_once; ++d) S::store(o + (d0 + d) * TokenLanes::tokens, sums[d]);
      }
    }

   private:
    static constexpr int at_once = S::broadcast_sums;

    const AttendRun& run_;
    float* k_;  // [64, head_dim]
    float* v_;  // [64, head_dim]
  };

  /// One block against one or a few tokens' queries.
  class KeyBlock {
   public:
    KeyBlock(const AttendRun& run, ScratchCursor* scratch)
        : run_(run),
          rows_(scratch->take<float>(int64_t{16} * run.head_dim)),
          keys_(scratch->take<float>(int64_t{kBlockTokens} * run.head_dim)) {}

    /// `next` is asked for meanwhile: a step with few tokens is as fast as the memory.
    void read(const BlockView& view, const BlockView& next) {
      const int head_dim = run_.head_dim;
      const int64_t row_bytes = head_dim * block_bytes(run_.kv_dtype);
      // Row by row while others are read: a burst would be more than the processor keeps track of.
      int next_row = 0;
      const auto prefetch_rows = [&](int n) {
        for (n = std::min(next_row + n, next.n_keys); next_row < n; ++next_row) {
          prefetch_row<S>(next.k + next_row * row_bytes, row_bytes);
        }
      };
      for (int j = 0; j < view.n_keys; j += 16) {
        const int n_rows = std::min(16, view.n_keys - j);
        const std::byte* rows = view.k + j * row_bytes;
        if constexpr (reads_halves) {
          if (run_.kv_dtype != DType::kF32) {
            if (n_rows < 16) rows = padded(rows, n_rows, row_bytes);
            for (int d = 0; d < head_dim; d += 8) {
              prefetch_rows(2);
              S::transpose_f16_16x8_to(rows + 2 * d, row_bytes, keys_ + d * kBlockTokens + j,
                                       kBlockTokens);
            }
            continue;
          }
        }
        prefetch_rows(16);
        expand_rows<S>(rows, run_.kv_dtype, n_rows, head_dim, rows_);
        std::fill(rows_ + n_rows * head_dim, rows_ + 16 * head_dim, 0.0f);
        for (int d = 0; d < head_dim; d += 8) {
          alignas(64) float columns[8][16];
          S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows_ + d), head_dim * 4,
                               reinterpret_cast<std::byte*>(columns));
          for (int i = 0; i < 8; ++i) {
            for (int lane = 0; lane < 16; lane += S::lanes) {
              S::store(keys_ + (d + i) * kBlockTokens + j + lane, S::load(columns[i] + lane));
            }
          }
        }
      }
    }

    /// terms[i, j] = log2(e) (scale q . k[j] + bias[j]) of the queries from `m` on, for at least
    /// the keys that they see; returns how many queries.
    int multiply(int m, const BlockView& view, float* terms) const {
      const int n = std::min(4, run_.n_tokens * run_.group - m);
      const int n_keys = view.visible((m + n - 1) / run_.group);
      if (n == 4) multiply_queries<4>(m, view, n_keys, terms);
      if (n == 3) multiply_queries<3>(m, view, n_keys, terms);
      if (n == 2) multiply_queries<2>(m, view, n_keys, terms);
      if (n == 1) multiply_queries<1>(m, view, n_keys, terms);
      return n;
    }

    /// The values of `next` are asked for meanwhile.
    void add_values(const BlockView& view, const BlockView& next, const float* terms,
                    const float* corrections) const {
      const int n_queries = run_.n_tokens * run_.group;
      for (int m = 0; m < n_queries;) {
        const int n = std::min(8, n_queries - m);
        const float* first = terms + m * kBlockTokens;
        const int n_next = m == 0 ? next.n_keys : 0;
        [&]<int... i>(std::integer_sequence<int, i...>) {
          ((n == i + 1 ? add_values_to<i + 1>(view, next, n_next, first, corrections + m, m)
                       : void()),
           ...);
        }(std::make_integer_sequence<int, 8>());
        m += n;
      }
    }

   private:
    /// Whether there are keys in 16 bits that are turned as such, before they are expanded.
    static constexpr bool reads_halves =
        requires(const std::byte* rows, float* out) { S::transpose_f16_16x8_to(rows, 0, out, 0); };

    /// 16 rows, of which those from `n_rows` on are zero.
    const std::byte* padded(const std::byte* rows, int n_rows, int64_t row_bytes) {
      auto* copy = reinterpret_cast<std::byte*>(rows_);
      std::memcpy(copy, rows, static_cast<size_t>(n_rows * row_bytes));
      std::memset(copy + n_rows * row_bytes, 0, static_cast<size_t>((16 - n_rows) * row_bytes));
      return copy;
    }

    template <int kQueries>
    void multiply_queries(int m, const BlockView& view, int n_keys, float* terms) const {
      constexpr int vectors = kQueries == 1 ? 4 : 2;  // sums that are added to in turns
      const float* q[kQueries];
      for (int i = 0; i < kQueries; ++i) {
        const int64_t token = (m + i) / run_.group;
        q[i] = run_.q +
               (token * run_.n_heads + run_.first_head + (m + i) % run_.group) * run_.head_dim;
      }
      const F scale = S::set1(run_.scale * log2_e);
      for (int j0 = 0; j0 < kBlockTokens; j0 += vectors * S::lanes) {
        F dots[kQueries][vectors];
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) dots[i][v] = S::zero();
        }
        for (int d = 0; j0 < n_keys && d < run_.head_dim; ++d) {
          F keys[vectors];
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) {
            keys[v] = S::load(keys_ + d * kBlockTokens + j0 + v * S::lanes);
          }
#pragma GCC unroll 4
          for (int i = 0; i < kQueries; ++i) {
            const F q_d = S::set1(q[i][d]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) dots[i][v] = S::fma(q_d, keys[v], dots[i][v]);
          }
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const int j = j0 + v * S::lanes;
          const F bias = S::mul(view.template biases<S>(j, n_keys), S::set1(log2_e));
#pragma GCC unroll 4
          for (int i = 0; i < kQueries; ++i) {
            S::store(terms + i * kBlockTokens + j, S::fma(dots[i][v], scale, bias));
          }
        }
      }
    }

    template <int kQueries>
    void add_values_to(const BlockView& view, const BlockView& next, int n_next, const float* terms,
                       const float* corrections, int m) const {
      // Some eight sums that are added to in turns.
      constexpr int parts = kQueries > 4 ? std::max(1, 8 / S::lanes) : 16 / S::lanes;
      const int64_t row_bytes = run_.head_dim * block_bytes(run_.kv_dtype);
      const int64_t state_size = state_floats(run_.head_dim);
      float* state = run_.states + m * state_size;
      for (int d = 0; d < run_.head_dim; d += parts * S::lanes) {
        F sums[kQueries][parts];
#pragma GCC unroll 8
        for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            const float* at = state + i * state_size + d + v * S::lanes;
            sums[i][v] = S::mul(S::load(at), S::set1(corrections[i]));
          }
        }
        for (int j = 0; j < view.n_keys; ++j) {
          if (d == 0 && j < n_next) prefetch_row<S>(next.v + j * row_bytes, row_bytes);
          F values[parts];
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            const int64_t at = int64_t{j} * run_.head_dim + d + v * S::lanes;
            values[v] = run_.kv_dtype == DType::kF32
                            ? S::load(reinterpret_cast<const float*>(view.v) + at)
                            : S::load_f16(reinterpret_cast<const uint16_t*>(view.v) + at);
          }
#pragma GCC unroll 8
          for (int i = 0; i < kQueries; ++i) {
            const F term = S::set1(terms[i * kBlockTokens + j]);
#pragma GCC unroll 4
            for (int v = 0; v < parts; ++v) sums[i][v] = S::fma(term, values[v], sums[i][v]);
          }
        }
#pragma GCC unroll 8
        for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            S::store(state + i * state_size + d + v * S::lanes, sums[i][v]);
          }
        }
      }
    }

    const AttendRun& run_;
    float* rows_;  // [16, head_dim]
    float* keys_;  // [head_dim, 64]
  };
};

template <typename S>
void attend_float(const AttendRun& run) {
  Attention<S, FloatMath<S>>::run(run);
}

}  // namespace
}  // namespace nosa::cpu
