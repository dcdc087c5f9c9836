// Low-rank updates, for any vectors `S`: two thin products beside that of the weight.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/ops.h"
#include "core/half.h"

namespace nosa::cpu {
namespace {

/// Sums that are kept in registers at a time.
inline constexpr int ranks_at_once = 8;

template <typename S, int kRanks>
void low_rank_dots(const uint16_t* a, const float* x, int64_t n_cols, float scale, float* inner) {
  typename S::F sums[kRanks];
#pragma GCC unroll 8
  for (int i = 0; i < kRanks; ++i) sums[i] = S::zero();
  int64_t c = 0;
  for (; c + S::lanes <= n_cols; c += S::lanes) {
    const typename S::F v = S::load(x + c);
#pragma GCC unroll 8
    for (int i = 0; i < kRanks; ++i) sums[i] = S::fma(S::load_bf16(a + i * n_cols + c), v, sums[i]);
  }
  for (int i = 0; i < kRanks; ++i) {
    float sum = S::horizontal_sum(sums[i]);
    for (int64_t rest = c; rest < n_cols; ++rest) sum += bf16_to_f32(a[i * n_cols + rest]) * x[rest];
    inner[i] = scale * sum;
  }
}

template <typename S>
void low_rank_inner(const LowRankUpdate& update, const float* x, int64_t n_cols, float* inner) {
  int i = 0;
  for (; i + ranks_at_once <= update.rank; i += ranks_at_once) {
    low_rank_dots<S, ranks_at_once>(update.a + i * n_cols, x, n_cols, update.scale, inner + i);
  }
  for (; i < update.rank; ++i) {
    low_rank_dots<S, 1>(update.a + i * n_cols, x, n_cols, update.scale, inner + i);
  }
}

/// Adds the part of the ranks [first, first + kRanks) to one vector of rows, all tokens.
template <typename S, int kRanks>
void add_ranks(const LowRankSlice& slice, int first, int64_t row) {
  typename S::F b[kRanks];
#pragma GCC unroll 8
  for (int i = 0; i < kRanks; ++i) b[i] = S::load_bf16(slice.b + (first + i) * slice.n_rows + row);
  for (int t = 0; t < slice.n_tokens; ++t) {
    const float* inner = slice.inner + int64_t{t} * slice.rank + first;
    float* out = slice.out + t * slice.n_rows + row;
    typename S::F sum = S::load(out);
#pragma GCC unroll 8
    for (int i = 0; i < kRanks; ++i) sum = S::fma(b[i], S::set1(inner[i]), sum);
    S::store(out, sum);
  }
}

template <typename S>
void add_low_rank(const LowRankSlice& slice) {
  int64_t row = slice.row_begin;
  for (; row + S::lanes <= slice.row_end; row += S::lanes) {
    int i = 0;
    for (; i + ranks_at_once <= slice.rank; i += ranks_at_once) {
      add_ranks<S, ranks_at_once>(slice, i, row);
    }
    for (; i < slice.rank; ++i) add_ranks<S, 1>(slice, i, row);
  }
  for (; row < slice.row_end; ++row) {
    for (int t = 0; t < slice.n_tokens; ++t) {
      float& out = slice.out[t * slice.n_rows + row];
      for (int i = 0; i < slice.rank; ++i) {
        out += bf16_to_f32(slice.b[i * slice.n_rows + row]) * slice.inner[t * slice.rank + i];
      }
    }
  }
}

}  // namespace
}  // namespace nosa::cpu
