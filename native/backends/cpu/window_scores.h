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

/// kGroup dot products of one key with as many queries.
template <typename S, int kGroup>
[[gnu::always_inline]] inline void key_dots(const WindowLogits& args, int first_query,
                                            const std::byte* key, int64_t window) {
  typename S::F sums[kGroup];
  for (int g = 0; g < kGroup; ++g) sums[g] = S::zero();
  for (int i = 0; i < args.head_dim; i += S::lanes) {
    const typename S::F k = args.kv_dtype == DType::kF32
                                ? S::load(reinterpret_cast<const float*>(key) + i)
                                : S::load_f16(reinterpret_cast<const uint16_t*>(key) + i);
    for (int g = 0; g < kGroup; ++g) {
      const float* q = args.q + int64_t{first_query + g} * args.head_dim;
      sums[g] = S::fma(S::load(q + i), k, sums[g]);
    }
  }
  for (int g = 0; g < kGroup; ++g) {
    args.logits[(first_query + g) * args.logits_stride + window] =
        S::horizontal_sum(sums[g]) * args.scale;
  }
}

template <typename S>
void window_logits(const WindowLogits& args) {
  const size_t key_bytes = size_t(args.head_dim) * (args.kv_dtype == DType::kF32 ? 4 : 2);
  for (int32_t m = 0; m < args.n_windows; ++m) {
    const std::byte* key = args.keys + size_t(m) * key_bytes;
    int g = 0;
    for (; g + 8 <= args.group; g += 8) key_dots<S, 8>(args, g, key, m);
    for (; g + 4 <= args.group; g += 4) key_dots<S, 4>(args, g, key, m);
    for (; g < args.group; ++g) key_dots<S, 1>(args, g, key, m);
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
