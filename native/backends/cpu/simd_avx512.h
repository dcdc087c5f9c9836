// The vectors of AVX-512, as the shared inner loops name them. Only ops_avx512.cpp includes this.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nosa::cpu {
namespace {

struct Avx512 {
  static constexpr int lanes = 16;
  static constexpr int tile_tokens = 16;   // accumulators that fit beside a block of weights
  static constexpr int broadcast_sums = 16;
  /// Products are unsigned times signed: signed weights are moved up by this and `start` undoes it.
  static constexpr int weight_shift = 128;

  using F = __m512;
  using I = __m512i;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store_n(float* p, F x, int n) { _mm512_mask_storeu_ps(p, mask(n), x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  /// a b + c, rounded once.
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  /// c - a b, rounded once.
  static F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static F round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// a 2^n for whole n in [-160, 128]; zero below float's range.
  static F scale_by_power(F a, F n) { return _mm512_scalef_ps(a, n); }
  static constexpr float power_min = -160.0f;
  static constexpr float power_max = 127.9f;
  /// a where lane index + first < n, else b.
  static F select_below(F a, F b, int first, int n) {
    return _mm512_mask_blend_ps(mask(n - first), b, a);
  }
  /// a where the lane's n is above j, else b.
  static F select_above(F a, F b, I n, int j) {
    return _mm512_mask_blend_ps(_mm512_cmpgt_epi32_mask(n, _mm512_set1_epi32(j)), b, a);
  }

  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_f16_n(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static F load_bf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store_f16(uint16_t* p, F x) {
    const __m256i bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
  }
  static float f16(uint16_t bits) { return _cvtsh_ss(bits); }

  static float horizontal_max(F a) { return _mm512_reduce_max_ps(a); }
  /// Lanes i and i + 8, then i + 4, i + 2, i + 1.
  static float horizontal_sum(F a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }

  static I load_i(const void* p) { return _mm512_loadu_si512(p); }
  static I zero_i() { return _mm512_setzero_si512(); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  /// A 32-bit value in every lane.
  static I broadcast_i(const void* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    return _mm512_set1_epi32(bits);
  }
  static F broadcast(const void* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return _mm512_set1_ps(value);
  }
  /// sum + the product of each lane's four weights with the four values at `p`.
  template <bool kSmall>
  static I dot4(I sum, I weights, const std::byte* p) {
    return _mm512_dpbusd_epi32(sum, weights, broadcast_i(p));
  }
  /// What the sum of a symmetric block starts from.
  static I start(const std::byte* p, int) { return broadcast_i(p); }
  static int32_t start_value(int sum) { return -weight_shift * sum; }

  /// Rounds 32 values times `factor` to int8, stores them; returns their sums by half.
  static void quantize32(const float* x, float factor, std::byte* out, int* sum_lo, int* sum_hi) {
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(factor)));
    const __m512i b =
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), _mm512_set1_ps(factor)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm512_cvtsepi32_epi8(b));
    *sum_lo = _mm512_reduce_add_epi32(a);
    *sum_hi = _mm512_reduce_add_epi32(b);
  }

  /// From 16 rows of 8 words, `stride` bytes apart, to 8 columns of 16 words.
  [[gnu::always_inline]] static inline void transpose_16x8(const std::byte* rows, int64_t stride,
                                                           I (&out)[8]) {
    const auto row = [&](int r) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + r * stride));
    };
    __m512i z[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      z[r] = _mm512_inserti64x4(_mm512_castsi256_si512(row(r)), row(r + 8), 1);
    }
    transpose_words(z, out);
  }

  /// z[r] holds 8 words of row r and 8 of row r + 8.
  [[gnu::always_inline]] static inline void transpose_words(const __m512i (&z)[8], I (&out)[8]) {
    __m512i c[8];
#pragma GCC unroll 2
    for (int h = 0; h < 8; h += 4) {
      const __m512i lo01 = _mm512_unpacklo_epi32(z[h], z[h + 1]);
      const __m512i hi01 = _mm512_unpackhi_epi32(z[h], z[h + 1]);
      const __m512i lo23 = _mm512_unpacklo_epi32(z[h + 2], z[h + 3]);
      const __m512i hi23 = _mm512_unpackhi_epi32(z[h + 2], z[h + 3]);
      c[h] = _mm512_unpacklo_epi64(lo01, lo23);
      c[h + 1] = _mm512_unpackhi_epi64(lo01, lo23);
      c[h + 2] = _mm512_unpacklo_epi64(hi01, hi23);
      c[h + 3] = _mm512_unpackhi_epi64(hi01, hi23);
    }
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      out[j] = _mm512_permutex2var_epi64(c[j], first, c[j + 4]);
      out[j + 4] = _mm512_permutex2var_epi64(c[j], second, c[j + 4]);
    }
  }

  static void transpose_16x8_to(const std::byte* rows, int64_t stride, std::byte* out) {
    I columns[8];
    transpose_16x8(rows, stride, columns);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) _mm512_storeu_si512(out + 64 * j, columns[j]);
  }

 private:
  static __mmask16 mask(int n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffu : (n <= 0 ? 0u : (1u << n) - 1u));
  }
};

}  // namespace
}  // namespace nosa::cpu
