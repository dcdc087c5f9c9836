// One warp's share of a product with few rows: 16 rows of a packed weight, a run of its records,
// all columns of x.
//
// Each warp has a ring of records in shared memory, which asynchronous copies keep full: the first
// ones are on their way before the kernel waits for its predecessor, and what is under way does not
// cost registers. Each word of a record is unpacked by two or three instructions to four 8-bit
// levels for the matrix unit. Of the unit's 8 columns as many are used as x has rows; the others
// cost nothing, since memory is what limits. A single row of levels travels through the ring beside
// the weights that it meets: read at the point of use it would cost every warp the second-level
// cache's latency, block after block, since all warps want the same new line at the same time. A
// block of 32 columns gives 16 x 8 exact integer sums, which are then scaled and added in float32,
// block after block: the same order whatever the number of rows.
#pragma once

#include <algorithm>

#include "common/async_copy.cuh"
#include "common/launch.cuh"
#include "common/matrix_units.cuh"
#include "common/normed_row.cuh"
#include "common/operand.cuh"
#include "common/packed_chunk.cuh"
#include "pack_weights.h"

namespace nosa::cuda {

/// Rows of x that one matrix instruction takes.
inline constexpr int kColumnTile = 8;
/// Words between two columns of partial sums in shared memory: 16 rows, and no two lanes in one
/// bank.
inline constexpr int kPartialStride = 20;

/// Which columns, that is rows of x, a block of threads takes.
template <OperandType kOperandType, int kTilesOf, int kPaddedTo, bool kOnly>
struct Columns {
  static constexpr OperandType kOperand = kOperandType;
  static constexpr int kTiles = kTilesOf;  // of 8
  static constexpr int kCount = kTiles * kColumnTile;
  static constexpr int kPadded = kPaddedTo;  // rows_padded() of x
  /// x is a single row of levels: it comes through the ring, and sums that nobody wants are not
  /// scaled.
  static constexpr bool kOneRow = kOnly;
  /// Bytes of a warp's ring: at least two records, and what x they meet. 16 warps have some times
  /// as much under way as a multiprocessor needs to draw its share of the memory's bandwidth. The
  /// same bytes hold the warp's sums in the end.
  static constexpr int kRingBytes = kOneRow ? 8320 : kOperand == OperandType::kQ8 ? 7168 : 6144;
  static_assert(kCount * kPartialStride * sizeof(float) <= kRingBytes);
  /// Threads of a multiprocessor for which registers are set aside: with few columns twice what
  /// fills it, so that the next product's first weights are on their way while this one ends.
  static constexpr int kThreads = kTiles == 1 ? (kOperand == OperandType::kQ8 ? 768 : 1024) : 512;
};

/// More rows of x than this are wide_product's.
inline constexpr int kNarrowRowsMax = 16;

template <OperandType kOperand, typename F>
cudaError_t with_columns(int n_rows, F&& f) {
  if (n_rows == 1 && kOperand == OperandType::kQ8)
    return f(Columns<kOperand, 1, 8, kOperand == OperandType::kQ8>());
  if (n_rows <= 8) return f(Columns<kOperand, 1, 8, false>());
  return f(Columns<kOperand, 2, 16, false>());
}

/// Calls `f` with the Columns for x.
template <typename F>
cudaError_t with_columns(const Operand& x, F&& f) {
  if (x.type == OperandType::kF16) return with_columns<OperandType::kF16>(x.n_rows, f);
  if (x.type == OperandType::kBF16) return with_columns<OperandType::kBF16>(x.n_rows, f);
  return with_columns<OperandType::kQ8>(x.n_rows, f);
}

/// What a lane reads of x: rows behind the last one are read as the last one, and come to nothing.
template <typename C>
struct LaneColumns {
  const std::byte*
      levels[C::kTiles];  // the lane's 8 of a block's 32 levels, in block 0; or 8 16-bit values
  const std::byte* scales[C::kTiles];  // of columns 2 t and 2 t + 1, in block 0

