// Records of packed weights (see pack_weights.h): 16 rows x 64 or 256 columns in the registers of a warp.
//
// Columns are counted in blocks of 32. Lane 4 g + t holds, of block b, four words a[0 .. 3]: word j has
// the levels of row g + 8 (j % 2) at columns 16 (j / 2) + 4 t .. + 3, one a byte: the A fragment of matrix_units.cuh.
//
// A record of a quantised type is, part after part:
//   levels      8-bit types: for each block 16 bytes a lane, words 0 .. 3.
//               others: for each two blocks 16 bytes a lane, word j of the first block in the low four bits
//               of each byte, of the second in the high four bits. Low bits of the level alone.
//   high bits   5-bit types: a word for each two blocks; bit 8 i + 4 (b % 2) + j is that of byte i, word j of block b.
//               6-bit: a word for each block; bits 8 i + 2 j and the next are those of byte i, word j.
//               Up to four words of a lane lie together.
//   scales      for each g, for row g then g + 8: the numbers of the record's blocks, as in the file, but for the
//               6-bit scales and minima of k-quants, which get a byte each: 8 scales, then 8 minima.
//   super       k-quants: for each g, for row g then g + 8: d, or d and dmin.
// A record of a 16-bit type is 16 bytes a lane for each 16 columns: row g's columns 4 t .. + 3, then row g + 8's.
#pragma once

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace nosa::cuda {

inline constexpr int kTileRows = 16;

/// How the levels of a type are stored. Signed types keep the level's two's complement at the top of its byte, so
/// that no sign has to be extended: what the matrix unit sees is level << kShift, and the scale makes up for it.
struct PackedFormat {
  int cols;         // of a record
  int low_bits;     // 4 or 8
  int high_bits;    // 0, 1 or 2
  bool has_min;     // value = scale level - min, levels unsigned; else value = scale level, levels signed
  int scale_bytes;  // of a row's share of a record
  int super_bytes;  // likewise
  int group;        // columns that share a scale

  constexpr int blocks() const { return cols / 32; }
  constexpr int level_bytes() const { return cols * kTileRows * low_bits / 8; }
  constexpr int high_bytes() const { return cols * kTileRows * high_bits / 8; }
  constexpr int high_at() const { return level_bytes(); }
  constexpr int scale_at() const { return high_at() + high_bytes(); }
  constexpr int super_at() const { return scale_at() + kTileRows * scale_bytes; }
  constexpr int bytes() const { return super_at() + kTileRows * super_bytes; }
  constexpr int shift() const { return has_min ? 0 : 8 - low_bits - high_bits; }
};

constexpr PackedFormat packed_format(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {64, 8, 0, false, 4, 0, 32};
    case DType::kQ4_0:
      return {64, 4, 0, false, 4, 0, 32};
    case DType::kQ4_1:
      return {64, 4, 0, true, 8, 0, 32};
    case DType::kQ5_0:
      return {64, 4, 1, false, 4, 0, 32};
    case DType::kQ5_1:
      return {64, 4, 1, true, 8, 0, 32};
    case DType::kQ4_K:
      return {256, 4, 0, true, 16, 4, 32};
    case DType::kQ5_K:
      return {256, 4, 1, true, 16, 4, 32};
    case DType::kQ6_K:
      return {256, 4, 2, false, 16, 2, 16};
    case DType::kF16:
    case DType::kBF16:
      return {64, 16, 0, false, 0, 0, 0};
    case DType::kF32:
      return {};
  }
  return {};
}

constexpr bool is_quantised(DType dtype) {
  return packed_format(dtype).low_bits == 4 || packed_format(dtype).low_bits == 8;
}

template <int kWords>
struct Words {
  uint32_t w[kWords > 0 ? kWords : 1];
};

/// `kWords` words from an address that is as well aligned as their number allows.
template <int kWords>
__device__ inline void load_words(const std::byte* at, uint32_t* to) {
  if constexpr (kWords % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 v = reinterpret_cast<const uint4*>(at)[i / 4];
      to[i] = v.x;
      to[i + 1] = v.y;
      to[i + 2] = v.z;
      to[i + 3] = v.w;
    }
  } else if constexpr (kWords == 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    to[0] = v.x;
    to[1] = v.y;
  } else if constexpr (kWords == 1) {
    to[0] = *reinterpret_cast<const uint32_t*>(at);
  }
}

__device__ inline float low_half(uint32_t word) { return __half2float(__ushort_as_half(uint16_t(word))); }
__device__ inline float high_half(uint32_t word) { return __half2float(__ushort_as_half(uint16_t(word >> 16))); }
__device__ inline int byte_of(uint32_t word, int i) { return int(word >> (8 * i) & 0xff); }

__device__ inline uint32_t moved_left(uint32_t word, int by) { return by >= 0 ? word << by : word >> -by; }

/// Word j of a pair's first (0) or second (1) block, of a type with four low bits: its low and its high bits together.
template <DType kType>
__device__ inline uint32_t unpack_word(uint32_t low, uint32_t high, int second, int j) {
  constexpr PackedFormat kFormat = packed_format(kType);
  if constexpr (kFormat.has_min) {
    const uint32_t word = (second ? low >> 4 : low) & 0x0f0f0f0fu;
    if constexpr (kFormat.high_bits == 0) return word;
    return word | (moved_left(high, 4 - (4 * second + j)) & 0x10101010u);
  } else if constexpr (kFormat.high_bits == 0) {
    return (second ? low : low << 4) & 0xf0f0f0f0u;
  } else if constexpr (kFormat.high_bits == 1) {
    return ((second ? low >> 1 : low << 3) & 0x78787878u) | (moved_left(high, 7 - (4 * second + j)) & 0x80808080u);
  } else {
    return ((second ? low >> 2 : low << 2) & 0x3c3c3c3cu) | (moved_left(high, 6 - 2 * j) & 0xc0c0c0c0u);
  }
}

