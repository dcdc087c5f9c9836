// The vectors of AVX2, as the shared inner loops name them (see simd_avx512.h). Only ops_avx2.cpp
// includes this.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nosa::cpu {
namespace {

struct Avx2 {
  static constexpr int lanes = 8;
  static constexpr int tile_tokens = 4;  // sixteen registers
  static constexpr int broadcast_sums = 8;
  /// Weights of few bits are moved up to be unsigned, which is faster; `start` undoes it.
  static constexpr int level_shift(int zero) { return zero; }

  using F = __m256;
  using I = __m256i;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_n(const float* p, int n) {
    return n >= lanes ? load(p) : _mm256_maskload_ps(p, mask(n));
  }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store_n(float* p, F x, int n) {
    n >= lanes ? store(p, x) : _mm256_maskstore_ps(p, mask(n), x);
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// a 2^n for whole n in [-127, 127]; zero at -127.
  static F scale_by_power(F a, F n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
  }
  static constexpr float power_min = -127.0f;
  static constexpr float power_max = 127.4f;
  static F select_below(F a, F b, int first, int n) {
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask(n - first)));
  }
  static F select_above(F a, F b, I n, int j) {
    const __m256i above = _mm256_cmpgt_epi32(n, _mm256_set1_epi32(j));
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(above));
  }

  static F load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  /// Eight values that lie `stride` bytes apart. Not by way of memory: a load that takes up several
  /// small stores waits until they have left the processor.
  static F load_f16_apart(const std::byte* at, int64_t stride) {
    const auto half = [&](int i) {
      int16_t bits;
      std::memcpy(&bits, at + i * stride, sizeof(bits));
      return bits;
    };
    return _mm256_cvtph_ps(
        _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
  }
  static F load_bf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static void store_f16(uint16_t* p, F x) {
    const __m128i bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bits);
  }

  static float horizontal_max(F a) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
  /// Lanes i and i + 4, then i + 2, i + 1.
  static float horizontal_sum(F a) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }

  static I load_i(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static I zero_i() { return _mm256_setzero_si256(); }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static I broadcast_i(const void* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
  static F broadcast(const void* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return _mm256_set1_ps(value);
  }
  /// Small weights are unsigned, at most 63, and pairs of products fit 16 bits. Others are signed,
  /// and lend their sign to the token's values, so that again one factor is unsigned.
  template <bool kSmall>
  static I dot4(I sum, I weights, const std::byte* p) {
    const __m256i values = broadcast_i(p);
    const __m256i pairs =
        kSmall ? _mm256_maddubs_epi16(weights, values)
               : _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(values, weights));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  /// dot4 of `n` vectors of weights from 0 to `levels_max`, at most 63. Pairs of products are added
  /// in 16 bits for as long as they fit: widening them takes as long as multiplying does.
  template <int n, int levels_max>
  [[gnu::always_inline]] static inline I dot_small(I sum, const I* weights, const std::byte* p) {
    constexpr int most = 32767 / (2 * 127 * levels_max);
    constexpr int at_once = most < n ? most : n;
    static_assert(n % at_once == 0);
#pragma GCC unroll 8
    for (int first = 0; first < n; first += at_once) {
      __m256i pairs = _mm256_maddubs_epi16(weights[first], broadcast_i(p + 4 * first));
#pragma GCC unroll 8
      for (int j = first + 1; j < first + at_once; ++j) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights[j], broadcast_i(p + 4 * j)));
      }
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return sum;
  }
  /// The levels were moved up by `shift`: takes that times the sum of the values away.
  static I start(const std::byte* p, int shift) {
    if (shift == 0) return zero_i();
    return _mm256_mullo_epi32(broadcast_i(p), _mm256_set1_epi32(-shift));
  }
  static int32_t start_value(int sum) { return sum; }

  static void quantize32(const float* x, float factor, std::byte* out, int* sum_lo, int* sum_hi) {
    const __m256 f = _mm256_set1_ps(factor);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + 8 * i), f));
    *sum_lo = horizontal_sum_i(_mm256_add_epi32(q[0], q[1]));
    *sum_hi = horizontal_sum_i(_mm256_add_epi32(q[2], q[3]));
    const __m256i words =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    // Packing works within halves: put the words of four values back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(words, order));
  }

  /// Into the second cache: requests to it are many more than the first keeps track of. Always
  /// inline, for GCC takes a function that does nothing else for one that does nothing, and drops
  /// its calls.
  [[gnu::always_inline]] static inline void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
  /// Into the first cache.
  [[gnu::always_inline]] static inline void prefetch_near(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }

  static I set1_i(int32_t x) { return _mm256_set1_epi32(x); }
  static void store_i(void* p, I x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
  static I and_i(I a, I b) { return _mm256_and_si256(a, b); }
  static I or_i(I a, I b) { return _mm256_or_si256(a, b); }
  template <int kBits>
  static I shift_right(I a) {
    return _mm256_srli_epi32(a, kBits);
  }
  template <int kBits>
  static I shift_left(I a) {
    return _mm256_slli_epi32(a, kBits);
  }
  static I shift_right_by(I a, int bits) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  static I add8(I a, int x) { return _mm256_add_epi8(a, _mm256_set1_epi8(static_cast<char>(x))); }
  static I signed_byte(I a, int which) {
    return _mm256_srai_epi32(_mm256_sll_epi32(a, _mm_cvtsi32_si128(24 - 8 * which)), 24);
  }
  /// Bits 0 to 3 of every word to bit 4 of its bytes 0 to 3: a product puts bit i at 7 i + i = 8 i.
  static I spread_to_bit4(I a) {
    const __m256i bits = _mm256_and_si256(a, _mm256_set1_epi32(15));
    const __m256i apart = _mm256_mullo_epi32(bits, _mm256_set1_epi32(0x00204081));
    return _mm256_slli_epi32(_mm256_and_si256(apart, _mm256_set1_epi32(0x01010101)), 4);
  }
  static F low_half(I a) {
    const __m256i low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
  }

  static void transpose_16x8_to(const std::byte* rows, int64_t stride, std::byte* out) {
    for (int half = 0; half < 2; ++half) {
      const std::byte* from = rows + 8 * half * stride;
      __m256i r[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) r[i] = load_i(from + i * stride);
      __m256i c[8];
      transpose_4x4(r, c);
      transpose_4x4(r + 4, c + 4);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        store_i(out + 64 * j + 32 * half, _mm256_permute2x128_si256(c[j], c[j + 4], 0x20));
        store_i(out + 64 * (j + 4) + 32 * half, _mm256_permute2x128_si256(c[j], c[j + 4], 0x31));
      }
    }
  }

  static void transpose_16x4_to(const std::byte* rows, int64_t stride, std::byte* out) {
    const auto row = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + r * stride));
    };
    for (int half = 0; half < 2; ++half) {
      __m256i z[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        z[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(8 * half + r)),
                                       row(8 * half + r + 4), 1);
      }
      __m256i c[4];
      transpose_4x4(z, c);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store_i(out + 64 * j + 32 * half, c[j]);
    }
  }

  /// 8 values of 16 bits of 16 rows as float32: value d of all rows at out + d * out_stride.
  static void transpose_f16_16x8_to(const std::byte* rows, int64_t stride, float* out,
                                    int64_t out_stride) {
    const auto row = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + r * stride));
    };
    // Rows r and r + 8 in the halves of a vector. Neighbouring rows are paired first; then 4 x 4
    // pairs are transposed, for the first four values and for the last.
    __m256i first[4];
    __m256i last[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const auto both = [&](int r) {
        return _mm256_inserti128_si256(_mm256_castsi128_si256(row(r)), row(r + 8), 1);
      };
      const __m256i even = both(2 * i);
      const __m256i odd = both(2 * i + 1);
      first[i] = _mm256_unpacklo_epi16(even, odd);
      last[i] = _mm256_unpackhi_epi16(even, odd);
    }
    __m256i columns[8];
    transpose_4x4(first, columns);
    transpose_4x4(last, columns + 4);