  __device__ LaneColumns(const Operand& x, int lane) {
    const int g = lane / 4;
    const int t = lane % 4;
#pragma unroll
    for (int n = 0; n < C::kTiles; ++n) {
      const int row = min(n * kColumnTile + g, x.n_rows - 1);
      const int pair = min(n * kColumnTile / 2 + t, (x.n_rows - 1) / 2);
      if constexpr (C::kOperand == OperandType::kQ8) {
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

/// Adds blocks kFrom .. kTo - 1 of a record to acc[n][i]: rows g, g, g + 8, g + 8 of the tile, of
/// columns 8 n + 2 t + i % 2. With kOneRow only column 0 counts, and the odd ones are left out.
/// `columns` has x, the record's block 0 at `block`.
template <DType kType, int kFrom, int kTo, bool kOneRow, int kTiles, typename LaneX>
__device__ void add_blocks(const PackedChunk<kType>& chunk, const LaneX& columns, int block,
                           float (&acc)[kTiles][4]) {
  using Chunk = PackedChunk<kType>;
  constexpr bool kTwoGroups = Chunk::kFormat.group == 16;
  constexpr int kStep = kOneRow ? 2 : 1;
#pragma unroll
  for (int b = kFrom; b < kTo; ++b) {
    const uint32_t a[4] = {chunk.word(b, 0), chunk.word(b, 1), chunk.word(b, 2), chunk.word(b, 3)};
    float2 scale[kTwoGroups ? 2 : 1][2];
#pragma unroll
    for (int half = 0; half < (kTwoGroups ? 2 : 1); ++half) {
      scale[half][0] = chunk.scale(b, half, 0);
      scale[half][1] = chunk.scale(b, half, 1);
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint2 levels = columns.levels_of(n, block + b);
      const float4 column_scales = columns.scales_of(n, block + b);
      const float d[2] = {column_scales.x, column_scales.z};
      int sums[4];
      if constexpr (kTwoGroups) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          mma_s8_k16(sums, a[2 * half], a[2 * half + 1], half == 0 ? levels.x : levels.y,
                     kIntegerBiasBits);
#pragma unroll
          for (int i = 0; i < 4; i += kStep) {
            acc[n][i] = fmaf(scale[half][i / 2].x * d[i % 2], biased_to_float(sums[i]), acc[n][i]);
          }
        }
      } else {
        mma_s8_k32(sums, a, levels.x, levels.y, kIntegerBiasBits);
        const float d_sum[2] = {column_scales.y, column_scales.w};
#pragma unroll
        for (int i = 0; i < 4; i += kStep) {
          acc[n][i] = fmaf(scale[0][i / 2].x * d[i % 2], biased_to_float(sums[i]), acc[n][i]);
          if constexpr (Chunk::kFormat.has_min)
            acc[n][i] = fmaf(-scale[0][i / 2].y, d_sum[i % 2], acc[n][i]);
        }
      }
    }
  }
}

/// The same of 16-bit weights of type T.
template <typename T, int kTiles, typename LaneX>
__device__ void add_blocks_16bit(const PackedChunk16& chunk, const LaneX& columns, int block,
                                 float (&acc)[kTiles][4]) {
#pragma unroll
  for (int b = 0; b < PackedChunk16::kCols / 32; ++b) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint4 x = columns.values_of(n, block + b);
      const uint32_t* w = chunk.w[2 * b];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], x.x, x.y);
      w = chunk.w[2 * b + 1];
      mma_16bit<T>(acc[n], w[0], w[2], w[1], w[3], x.z, x.w);
    }
  }
}

/// One lane's share of copying a record from memory to a slot of the warp's ring.
template <int kBytes>
__device__ inline void copy_record(const std::byte* record, std::byte* slot, int lane) {
#pragma unroll
  for (int first = 0; first < kBytes; first += 32 * kCopyBytes) {
    const int offset = first + lane * kCopyBytes;
    if (offset < kBytes) copy_async(slot + offset, record + offset, true);
  }
}

template <DType kType>
using Value16 = std::conditional_t<kType == DType::kF16, __half, __nv_bfloat16>;

/// What a record of kBlocks blocks meets of a single row of levels, in the warp's ring behind it:
/// all lanes share it.
template <typename C, int kBlocks>
struct StagedRow {
  static constexpr int kLevelPieces = kBlocks * 2;        // of 16 bytes
  static constexpr int kPieces = kLevelPieces + kBlocks;  // a scale's piece holds those of two rows
  static constexpr int kBytes = kPieces * kCopyBytes;
  static_assert(kPieces <= 32, "a piece a lane");

