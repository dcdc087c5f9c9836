// The first stage of selection for any vectors `S`: queries against compressed keys.
//
// A file for an instruction set includes this after its vectors. Everything is internal to that
// file.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/elementwise.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {
namespace {

/// 16 keys as columns, float32: [head_dim, 16]. Keys from `n_keys` on are zero.
template <typename S>
void key_columns(const WindowLogits& args, const std::byte* keys, int n_keys, float* columns) {
  constexpr int tile = 16;
  alignas(64) float rows[tile * WindowLogits::head_dim_max];
  const int64_t n = int64_t{n_keys} * args.head_dim;
  for (int64_t i = 0; i < n; i += S::lanes) {
    S::store(rows + i, args.kv_dtype == DType::kF32
                           ? S::load(reinterpret_cast<const float*>(keys) + i)
                           : S::load_f16(reinterpret_cast<const uint16_t*>(keys) + i));
  }
  std::fill(rows + n, rows + int64_t{tile} * args.head_dim, 0.0f);
  for (int d = 0; d < args.head_dim; d += 8) {
    S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows + d), args.head_dim * 4,
                         reinterpret_cast<std::byte*>(columns + d * tile));
  }
}

/// kQueries queries against 16 keys, each product one chain of fused additions over the dimensions.
template <typename S, int kQueries>
[[gnu::always_inline]] inline void key_dots(const WindowLogits& args, int first_query,
                                            const float* columns, int64_t window, int n_keys) {
  constexpr int parts = 16 / S::lanes;
  const float* q[kQueries];
  typename S::F sums[kQueries][parts];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    q[i] = args.query(first_query + i);
#pragma GCC unroll 4
    for (int part = 0; part < parts; ++part) sums[i][part] = S::zero();
  }
  for (int d = 0; d < args.head_dim; ++d) {
    typename S::F keys[parts];
#pragma GCC unroll 4
    for (int part = 0; part < parts; ++part) keys[part] = S::load(columns + 16 * d + part * S::lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kQueries; ++i) {
      const typename S::F q_d = S::set1(q[i][d]);
#pragma GCC unroll 4
      for (int part = 0; part < parts; ++part) sums[i][part] = S::fma(q_d, keys[part], sums[i][part]);
    }
  }
  const typename S::F scale = S::set1(args.scale);
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    float* to = args.logits + (first_query + i) * args.logits_stride + window;
#pragma GCC unroll 4
    for (int part = 0; part < parts; ++part) {
      S::store_n(to + part * S::lanes, S::mul(sums[i][part], scale),
                 std::max(0, n_keys - part * S::lanes));
    }
  }
}

/// The dot products of what is left from `first_query` on, at most kQueries.
template <typename S, int kQueries>
void dots_of_up_to(const WindowLogits& args, int first_query, const float* columns, int64_t window,
                   int n_keys) {
  if constexpr (kQueries > 1) {
    if (args.n_queries - first_query < kQueries) {
      return dots_of_up_to<S, kQueries - 1>(args, first_query, columns, window, n_keys);
    }
  }
  key_dots<S, kQueries>(args, first_query, columns, window, n_keys);
}

template <typename S>
void window_logits(const WindowLogits& args) {
  // As many sums as leave registers for the keys.
  constexpr int most = S::lanes == 16 ? 8 : 4;
  alignas(64) float columns[16 * WindowLogits::head_dim_max];
  const size_t key_bytes = size_t(args.head_dim) * (args.kv_dtype == DType::kF32 ? 4 : 2);
  for (int32_t m = 0; m < args.n_windows; m += 16) {
    const int n_keys = std::min(16, args.n_windows - m);
    key_columns<S>(args, args.keys + size_t(m) * key_bytes, n_keys, columns);
    for (int i = 0; i < args.n_queries; i += most) {
      dots_of_up_to<S, most>(args, i, columns, m, n_keys);
    }
  }
}

template <typename S>
void add_softmax(float* logits, int64_t n, float* out) {
  float peak = logits[0];
  for_vectors<S>(n, [&](int64_t i, int width) {
    const typename S::F x =
        S::select_below(S::load_n(logits + i, width), S::set1(logits[0]), 0, width);
    peak = std::max(peak, S::horizontal_max(x));
  });
  typename S::F sums = S::zero();
  for_vectors<S>(n, [&](int64_t i, int width) {
    typename S::F term = exp_of<S>(S::sub(S::load_n(logits + i, width), S::set1(peak)));
    term = S::select_below(term, S::zero(), 0, width);
    S::store_n(logits + i, term, width);
    sums = S::add(sums, term);
  });
  const typename S::F factor = S::set1(1.0f / S::horizontal_sum(sums));
  for_vectors<S>(n, [&](int64_t i, int width) {
    S::store_n(out + i, S::fma(S::load_n(logits + i, width), factor, S::load_n(out + i, width)),
               width);
  });
}

}  // namespace
}  // namespace nosa::cpu
