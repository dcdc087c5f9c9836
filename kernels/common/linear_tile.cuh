// One warp's share of a product with few rows: 16 rows of a packed weight, a run of its records, all columns of x.
//
// The weights go from memory to the matrix unit's registers and nowhere else: 16 bytes a lane and load, each word
// unpacked by two or three instructions to four 8-bit levels. Of the unit's 8 columns as many are used as x has rows;
// the others cost nothing, since memory is what limits. A block of 32 columns gives 16 x 8 exact integer sums, which
// are then scaled and added in float32, block after block: the same order whatever the number of rows.
#pragma once

#include <algorithm>

#include "common/launch.cuh"
#include "common/matrix_units.cuh"
#include "common/operand.cuh"
#include "common/packed_chunk.cuh"
#include "pack_weights.h"

namespace nosa::cuda {

/// Rows of x that one matrix instruction takes.
inline constexpr int kColumnTile = 8;
/// Words between two columns of partial sums in shared memory: 16 rows, and no two lanes in one bank.
inline constexpr int kPartialStride = 20;

template <int kColumnTiles>
inline constexpr int kPartialWords = kColumnTiles * kColumnTile * kPartialStride;

/// Asks for the first bytes of a run to be brought into the second-level cache.
__device__ inline void prefetch_run(const std::byte* run, size_t n_bytes, int lane) {
  constexpr size_t kLine = 128;
  constexpr size_t kBytesMax = 8192;
  const size_t end = n_bytes < kBytesMax ? n_bytes : kBytesMax;
  for (size_t at = size_t(lane) * kLine; at < end; at += 32 * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(run + at));
  }
}

/// acc[n][i]: rows g, g, g + 8, g + 8 of the tile, columns 8 n + 2 t, + 1, + 0, + 1.
template <DType kType, int kColumnTiles>
__device__ void add_record(const PackedChunk<kType>& chunk, const Operand& x, int first_block, int lane,
                           float (&acc)[kColumnTiles][4]) {
  using Chunk = PackedChunk<kType>;
  constexpr bool kTwoGroups = Chunk::kFormat.group == 16;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int b = 0; b < Chunk::kBlocks; ++b) {
    const uint32_t a[4] = {chunk.word(b, 0), chunk.word(b, 1), chunk.word(b, 2), chunk.word(b, 3)};
    float2 scale[kTwoGroups ? 2 : 1][2];
#pragma unroll
    for (int half = 0; half < (kTwoGroups ? 2 : 1); ++half) {
      scale[half][0] = chunk.scale(b, half, 0);
      scale[half][1] = chunk.scale(b, half, 1);
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int left = x.n_rows - n * kColumnTile;
      uint2 levels = make_uint2(0, 0);
      float4 column_scales = make_float4(0.0f, 0.0f, 0.0f, 0.0f);  // (d, d sum) of columns 2 t and 2 t + 1
      if (g < left) {
        levels = reinterpret_cast<const uint2*>(operand_levels(x, n * kColumnTile + g, first_block + b))[t];
      }
      if (2 * t < left) {
        const float2* at = operand_scales(x) + size_t(first_block + b) * x.rows8() + n * kColumnTile;
        column_scales = reinterpret_cast<const float4*>(at)[t];
      }
      const float d[2] = {column_scales.x, column_scales.z};
      int sums[4];
      if constexpr (kTwoGroups) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          mma_s8_k16(sums, a[2 * half], a[2 * half + 1], half == 0 ? levels.x : levels.y, kIntegerBiasBits);
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[n][i] += scale[half][i / 2].x * d[i % 2] * biased_to_float(sums[i]);
        }
      } else {
        mma_s8_k32(sums, a, levels.x, levels.y, kIntegerBiasBits);
        const float d_sum[2] = {column_scales.y, column_scales.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          acc[n][i] += scale[0][i / 2].x * d[i % 2] * biased_to_float(sums[i]);
          if constexpr (Chunk::kFormat.has_min) acc[n][i] -= scale[0][i / 2].y * d_sum[i % 2];
        }
      }
    }
  }
}

