// The vectors of 64-bit ARM with dot products, as the shared inner loops name them (see
// simd_avx512.h). Only ops_neon.cpp includes this.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nosa::cpu {
namespace {

struct Neon {
  static constexpr int lanes = 4;
  static constexpr int tile_tokens = 16;
  static constexpr int broadcast_sums = 16;
  static constexpr int level_shift(int) { return 0; }

  using F = float32x4_t;
  using I = int32x4_t;

  static F zero() { return vdupq_n_f32(0.0f); }
  static F set1(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static F load_n(const float* p, int n) {
    if (n >= lanes) return load(p);
    float values[lanes] = {};
    for (int i = 0; i < n; ++i) values[i] = p[i];
    return vld1q_f32(values);
  }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static void store_n(float* p, F x, int n) {
    if (n >= lanes) return store(p, x);
    float values[lanes];
    vst1q_f32(values, x);
    for (int i = 0; i < n; ++i) p[i] = values[i];
  }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  static F abs(F a) { return vabsq_f32(a); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
  static F round(F a) { return vrndnq_f32(a); }
  /// a 2^n for whole n in [-127, 127]; zero at -127.
  static F scale_by_power(F a, F n) {
    const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(biased, 23)));
  }
  static constexpr float power_min = -127.0f;
  static constexpr float power_max = 127.4f;
  static F select_below(F a, F b, int first, int n) {
    return select_above(a, b, vdupq_n_s32(n - first), 0, lane_numbers());
  }
  static F select_above(F a, F b, I n, int j) { return select_above(a, b, n, j, vdupq_n_s32(0)); }

  static F load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static F load_bf16(const uint16_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static void store_f16(uint16_t* p, F x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }

  static float horizontal_max(F a) { return vmaxvq_f32(a); }
  /// Lanes i and i + 2, then i + 1.
  static float horizontal_sum(F a) {
    const float32x2_t two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }

  static I load_i(const void* p) { return vld1q_s32(static_cast<const int32_t*>(p)); }
  static I zero_i() { return vdupq_n_s32(0); }
  static F to_float(I a) { return vcvtq_f32_s32(a); }
  static I broadcast_i(const void* p) { return vld1q_dup_s32(static_cast<const int32_t*>(p)); }
  static F broadcast(const void* p) { return vld1q_dup_f32(static_cast<const float*>(p)); }
  /// Both factors are signed, so no weight is ever moved.
  template <bool kSmall>
  static I dot4(I sum, I weights, const std::byte* p) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(broadcast_i(p)));
  }
  static I start(const std::byte*, int) { return zero_i(); }
  static int32_t start_value(int) { return 0; }

  static void quantize32(const float* x, float factor, std::byte* out, int* sum_lo, int* sum_hi) {
    *sum_lo = quantize16(x, factor, out);
    *sum_hi = quantize16(x + 16, factor, out + 16);
  }

  [[gnu::always_inline]] static inline void prefetch(const std::byte* p) {
    __builtin_prefetch(p, 0, 2);
  }
  /// Into the first cache.
  [[gnu::always_inline]] static inline void prefetch_near(const std::byte* p) {
    __builtin_prefetch(p, 0, 3);
  }

  static I set1_i(int32_t x) { return vdupq_n_s32(x); }
  static void store_i(void* p, I x) { vst1q_s32(static_cast<int32_t*>(p), x); }
  static I and_i(I a, I b) { return vandq_s32(a, b); }
  static I or_i(I a, I b) { return vorrq_s32(a, b); }
  template <int kBits>
  static I shift_right(I a) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), kBits));
  }
  template <int kBits>
  static I shift_left(I a) {
    return vshlq_n_s32(a, kBits);
  }
  static I shift_right_by(I a, int bits) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-bits)));
  }
  static I add8(I a, int x) {
    const int8x16_t bytes = vreinterpretq_s8_s32(a);
    return vreinterpretq_s32_s8(vaddq_s8(bytes, vdupq_n_s8(static_cast<int8_t>(x))));
  }
  static I signed_byte(I a, int which) {
    return vshrq_n_s32(vshlq_s32(a, vdupq_n_s32(24 - 8 * which)), 24);
  }
  /// Bits 0 to 3 of every word to bit 4 of its bytes 0 to 3: a product puts bit i at 7 i + i = 8 i.
  static I spread_to_bit4(I a) {
    const int32x4_t apart = vmulq_n_s32(vandq_s32(a, vdupq_n_s32(15)), 0x00204081);
    return vshlq_n_s32(vandq_s32(apart, vdupq_n_s32(0x01010101)), 4);
  }
  static F low_half(I a) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_s32(a))));
  }

  /// From 16 rows of 8 words, `stride` bytes apart, to 8 columns of 16 words.
  static void transpose_16x8_to(const std::byte* rows, int64_t stride, std::byte* out) {
    transpose_16x4_to(rows, stride, out);
    transpose_16x4_to(rows + 16, stride, out + 4 * 64);
  }

  /// From 16 rows of 4 words to 4 columns of 16 words.
  static void transpose_16x4_to(const std::byte* rows, int64_t stride, std::byte* out) {
    for (int r = 0; r < 16; r += 4) {
      uint32x4_t row[4];
      for (int i = 0; i < 4; ++i) {
        const auto* at = reinterpret_cast<const uint8_t*>(rows + (r + i) * stride);
        row[i] = vreinterpretq_u32_u8(vld1q_u8(at));
      }
      const uint64x2_t lo01 = vreinterpretq_u64_u32(vzip1q_u32(row[0], row[1]));
      const uint64x2_t hi01 = vreinterpretq_u64_u32(vzip2q_u32(row[0], row[1]));
      const uint64x2_t lo23 = vreinterpretq_u64_u32(vzip1q_u32(row[2], row[3]));
      const uint64x2_t hi23 = vreinterpretq_u64_u32(vzip2q_u32(row[2], row[3]));
      const uint64x2_t columns[4] = {vzip1q_u64(lo01, lo23), vzip2q_u64(lo01, lo23),
                                     vzip1q_u64(hi01, hi23), vzip2q_u64(hi01, hi23)};
      for (int j = 0; j < 4; ++j) {
        auto* at = reinterpret_cast<uint8_t*>(out + 64 * j + 4 * r);
        vst1q_u8(at, vreinterpretq_u8_u64(columns[j]));
      }
    }
  }

 private:
  static int32x4_t lane_numbers() {
    constexpr int32_t numbers[lanes] = {0, 1, 2, 3};
    return vld1q_s32(numbers);
  }

  /// a where n > j + extra, lane by lane, else b.
  static F select_above(F a, F b, I n, int j, I extra) {
    return vbslq_f32(vcgtq_s32(n, vaddq_s32(vdupq_n_s32(j), extra)), a, b);
  }

  static int quantize16(const float* x, float factor, std::byte* out) {
    int32x4_t q[4];
    for (int i = 0; i < 4; ++i) q[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), factor));
    const int8x8_t low = vqmovn_s16(vcombine_s16(vqmovn_s32(q[0]), vqmovn_s32(q[1])));
    const int8x8_t high = vqmovn_s16(vcombine_s16(vqmovn_s32(q[2]), vqmovn_s32(q[3])));
    vst1q_s8(reinterpret_cast<int8_t*>(out), vcombine_s8(low, high));
    return vaddvq_s32(vaddq_s32(vaddq_s32(q[0], q[1]), vaddq_s32(q[2], q[3])));
  }
};

}  // namespace
}  // namespace nosa::cpu
