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
  static constexpr int tile_tokens = 16;  // accumulators that fit beside a block of weights
  static constexpr int broadcast_sums = 16;
  /// Products are unsigned times signed: signed weights are moved up by half the range of a byte,
  /// and `start` undoes it.
  static constexpr int level_shift(int) { return 128; }

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
  static F load_bf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store_f16(uint16_t* p, F x) {
    const __m256i bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
  }

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
  static int32_t start_value(int sum) { return -level_shift(0) * sum; }

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

  /// Into the second cache: requests to it are many more than the first keeps track of. Always
  /// inline, for GCC takes a function that does nothing else for one that does nothing, and drops its calls.
  [[gnu::always_inline]] static inline void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
  /// Into the first cache.
  [[gnu::always_inline]] static inline void prefetch_near(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }

  static I set1_i(int32_t x) { return _mm512_set1_epi32(x); }
  static void store_i(void* p, I x) { _mm512_storeu_si512(p, x); }
  static I and_i(I a, I b) { return _mm512_and_si512(a, b); }
  static I or_i(I a, I b) { return _mm512_or_si512(a, b); }
  template <int kBits>
  static I shift_right(I a) {
    return _mm512_srli_epi32(a, kBits);
  }
  template <int kBits>
  static I shift_left(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  static I shift_right_by(I a, int bits) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  /// Adds to every byte.
  static I add8(I a, int x) { return _mm512_add_epi8(a, _mm512_set1_epi8(static_cast<char>(x))); }
  /// Byte `which` of every word, with its sign.
  static I signed_byte(I a, int which) {
    return _mm512_srai_epi32(_mm512_sll_epi32(a, _mm_cvtsi32_si128(24 - 8 * which)), 24);
  }
  /// Bits 0 to 3 of every word to bit 4 of its bytes 0 to 3.
  static I spread_to_bit4(I a) {
    const __m512i spread =
        _mm512_setr_epi32(0x00000000, 0x00000010, 0x00001000, 0x00001010, 0x00100000, 0x00100010,
                          0x00101000, 0x00101010, 0x10000000, 0x10000010, 0x10001000, 0x10001010,
                          0x10100000, 0x10100010, 0x10101000, 0x10101010);
    return _mm512_permutexvar_epi32(a, spread);
  }
  /// The binary16 number in the low half of every word.
  static F low_half(I a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }

  /// From 16 rows of 8 words, `stride` bytes apart, to 8 columns of 16 words.
  static void transpose_16x8_to(const std::byte* rows, int64_t stride, std::byte* out) {
    transpose_16x8_apart(rows, stride, out, 64);
  }

  /// The same, with columns `out_stride` bytes apart.
  static void transpose_16x8_apart(const std::byte* rows, int64_t stride, std::byte* out,
                                   int64_t out_stride) {
    const auto row = [&](int r) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + r * stride));
    };
    // z[r]: row r, row r + 8
    __m512i z[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      z[r] = _mm512_inserti64x4(_mm512_castsi256_si512(row(r)), row(r + 8), 1);
    }
    __m512i c[8];
#pragma GCC unroll 2
    for (int h = 0; h < 8; h += 4) transpose_4x4(z + h, c + h);
    // Quarter 0 and 2 of c[j] hold word j of four rows, quarter 1 and 3 word j + 4.
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      _mm512_storeu_si512(out + out_stride * j, _mm512_permutex2var_epi64(c[j], first, c[j + 4]));
      _mm512_storeu_si512(out + out_stride * (j + 4),
                          _mm512_permutex2var_epi64(c[j], second, c[j + 4]));
    }
  }

  /// From 16 rows of 4 words to 4 columns of 16 words.
  static void transpose_16x4_to(const std::byte* rows, int64_t stride, std::byte* out) {
    const auto row = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + r * stride));
    };
    // z[r]: rows r, r + 4, r + 8, r + 12
    __m512i z[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row(r)), row(r + 4), 1);
      const __m256i high =
          _mm256_inserti128_si256(_mm256_castsi128_si256(row(r + 8)), row(r + 12), 1);
      z[r] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    __m512i c[4];
    transpose_4x4(z, c);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) _mm512_storeu_si512(out + 64 * j, c[j]);
  }

 private:
  /// Transposes 4 x 4 words within each quarter of the vectors.
  [[gnu::always_inline]] static inline void transpose_4x4(const __m512i* z, __m512i* c) {
    const __m512i lo01 = _mm512_unpacklo_epi32(z[0], z[1]);
    const __m512i hi01 = _mm512_unpackhi_epi32(z[0], z[1]);
    const __m512i lo23 = _mm512_unpacklo_epi32(z[2], z[3]);
    const __m512i hi23 = _mm512_unpackhi_epi32(z[2], z[3]);
    c[0] = _mm512_unpacklo_epi64(lo01, lo23);
    c[1] = _mm512_unpackhi_epi64(lo01, lo23);
    c[2] = _mm512_unpacklo_epi64(hi01, hi23);
    c[3] = _mm512_unpackhi_epi64(hi01, hi23);
  }

  static __mmask16 mask(int n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffu : (n <= 0 ? 0u : (1u << n) - 1u));
  }
};

}  // namespace
}  // namespace nosa::cpu