#pragma GCC unroll 8
    for (int d = 0; d < 8; ++d) {
      float* to = out + d * out_stride;
      store(to, _mm256_cvtph_ps(_mm256_castsi256_si128(columns[d])));
      store(to + lanes, _mm256_cvtph_ps(_mm256_extracti128_si256(columns[d], 1)));
    }
  }

 private:
  /// Transposes 4 x 4 words within each half of the vectors.
  [[gnu::always_inline]] static inline void transpose_4x4(const __m256i* z, __m256i* c) {
    const __m256i lo01 = _mm256_unpacklo_epi32(z[0], z[1]);
    const __m256i hi01 = _mm256_unpackhi_epi32(z[0], z[1]);
    const __m256i lo23 = _mm256_unpacklo_epi32(z[2], z[3]);
    const __m256i hi23 = _mm256_unpackhi_epi32(z[2], z[3]);
    c[0] = _mm256_unpacklo_epi64(lo01, lo23);
    c[1] = _mm256_unpackhi_epi64(lo01, lo23);
    c[2] = _mm256_unpacklo_epi64(hi01, hi23);
    c[3] = _mm256_unpackhi_epi64(hi01, hi23);
  }

  static __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  static int horizontal_sum_i(__m256i a) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }
};

}  // namespace
}  // namespace nosa::cpu
