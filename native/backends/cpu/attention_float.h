// The arithmetic of attention in float32: q . k is one chain of fused additions over the
// dimensions, and values are added key by key.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

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
          rows_(scratch->take<float>(int64_t{kBlockTokens} * run.head_dim)),
          keys_(scratch->take<float>(int64_t{kBlockTokens} * run.head_dim)) {}

    /// `next` is asked for meanwhile: a step with few tokens is as fast as the memory.
    void read(const BlockView& view, const BlockView& next) {
      const int head_dim = run_.head_dim;
      const int64_t row_bytes = head_dim * block_bytes(run_.kv_dtype);
      for (int j = 0; j < view.n_keys; ++j) {
        if (j < next.n_keys) prefetch_row<S>(next.k + j * row_bytes, row_bytes);
        expand_rows<S>(view.k + j * row_bytes, run_.kv_dtype, 1, head_dim, rows_ + j * head_dim);
      }
      const int n_padded = (view.n_keys + 15) / 16 * 16;
      std::fill(rows_ + view.n_keys * head_dim, rows_ + n_padded * head_dim, 0.0f);
      for (int j = 0; j < n_padded; j += 16) {
        for (int d = 0; d < head_dim; d += 8) {
          alignas(64) float columns[8][16];
          S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows_ + j * head_dim + d),
                               head_dim * 4, reinterpret_cast<std::byte*>(columns));
          for (int i = 0; i < 8; ++i) {
            for (int lane = 0; lane < 16; lane += S::lanes) {
              S::store(keys_ + (d + i) * kBlockTokens + j + lane, S::load(columns[i] + lane));
            }
          }
        }
      }
    }

    void multiply_query(int m, const BlockView& view, int n_keys, float* terms) const {
      const int64_t query =
          int64_t{m / run_.group} * run_.n_heads + run_.first_head + m % run_.group;
      const float* q = run_.q + query * run_.head_dim;
      const F scale = S::set1(run_.scale * log2_e);
      for (int j0 = 0; j0 < kBlockTokens; j0 += vectors * S::lanes) {
        F dots[vectors];
#pragma GCC unroll 4
        for (int i = 0; i < vectors; ++i) dots[i] = S::zero();
        if (j0 < n_keys) {
          for (int d = 0; d < run_.head_dim; ++d) {
            const F q_d = S::set1(q[d]);
#pragma GCC unroll 4
            for (int i = 0; i < vectors; ++i) {
              const float* at = keys_ + d * kBlockTokens + j0 + i * S::lanes;
              dots[i] = S::fma(q_d, S::load(at), dots[i]);
            }
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < vectors; ++i) {
          const int j = j0 + i * S::lanes;
          const F bias = S::mul(view.template biases<S>(j, n_keys), S::set1(log2_e));
          S::store(terms + j, S::fma(dots[i], scale, bias));
        }
      }
    }

    void add_values(const BlockView& view, const BlockView&, const float* terms,
                    const float* corrections) const {
      const int n_queries = run_.n_tokens * run_.group;
      for (int m = 0; m < n_queries;) {
        const float* first = terms + m * kBlockTokens;
        if (n_queries - m >= 4) {
          add_values_to<4>(view, first, corrections + m, m);
          m += 4;
        } else if (n_queries - m >= 2) {
          add_values_to<2>(view, first, corrections + m, m);
          m += 2;
        } else {
          add_values_to<1>(view, first, corrections + m, m);
          m += 1;
        }
      }
    }

   private:
    static constexpr int vectors = 4;

    template <int kQueries>
    void add_values_to(const BlockView& view, const float* terms, const float* corrections,
                       int m) const {
      constexpr int parts = 16 / S::lanes;
      const int64_t state_size = state_floats(run_.head_dim);
      float* state = run_.states + m * state_size;
      for (int d = 0; d < run_.head_dim; d += 16) {
        F sums[kQueries][parts];
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            const float* at = state + i * state_size + d + v * S::lanes;
            sums[i][v] = S::mul(S::load(at), S::set1(corrections[i]));
          }
        }
        for (int j = 0; j < view.n_keys; ++j) {
          F values[parts];
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            const int64_t at = int64_t{j} * run_.head_dim + d + v * S::lanes;
            values[v] = run_.kv_dtype == DType::kF32
                            ? S::load(reinterpret_cast<const float*>(view.v) + at)
                            : S::load_f16(reinterpret_cast<const uint16_t*>(view.v) + at);
          }
#pragma GCC unroll 4
          for (int i = 0; i < kQueries; ++i) {
            const F term = S::set1(terms[i * kBlockTokens + j]);
#pragma GCC unroll 4
            for (int v = 0; v < parts; ++v) sums[i][v] = S::fma(term, values[v], sums[i][v]);
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < parts; ++v) {
            S::store(state + i * state_size + d + v * S::lanes, sums[i][v]);
          }
        }
      }
    }

    const AttendRun& run_;
    float* rows_;  // [64, head_dim]
    float* keys_;  // [head_dim, 64]
  };
};

template <typename S>
void attend_float(const AttendRun& run) {
  Attention<S, FloatMath<S>>::run(run);
}

}  // namespace
}  // namespace nosa::cpu
