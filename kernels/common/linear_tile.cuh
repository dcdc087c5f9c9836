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

/// Which columns, that is rows of x, a block of threads takes.
template <int kTilesOf, int kPaddedTo, bool kOnly>
struct Columns {
  static constexpr int kTiles = kTilesOf;       // of 8
  static constexpr int kCount = kTiles * kColumnTile;
  static constexpr int kPadded = kPaddedTo;     // rows_padded() of x
  static constexpr bool kOneRow = kOnly;        // x has a single row
  static constexpr int kPartialWords = kCount * kPartialStride;
};

/// Calls `f` with the Columns for `n_rows` rows; a grid has as many blocks of columns as f's argument needs.
template <typename F>
cudaError_t with_columns(int n_rows, F&& f) {
  if (n_rows == 1) return f(Columns<1, 8, true>());
  if (n_rows <= 8) return f(Columns<1, 8, false>());
  if (n_rows <= 16) return f(Columns<2, 16, false>());
  if (n_rows <= 32) return f(Columns<4, 32, false>());
  // Two blocks, since the sums of 64 columns do not fit a thread's registers; the second finds the weights in the cache.
  return f(Columns<4, 64, false>());
}

/// Asks for the first bytes of a run to be brought into the second-level cache.
__device__ inline void prefetch_run(const std::byte* run, size_t n_bytes, int lane) {
  constexpr size_t kLine = 128;
  constexpr size_t kBytesMax = 8192;
  const size_t end = n_bytes < kBytesMax ? n_bytes : kBytesMax;
  for (size_t at = size_t(lane) * kLine; at < end; at += 32 * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(run + at));
  }
}

/// What a lane reads of x: rows behind the last one are read as the last one, and come to nothing.
template <typename C>
struct LaneColumns {
  const std::byte* levels[C::kTiles];  // the lane's 8 of a block's 32 levels, in block 0; or 8 16-bit values
  const std::byte* scales[C::kTiles];  // of columns 2 t and 2 t + 1, in block 0

  __device__ LaneColumns(const Operand& x, int first, int lane) {
    const int g = lane / 4;
    const int t = lane % 4;
#pragma unroll
    for (int n = 0; n < C::kTiles; ++n) {
      const int row = min(first + n * kColumnTile + g, x.n_rows - 1);
      const int pair = min((first + n * kColumnTile) / 2 + t, (x.n_rows - 1) / 2);
      if (x.type == OperandType::kQ8) {
        levels[n] = static_cast<const std::byte*>(x.data) + row * 32 + t * 8;
        scales[n] = static_cast<const std::byte*>(x.data) + size_t(x.cols) * C::kPadded + pair * 16;
      } else {
        levels[n] = static_cast<const std::byte*>(x.data) + size_t(row) * x.cols * 2 + t * 16;
      }
    }
  }

  __device__ uint2 levels_of(int n, int block) const {
    return *reinterpret_cast<const uint2*>(levels[n] + block * (C::kPadded * 32));
  }
  /// (d, d sum) of the first column, then of the second.
  __device__ float4 scales_of(int n, int block) const {
    return *reinterpret_cast<const float4*>(scales[n] + block * (C::kPadded * 8));
  }
  __device__ uint4 values_of(int n, int block) const {
    return *reinterpret_cast<const uint4*>(levels[n] + block * 64);
  }
};

/// acc[n][i]: rows g, g, g + 8, g + 8 of the tile, columns 8 n + 2 t, + 1, + 0, + 1. Of one row only column 0 counts, and
/// the odd ones are left out.
template <typename C, DType kType>
__device__ void add_record(const PackedChunk<kType>& chunk, const LaneColumns<C>& columns, int first_block,
                           float (&acc)[C::kTiles][4]) {
  using Chunk = PackedChunk<kType>;
  constexpr bool kTwoGroups = Chunk::kFormat.group == 16;
  constexpr int kStep = C::kOneRow ? 2 : 1;
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
    for (int n = 0; n < C::kTiles; ++n) {
      const uint2 levels = columns.levels_of(n, first_block + b);
      const float4 column_scales = columns.scales_of(n, first_block + b);
      const float d[2] = {column_scales.x, column_scales.z};
      int sums[4];
      if constexpr (kTwoGroups) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          mma_s8_k16(sums, a[2 * half], a[2 * half + 1], half == 0 ? levels.x : levels.y, kIntegerBiasBits);
#pragma unroll
          for (int i = 0; i < 4; i += kStep) acc[n][i] += scale[half][i / 2].x * d[i % 2] * biased_to_float(sums[i]);
        }
      } else {
        mma_s8_k32(sums, a, levels.x, levels.y, kIntegerBiasBits);
        const float d_sum[2] = {column_scales.y, column_scales.w};
#pragma unroll
        for (int i = 0; i < 4; i += kStep) {
          acc[n][i] += scale[0][i / 2].x * d[i % 2] * biased_to_float(sums[i]);
          if constexpr (Chunk::kFormat.has_min) acc[n][i] -= scale[0][i / 2].y * d_sum[i % 2];
        }
      }
    }
  }
}