  const std::byte* at;
  int t;

  /// One lane's share of copying what record `record` meets.
  __device__ static void fetch(const Operand& x, int record, std::byte* staged, int lane) {
    const std::byte* levels = static_cast<const std::byte*>(x.data);
    const std::byte* scales = levels + size_t(x.cols) * C::kPadded;
    const int scale = lane - kLevelPieces;
    const size_t first_block = size_t(record) * kBlocks;
    const std::byte* from =
        scale < 0 ? levels + (first_block + lane / 2) * (C::kPadded * 32) + lane % 2 * kCopyBytes
                  : scales + (first_block + scale) * (C::kPadded * 8);
    if (lane < kPieces) copy_async(staged + lane * kCopyBytes, from, true);
  }

  __device__ uint2 levels_of(int, int block) const {
    return *reinterpret_cast<const uint2*>(at + block * 32 + t * 8);
  }
  __device__ float4 scales_of(int, int block) const {
    return *reinterpret_cast<const float4*>(at + (kLevelPieces + block) * kCopyBytes);
  }
};

/// Where the warps of a product find x: the operand in memory, or a copy in shared memory of its
/// single row of levels, or a row that the thread blocks normalise there.
enum class RowSource { kOperand, kCopy, kNormed };

/// A single row of levels goes through the rings beside the weights only when a tile's records are
/// split over at least so many warps: with fewer, each would fetch most of the row.
inline constexpr int kStagedSplitsMin = 4;
/// Columns of a row that is copied, at most.
inline constexpr int kCopiedColsMax = 16384;

template <typename C, RowSource kSourceOf>
struct Input {
  static constexpr RowSource kSource = kSourceOf;
  static constexpr bool kShared = kSource != RowSource::kOperand;
  static_assert(kSource != RowSource::kCopy || C::kOneRow);
  static_assert(!kShared || C::kTiles == 1);
  const Operand& x;
  const NormedRow& row;
  std::byte* shared;  // shared_row_bytes(), with kShared

  static constexpr size_t shared_bytes(int cols) { return kShared ? shared_row_bytes(C::kOperand, cols) : 0; }
  static constexpr size_t shared_bytes_max() {
    return shared_bytes(kSource == RowSource::kCopy ? kCopiedColsMax : NormedRow::kColsMax);
  }

  /// Waits for the kernel before. Every thread of the block calls it once.
  __device__ void begin() const {
    begin_kernel();
    if constexpr (kSource == RowSource::kNormed) norm_row<C::kOperand>(row, x.cols, shared);
    if constexpr (kSource == RowSource::kCopy) copy_row<C::kPadded>(x, shared);
  }
};

/// Calls `f` with the C and the RowSource that serve a product of x in `n_splits`.
template <typename F>
cudaError_t with_source(const Operand& x, bool normed, int n_splits, F&& f) {
  return with_columns(x, [&](auto columns) {
    using C = decltype(columns);
    if constexpr (C::kTiles == 1) {
      if (normed) return f.template operator()<C, RowSource::kNormed>();
    }
    if constexpr (C::kOneRow) {
      if (n_splits < kStagedSplitsMin && x.cols <= kCopiedColsMax)
        return f.template operator()<C, RowSource::kCopy>();
    }
    return f.template operator()<C, RowSource::kOperand>();
  });
}