template <typename T, int kColumnTiles>
__device__ void add_record_16bit(const PackedChunk16& chunk, const Operand& x, int first_col, int lane,
                                 float (&acc)[kColumnTiles][4]) {
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int block = 0; block < PackedChunk16::kCols / 32; ++block) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = n * kColumnTile + g;
      uint4 b = make_uint4(0, 0, 0, 0);
      if (column < x.n_rows) {
        const T* at = static_cast<const T*>(x.data) + size_t(column) * x.cols + first_col + block * 32;
        b = reinterpret_cast<const uint4*>(at)[t];
      }
      const uint32_t* w = chunk.w[2 * block];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], b.x, b.y);
      w = chunk.w[2 * block + 1];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], b.z, b.w);
    }
  }
}

/// Records from .. to - 1 of a tile. Calls begin_kernel() once the first weights are on their way.
template <DType kType, int kColumnTiles>
__device__ void tile_sums(const std::byte* tile, int from, int to, const Operand& x, int lane,
                          float (&acc)[kColumnTiles][4]) {
  constexpr PackedFormat kFormat = packed_format(kType);
  // With many columns there is arithmetic to hide a load behind, and no register to spare.
  constexpr bool kLoadAhead = kColumnTiles <= 2;
  const auto add = [&](const auto& chunk, int record) {
    if constexpr (is_quantised(kType)) {
      add_record<kType, kColumnTiles>(chunk, x, record * kFormat.blocks(), lane, acc);
    } else if constexpr (kType == DType::kF16) {
      add_record_16bit<__half, kColumnTiles>(chunk, x, record * kFormat.cols, lane, acc);
    } else {
      add_record_16bit<__nv_bfloat16, kColumnTiles>(chunk, x, record * kFormat.cols, lane, acc);
    }
  };
  const auto run = [&](auto chunk) {
    const std::byte* at = tile + size_t(from) * kFormat.bytes();
    prefetch_run(at, size_t(to - from) * kFormat.bytes(), lane);
    if (from < to) chunk.load(at, lane);
    begin_kernel();
    for (int record = from; record < to; ++record) {
      at += kFormat.bytes();
      if constexpr (kLoadAhead) {
        auto next = chunk;
        if (record + 1 < to) next.load(at, lane);
        add(chunk, record);
        chunk = next;
      } else {
        add(chunk, record);
        if (record + 1 < to) chunk.load(at, lane);
      }
    }
  };
  if constexpr (is_quantised(kType)) {
    run(PackedChunk<kType>());
  } else {
    run(PackedChunk16());
  }
}

/// Split `split` of `n_splits` of one tile, into `partial` [columns, kPartialStride] of shared memory. A warp with
/// nothing to do (a tile behind the last one) calls it as well.
template <int kColumnTiles>
__device__ void tile_partial(const PackedWeight& weight, int tile_idx, int split, int n_splits, const Operand& x,
                             float* partial) {
  if (tile_idx * kTileRows >= weight.rows) {
    begin_kernel();
    return;
  }
  const int lane = threadIdx.x % 32;
  float acc[kColumnTiles][4] = {};
  const auto sums = [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    constexpr PackedFormat kFormat = packed_format(kType);
    const int n_records = weight.cols / kFormat.cols;
    const std::byte* tile = weight.data + size_t(tile_idx) * n_records * kFormat.bytes();
    tile_sums<kType, kColumnTiles>(tile, n_records * split / n_splits, n_records * (split + 1) / n_splits, x, lane, acc);
  };
  with_packed_type(weight.dtype, sums);
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      partial[(n * kColumnTile + 2 * t + i % 2) * kPartialStride + g + 8 * (i / 2)] = acc[n][i];
    }
  }
}

/// Warps over which the records of a tile are split, so that a product has some 2,048 warps to fill a large GPU with:
/// a power of two that depends on the weights alone, since it decides the order of the sums.
inline int tile_splits(int n_tiles, int n_records, int splits_max) {
  constexpr int kWarps = 2048;
  int splits = 1;
  while (2 * splits <= splits_max && 2 * splits <= n_records && n_tiles * splits < kWarps) splits *= 2;
  return splits;
}

inline bool weight_valid(const PackedWeight& weight, const Operand& x) {
  return weight.rows > 0 && weight.cols == x.cols && packed_bytes(weight.dtype, weight.rows, weight.cols) > 0 &&
         x.type == linear_operand(weight.dtype);
}

}  // namespace nosa::cuda