/// A lane's part of one record of a quantised type.
template <DType kType>
struct PackedChunk {
  static constexpr PackedFormat kFormat = packed_format(kType);
  static constexpr int kCols = kFormat.cols;
  static constexpr int kBlocks = kFormat.blocks();
  static constexpr int kLevelWords = kFormat.level_bytes() / 128;
  static constexpr int kHighWords = kFormat.high_bytes() / 128;
  static constexpr int kScaleWords = 2 * kFormat.scale_bytes / 4;
  static constexpr int kSuperWords = 2 * kFormat.super_bytes / 4;

  Words<kLevelWords> levels_;
  Words<kHighWords> high_;
  Words<kScaleWords> scales_;
  Words<kSuperWords> super_;

  __device__ void load(const std::byte* record, int lane) {
    // Runs of 16 bytes a lane: lane after lane, run after run.
#pragma unroll
    for (int run = 0; run < kLevelWords / 4; ++run) {
      load_words<4>(record + run * 512 + lane * 16, levels_.w + 4 * run);
    }
    if constexpr (kHighWords > 0) {
      constexpr int kRun = kHighWords < 4 ? kHighWords : 4;
#pragma unroll
      for (int run = 0; run < kHighWords / kRun; ++run) {
        load_words<kRun>(record + kFormat.high_at() + run * 128 * kRun + lane * 4 * kRun, high_.w + kRun * run);
      }
    }
    const int g = lane / 4;
    load_words<kScaleWords>(record + kFormat.scale_at() + g * kScaleWords * 4, scales_.w);
    if constexpr (kSuperWords > 0) {
      load_words<kSuperWords>(record + kFormat.super_at() + g * kSuperWords * 4, super_.w);
    }
  }

  /// Word j of block b: four levels, shifted left by kFormat.shift() where they are signed.
  __device__ uint32_t word(int b, int j) const {
    if constexpr (kFormat.low_bits == 8) {
      return levels_.w[4 * b + j];
    } else {
      const int high = kFormat.high_bits == 2 ? b : kFormat.high_bits == 1 ? b / 2 : 0;
      return unpack_word<kType>(levels_.w[b / 2 * 4 + j], high_.w[high], b % 2, j);
    }
  }

  /// (scale, min) of row g + 8 `row` in half `half` (columns 16 half .. + 15) of block b: value = scale word - min.
  __device__ float2 scale(int b, int half, int row) const {
    constexpr float kUnshift = 1.0f / (1 << kFormat.shift());
    if constexpr (kType == DType::kQ4_K || kType == DType::kQ5_K) {
      const float level = float(byte_of(scales_.w[4 * row + b / 4], b % 4));
      const float min_level = float(byte_of(scales_.w[4 * row + 2 + b / 4], b % 4));
      return {low_half(super_.w[row]) * level, high_half(super_.w[row]) * min_level};
    } else if constexpr (kType == DType::kQ6_K) {
      const int i = 2 * b + half;
      const float level = float(int8_t(byte_of(scales_.w[4 * row + i / 4], i % 4)));
      const float d = row == 0 ? low_half(super_.w[0]) : high_half(super_.w[0]);
      return {d * level * kUnshift, 0.0f};
    } else if constexpr (kFormat.has_min) {
      const uint32_t word = scales_.w[2 * row + b];
      return {low_half(word), -high_half(word)};
    } else {
      const uint32_t word = scales_.w[row];
      return {(b == 0 ? low_half(word) : high_half(word)) * kUnshift, 0.0f};
    }
  }
};

/// A lane's part of one record of a 16-bit type: for each 16 columns the words (g; 4t, 4t+1), (g; 4t+2, 4t+3),
/// then the same of row g + 8.
struct PackedChunk16 {
  static constexpr int kCols = 64;
  static constexpr int kSteps = kCols / 16;

  uint32_t w[kSteps][4];

  __device__ void load(const std::byte* record, int lane) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) load_words<4>(record + step * 512 + lane * 16, w[step]);
  }
};

template <DType kType>
struct PackedType {
  static constexpr DType value = kType;
};

/// Calls `f` with the PackedType of a type that can be packed.
template <typename F>
__host__ __device__ inline void with_packed_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return;
    case DType::kF16:
      return f(PackedType<DType::kF16>());
    case DType::kBF16:
      return f(PackedType<DType::kBF16>());
    case DType::kQ8_0:
      return f(PackedType<DType::kQ8_0>());
    case DType::kQ4_0:
      return f(PackedType<DType::kQ4_0>());
    case DType::kQ4_1:
      return f(PackedType<DType::kQ4_1>());
    case DType::kQ5_0:
      return f(PackedType<DType::kQ5_0>());
    case DType::kQ5_1:
      return f(PackedType<DType::kQ5_1>());
    case DType::kQ4_K:
      return f(PackedType<DType::kQ4_K>());
    case DType::kQ5_K:
      return f(PackedType<DType::kQ5_K>());
    case DType::kQ6_K:
      return f(PackedType<DType::kQ6_K>());
  }
}

}  // namespace nosa::cuda