template <typename C, typename T>
__device__ void add_record_16bit(const PackedChunk16& chunk, const LaneColumns<C>& columns, int first_block,
                                 float (&acc)[C::kTiles][4]) {
#pragma unroll
  for (int block = 0; block < PackedChunk16::kCols / 32; ++block) {
#pragma unroll
    for (int n = 0; n < C::kTiles; ++n) {
      const uint4 b = columns.values_of(n, first_block + block);
      const uint32_t* w = chunk.w[2 * block];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], b.x, b.y);
      w = chunk.w[2 * block + 1];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], b.z, b.w);
    }
  }
}

/// Records that a warp loads together, a set ahead of the set that it adds up: some 2 KiB, which with 16 warps are
/// what a multiprocessor must have under way to draw its share of the memory's bandwidth.
template <DType kType, int kColumnTiles>
constexpr int records_ahead() {
  constexpr int kBytes = packed_format(kType).bytes();
  constexpr int kWanted = kColumnTiles == 1 ? 2304 : kColumnTiles == 2 ? 1152 : 1;
  return kBytes >= kWanted ? 1 : kWanted / kBytes;
}

/// Records from .. to - 1 of a tile. Calls begin_kernel() once the first weights are on their way.
template <typename C, DType kType>
__device__ void tile_sums(const std::byte* tile, int from, int to, const LaneColumns<C>& columns, int lane,
                          float (&acc)[C::kTiles][4]) {
  using Chunk = std::conditional_t<is_quantised(kType), PackedChunk<is_quantised(kType) ? kType : DType::kQ8_0>,
                                   PackedChunk16>;
  constexpr PackedFormat kFormat = packed_format(kType);
  constexpr int kSet = records_ahead<kType, C::kTiles>();
  // With many columns there is arithmetic to hide a load behind, and no register to spare.
  constexpr bool kLoadAhead = C::kTiles <= 2;
  const auto add = [&](const Chunk& chunk, int record) {
    if constexpr (is_quantised(kType)) {
      add_record<C, kType>(chunk, columns, record * kFormat.blocks(), acc);
    } else if constexpr (kType == DType::kF16) {
      add_record_16bit<C, __half>(chunk, columns, record * kFormat.cols / 32, acc);
    } else {
      add_record_16bit<C, __nv_bfloat16>(chunk, columns, record * kFormat.cols / 32, acc);
    }
  };
  Chunk set[kSet];
  const auto load = [&](Chunk(&to_set)[kSet], int record) {
#pragma unroll
    for (int i = 0; i < kSet; ++i) {
      if (record + i < to) to_set[i].load(tile + size_t(record + i) * kFormat.bytes(), lane);
    }
  };
  prefetch_run(tile + size_t(from) * kFormat.bytes(), size_t(to - from) * kFormat.bytes(), lane);
  load(set, from);
  begin_kernel();
  for (int record = from; record < to; record += kSet) {
    Chunk next[kSet];
    if constexpr (kLoadAhead) load(next, record + kSet);
#pragma unroll
    for (int i = 0; i < kSet; ++i) {
      if (record + i < to) add(set[i], record + i);
    }
    if constexpr (kLoadAhead) {
#pragma unroll
      for (int i = 0; i < kSet; ++i) set[i] = next[i];
    } else {
      load(set, record + kSet);
    }
  }
}

/// Split `split` of `n_splits` of one tile, into `partial` [columns, kPartialStride] of shared memory. A warp with
/// nothing to do (a tile behind the last one) calls it as well.
template <typename C>
__device__ void tile_partial(const PackedWeight& weight, int tile_idx, int split, int n_splits, const Operand& x,
                             int first_column, float* partial) {
  if (tile_idx * kTileRows >= weight.rows) {
    begin_kernel();
    return;
  }
  const int lane = threadIdx.x % 32;
  float acc[C::kTiles][4] = {};
  const LaneColumns<C> columns(x, first_column, lane);
  const auto sums = [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    constexpr PackedFormat kFormat = packed_format(kType);
    const int n_records = weight.cols / kFormat.cols;
    const std::byte* tile = weight.data + size_t(tile_idx) * n_records * kFormat.bytes();
    tile_sums<C, kType>(tile, n_records * split / n_splits, n_records * (split + 1) / n_splits, columns, lane, acc);
  };
  with_packed_type(weight.dtype, sums);
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int n = 0; n < C::kTiles; ++n) {
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
