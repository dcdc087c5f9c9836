// 64 columns of a packed record that lies in shared memory, as 16-bit values: the A fragments of 16-bit matrix
// instructions. See common/packed_chunk.cuh for the record and for which columns a lane has.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/packed_chunk.cuh"

namespace nosa::cuda {

inline constexpr int kUnitCols = 64;

/// Halves are weights times this, so that small scales stay out of the subnormals. Weights up to 1,023 fit.
inline constexpr float kHalfWeightFactor = 64.0f;

/// Four bytes as halves: (0, 1), then (2, 3). The bytes are unsigned; `bias` comes off after the conversion.
__device__ inline void bytes_to_halves(uint32_t word, float bias, __half2 (&out)[2]) {
  // 0x64xx is 1024 + xx.
  constexpr uint32_t kThousand = 0x64646464u;
  const uint32_t low = __byte_perm(word, kThousand, 0x4140);
  const uint32_t high = __byte_perm(word, kThousand, 0x4342);
  const __half2 off = __float2half2_rn(1024.0f + bias);
  out[0] = __hsub2(*reinterpret_cast<const __half2*>(&low), off);
  out[1] = __hsub2(*reinterpret_cast<const __half2*>(&high), off);
}

template <DType kType>
struct PackedUnit {
  static constexpr PackedFormat kFormat = packed_format(kType);
  static constexpr int kUnits = kFormat.cols / kUnitCols;  // of a record
  static constexpr bool kKQuant = kFormat.super_bytes > 0;
  static constexpr int kLevelWords = kFormat.low_bits == 8 ? 8 : 4;
  static constexpr int kHighWords = kFormat.high_bits;

  uint32_t levels[kLevelWords];
  uint32_t high[kHighWords > 0 ? kHighWords : 1];
  __half2 scales[2][2][2];  // [block][half][row]: (scale, min) times kHalfWeightFactor

  __device__ void load(const std::byte* record, int unit, int lane) {
#pragma unroll
    for (int i = 0; i < kLevelWords; i += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(record + (unit * kLevelWords + i) * 128 + lane * 16);
      levels[i] = v.x;
      levels[i + 1] = v.y;
      levels[i + 2] = v.z;
      levels[i + 3] = v.w;
    }
    if constexpr (kHighWords == 1) {
      // Words of up to four units lie together.
      const std::byte* at = record + kFormat.high_at() + (lane * kUnits + unit) * 4;
      high[0] = *reinterpret_cast<const uint32_t*>(at);
    } else if constexpr (kHighWords == 2) {
      const std::byte* at = record + kFormat.high_at() + unit / 2 * 512 + lane * 16 + unit % 2 * 8;
      const uint2 v = *reinterpret_cast<const uint2*>(at);
      high[0] = v.x;
      high[1] = v.y;
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) load_scales(record, unit, lane / 4 * 2 + row, row);
  }

  /// Rows g and g + 8 of columns 16 half + 4 t .. + 3 of block b, times kHalfWeightFactor: words a0 .. a3.
  __device__ void fragment(int b, int half, uint32_t (&a)[4]) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      uint32_t word;
      const int j = 2 * half + row;
      if constexpr (kFormat.low_bits == 8) {
        word = levels[4 * b + j];
      } else {
        word = unpack_word<kType>(levels[j], high[kFormat.high_bits == 2 ? b : 0], b, j);
      }
      __half2 values[2];
      if constexpr (kFormat.has_min) {
        bytes_to_halves(word, 0.0f, values);
      } else {
        // Two's complement with its sign bit flipped is the number plus 128.
        bytes_to_halves(word ^ 0x80808080u, 128.0f, values);
      }
      const __half2 scale = __low2half2(scales[b][half][row]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if constexpr (kFormat.has_min) {
          values[i] = __hfma2(values[i], scale, __hneg2(__high2half2(scales[b][half][row])));
        } else {
          values[i] = __hmul2(values[i], scale);
        }
        a[row + 2 * i] = *reinterpret_cast<const uint32_t*>(&values[i]);
      }
    }
  }

 private:
  /// `place` is the row's among the record's scales.
  __device__ void load_scales(const std::byte* record, int unit, int place, int row) {
    constexpr float kUnshift = kHalfWeightFactor / float(1 << kFormat.shift());
    const std::byte* at = record + kFormat.scale_at() + place * kFormat.scale_bytes;
    const std::byte* super = record + kFormat.super_at() + place * kFormat.super_bytes;
    if constexpr (kType == DType::kQ4_K || kType == DType::kQ5_K) {
      const uint32_t d = *reinterpret_cast<const uint32_t*>(super);
      const uint32_t levels_of = *reinterpret_cast<const uint16_t*>(at + 2 * unit);
      const uint32_t mins_of = *reinterpret_cast<const uint16_t*>(at + 8 + 2 * unit);
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        put(b, row, low_half(d) * kUnshift * float(byte_of(levels_of, b)),
            high_half(d) * kUnshift * float(byte_of(mins_of, b)));
      }
    } else if constexpr (kType == DType::kQ6_K) {
      const float d = __half2float(*reinterpret_cast<const __half*>(super)) * kUnshift;
      const uint32_t levels_of = *reinterpret_cast<const uint32_t*>(at + 4 * unit);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scales[i / 2][i % 2][row] = __floats2half2_rn(d * float(int8_t(byte_of(levels_of, i))), 0.0f);
      }
    } else if constexpr (kFormat.has_min) {
      const uint2 both = *reinterpret_cast<const uint2*>(at);
      put(0, row, low_half(both.x) * kUnshift, -high_half(both.x) * kUnshift);
      put(1, row, low_half(both.y) * kUnshift, -high_half(both.y) * kUnshift);
    } else {
      const uint32_t both = *reinterpret_cast<const uint32_t*>(at);
      put(0, row, low_half(both) * kUnshift, 0.0f);
      put(1, row, high_half(both) * kUnshift, 0.0f);
    }
  }

  __device__ void put(int b, int row, float scale, float min) {
    scales[b][0][row] = scales[b][1][row] = __floats2half2_rn(scale, min);
  }
};

}  // namespace nosa::cuda