/// Records from .. to - 1 of a tile. Begins once the first weights are on their way.
template <typename C, DType kType, typename In>
__device__ void tile_sums(const std::byte* tile, int from, int to, const In& in, int lane,
                          std::byte* ring, float (&acc)[C::kTiles][4]) {
  constexpr bool kStaged = C::kOneRow && !In::kShared;
  constexpr PackedFormat kFormat = packed_format(kType);
  using Staged = StagedRow<C, kFormat.cols / 32>;
  constexpr int kBytes = kFormat.bytes();
  constexpr int kSlotBytes = kBytes + (kStaged ? Staged::kBytes : 0);
  constexpr int kSlots = C::kRingBytes / kSlotBytes;
  static_assert(kSlots >= 2);
  const auto fetch_weights = [&](int record, std::byte* slot) {
    if (record < to) copy_record<kBytes>(tile + size_t(record) * kBytes, slot, lane);
  };
  const auto fetch_x = [&](int record, std::byte* slot) {
    if constexpr (kStaged) {
      if (record < to) Staged::fetch(in.x, record, slot + kBytes, lane);
    }
    commit_copies();  // An empty group too: the count of groups is what is waited for.
  };
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    fetch_weights(from + i, ring + i * kSlotBytes);
    if constexpr (!kStaged) commit_copies();
  }
  in.begin();
  if constexpr (kStaged) {
    // The weights of all slots are in the first group.
#pragma unroll
    for (int i = 0; i < kSlots; ++i) fetch_x(from + i, ring + i * kSlotBytes);
  }

  const LaneColumns<C> columns(in.x, lane);
  std::byte* slot = ring;
  for (int record = from; record < to; ++record) {
    wait_copies<kSlots - 1>();
    __syncwarp();  // The other lanes' copies of this record are there too.
    const auto add = [&](const auto& lane_x, int first_block) {
      if constexpr (is_quantised(kType)) {
        PackedChunk<kType> chunk;
        chunk.load(slot, lane);
        add_blocks<kType, 0, kFormat.blocks(), C::kOneRow>(chunk, lane_x, first_block, acc);
      } else {
        PackedChunk16 chunk;
        chunk.load(slot, lane);
        add_blocks_16bit<Value16<kType>>(chunk, lane_x, first_block, acc);
      }
    };
    if constexpr (In::kShared) {
      add(SharedRow<C::kOperand>{in.shared, in.x.cols, lane % 4}, record * (kFormat.cols / 32));
    } else if constexpr (kStaged) {
      add(Staged{slot + kBytes, lane % 4}, 0);
    } else {
      add(columns, record * kFormat.cols / 32);
    }
    __syncwarp();  // All lanes have read the record that the next one takes the place of.
    fetch_weights(record + kSlots, slot);
    fetch_x(record + kSlots, slot);
    slot = slot + kSlotBytes == ring + kSlots * kSlotBytes ? ring : slot + kSlotBytes;
  }
  wait_copies<0>();
  __syncwarp();  // The ring is free for the sums.
}

/// Split `split` of `n_splits` of one tile, into [columns, kPartialStride] at the beginning of the
/// warp's ring. A warp with nothing to do (a tile behind the last one) calls it as well.
template <typename C, typename In>
__device__ void tile_partial(const PackedWeight& weight, int tile_idx, int split, int n_splits,
                             const In& in, std::byte* ring) {
  if (tile_idx * kTileRows >= weight.rows) {
    in.begin();
    return;
  }
  const int lane = threadIdx.x % 32;
  float acc[C::kTiles][4] = {};
  const auto sums = [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    constexpr PackedFormat kFormat = packed_format(kType);
    const int n_records = weight.cols / kFormat.cols;
    const std::byte* tile = weight.data + size_t(tile_idx) * n_records * kFormat.bytes();
    tile_sums<C, kType>(tile, n_records * split / n_splits, n_records * (split + 1) / n_splits, in,
                        lane, ring, acc);
  };
  with_packed_type(weight.dtype, [&](auto type) {
    if constexpr (linear_operand(decltype(type)::value) == C::kOperand) sums(type);
  });
  float* partial = reinterpret_cast<float*>(ring);
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

/// Warps that a large GPU runs at once.
inline constexpr int kWarpsAtOnce = 16 * 132;

/// Warps over which the records of a tile are split: as many as leave all warps of a product on a
/// large GPU at once, a power of two that depends on the weights alone, since it decides the order
/// of the sums.
inline int tile_splits(int n_tiles, int n_records, int splits_max) {
  int splits = 1;
  while (2 * splits <= splits_max && 2 * splits <= n_records &&
         2 * splits * n_tiles <= kWarpsAtOnce)
    splits *= 2;
  return splits;
}

/// Whether `row` can stand in for `x`.
inline bool normed_row_valid(const NormedRow& row, const Operand& x) {
  return x.n_rows == 1 && x.cols <= NormedRow::kColsMax && x.cols % 32 == 0 && row.weight != nullptr;
}

inline bool weight_valid(const PackedWeight& weight, const Operand& x) {
  return weight.rows > 0 && weight.cols == x.cols &&
         packed_bytes(weight.dtype, weight.rows, weight.cols) > 0 &&
         x.type == linear_operand(weight.dtype);
}

}  // namespace nosa::cuda
