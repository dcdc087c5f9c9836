// Loops over the values of one token, for any vectors `S` (see simd_avx512.h for what they offer).
//
// A file for an instruction set includes this after its vectors. Everything is internal to that
// file: code compiled for one processor must never be linked into another's path.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends/cpu/token_tiles.h"
#include "core/rope_pairing.h"

namespace nosa::cpu {
namespace {

/// 2^x, to a relative 1e-7 for x in S's range of powers; below it, zero.
template <typename S>
[[gnu::always_inline]] inline typename S::F power_of_two(typename S::F whole,
                                                         typename S::F fraction) {
  // Least relative error of a polynomial of degree 5 on [-1/2, 1/2] that is exact at 0: 9e-8.
  typename S::F p = S::set1(0x1.5bba12p-10f);
  p = S::fma(p, fraction, S::set1(0x1.3cea88p-7f));
  p = S::fma(p, fraction, S::set1(0x1.c6b752p-5f));
  p = S::fma(p, fraction, S::set1(0x1.ebf9bcp-3f));
  p = S::fma(p, fraction, S::set1(0x1.62e42ap-1f));
  p = S::fma(p, fraction, S::set1(1.0f));
  return S::scale_by_power(p, whole);
}

template <typename S>
[[gnu::always_inline]] inline typename S::F exp2_of(typename S::F x) {
  x = S::max(x, S::set1(S::power_min));
  const typename S::F whole = S::round(x);
  return power_of_two<S>(whole, S::sub(x, whole));
}

/// e^x, held within float's range.
template <typename S>
[[gnu::always_inline]] inline typename S::F exp_of(typename S::F x) {
  constexpr float log2_e = 1.44269504f;
  x = S::min(S::max(x, S::set1(S::power_min / log2_e)), S::set1(S::power_max / log2_e));
  const typename S::F whole = S::round(S::mul(x, S::set1(log2_e)));
  // ln 2 in two parts, so that the difference keeps its last bits.
  typename S::F rest = S::fnma(whole, S::set1(0x1.62e4p-1f), x);
  rest = S::fnma(whole, S::set1(0x1.7f7d1cp-20f), rest);
  return power_of_two<S>(whole, S::mul(rest, S::set1(log2_e)));
}

/// Calls fn(p, n) for full vectors and then for what is left.
template <typename S, typename Fn>
[[gnu::always_inline]] inline void for_vectors(int64_t n, Fn&& fn) {
  int64_t i = 0;
  for (; i + S::lanes <= n; i += S::lanes) fn(i, S::lanes);
  if (i < n) fn(i, static_cast<int>(n - i));
}

template <typename S>
void rms_norm(const float* x, const float* weight, int n_embd, float eps, float* out) {
  typename S::F squares[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
  for_vectors<S>(n_embd, [&](int64_t i, int n) {
    const typename S::F v = S::load_n(x + i, n);
    typename S::F& sum = squares[i / S::lanes % 4];
    sum = S::fma(v, v, sum);
  });
  const typename S::F all = S::add(S::add(squares[0], squares[1]), S::add(squares[2], squares[3]));
  const float mean = S::horizontal_sum(all) / static_cast<float>(n_embd);
  const typename S::F factor = S::set1(1.0f / std::sqrt(mean + eps));
  for_vectors<S>(n_embd, [&](int64_t i, int n) {
    const typename S::F scaled = S::mul(S::load_n(x + i, n), factor);
    S::store_n(out + i, S::mul(scaled, S::load_n(weight + i, n)), n);
  });
}

template <typename S>
void rope(float* x, const float* cosine, const float* sine, int n_rotated, RopePairing pairing) {
  const int n_pairs = n_rotated / 2;
  if (pairing == RopePairing::kAdjacent) {
    for (int pair = 0; pair < n_pairs; ++pair) {
      const float a = x[2 * pair];
      const float b = x[2 * pair + 1];
      x[2 * pair] = a * cosine[pair] - b * sine[pair];
      x[2 * pair + 1] = b * cosine[pair] + a * sine[pair];
    }
    return;
  }
  for_vectors<S>(n_pairs, [&](int64_t i, int n) {
    const typename S::F a = S::load_n(x + i, n);
    const typename S::F b = S::load_n(x + n_pairs + i, n);
    const typename S::F c = S::load_n(cosine + i, n);
    const typename S::F s = S::load_n(sine + i, n);
    S::store_n(x + i, S::fnma(b, s, S::mul(a, c)), n);
    S::store_n(x + n_pairs + i, S::fma(a, s, S::mul(b, c)), n);
  });
}

template <typename S>
void silu_mul(float* gate, const float* up, int64_t n_values) {
  for_vectors<S>(n_values, [&](int64_t i, int n) {
    const typename S::F g = S::load_n(gate + i, n);
    const typename S::F e = exp_of<S>(S::sub(S::zero(), g));
    const typename S::F silu = S::div(g, S::add(S::set1(1.0f), e));
    S::store_n(gate + i, S::mul(silu, S::load_n(up + i, n)), n);
  });
}

template <typename S>
void add(float* x, const float* y, int64_t n_values) {
  for_vectors<S>(n_values, [&](int64_t i, int n) {
    S::store_n(x + i, S::add(S::load_n(x + i, n), S::load_n(y + i, n)), n);
  });
}

template <typename S>
void to_f16(const float* x, int64_t n_values, uint16_t* out) {
  constexpr float largest = 65504.0f;
  for_vectors<S>(n_values, [&](int64_t i, int n) {
    const typename S::F v = S::load_n(x + i, n);
    const typename S::F held = S::max(S::min(v, S::set1(largest)), S::set1(-largest));
    if (n == S::lanes) {
      S::store_f16(out + i, held);
      return;
    }
    uint16_t last[S::lanes];
    S::store_f16(last, held);
    std::memcpy(out + i, last, sizeof(uint16_t) * static_cast<size_t>(n));
  });
}

template <typename S>
void quantize_tile(const float* x, int width, int64_t n_cols, std::byte* out) {
  const QuantRecord record{width};
  for (int64_t block = 0; block < n_cols / quant_values; ++block) {
    std::byte* at = out + block * record.bytes();
    for (int t = 0; t < width; ++t) {
      const float* values = x + t * n_cols + block * quant_values;
      typename S::F peak = S::zero();
      for (int i = 0; i < quant_values; i += S::lanes) {
        peak = S::max(peak, S::abs(S::load(values + i)));
      }
      const float largest = S::horizontal_max(peak);
      const float scale = largest / 127.0f;
      int lo = 0;
      int hi = 0;
      S::quantize32(values, largest > 0.0f ? 127.0f / largest : 0.0f, at + t * quant_values, &lo,
                    &hi);
      const auto put = [&](int64_t array_at, auto value) {
        std::memcpy(at + array_at + 4 * t, &value, 4);
      };
      put(record.scale_at(), scale);
      put(record.start_at(), S::start_value(lo + hi));
      put(record.start_lo_at(), S::start_value(lo));
      put(record.start_hi_at(), S::start_value(hi));
      put(record.offset_at(), scale * static_cast<float>(lo + hi));
    }
  }
}

template <typename S>
void transpose_tile(const float* x, int width, int64_t n_cols, float* out) {
  for (int64_t c = 0; c < n_cols; ++c) {
    for (int t = 0; t < width; ++t) out[c * width + t] = x[t * n_cols + c];
  }
}

}  // namespace
}  // namespace nosa::cpu
