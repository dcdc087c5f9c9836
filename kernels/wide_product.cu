// A block of 8 warps takes 8 tiles of one weight and one run of its records; a warp has a tile (see
// common/linear_tile.cuh). With this many rows x is larger than the weights that meet it, so all warps share what comes
// of it: 64 columns at a time into shared memory, some stages ahead. The arithmetic on a column is that of few rows, in
// the same order, so that a row's result does not depend on how many there are.
#include "wide_product.h"

#include <utility>

#include "common/linear_tile.cuh"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 4;
constexpr int kRingBytes = 7168;  // of a warp's weights
constexpr int kUnitCols = 64;
constexpr int kUnitBlocks = kUnitCols / 32;
constexpr int kRowBytes16 = kUnitCols * 2;  // of a row of 16-bit values in a stage

struct Work {
  WideTarget targets[kWideTargetsMax];
  int first_block[kWideTargetsMax + 1];  // of each target; the rest holds the number of all blocks
  Operand x;
  int n_splits;
};

template <OperandType kOperand, int kTiles>
struct Stage {
  static constexpr int kRows = kTiles * kColumnTile;
  static constexpr int kLevelBytes = kUnitBlocks * kRows * 32;
  static constexpr int kBytes =
      kOperand == OperandType::kQ8 ? kLevelBytes + kUnitBlocks * kRows * 8 : kRows * kRowBytes16;

  /// Copies columns 64 unit .. + 63 of x.
  __device__ static void fetch(const Operand& x, int unit, std::byte* stage) {
    const std::byte* data = static_cast<const std::byte*>(x.data);
    if constexpr (kOperand == OperandType::kQ8) {
      // Blocks follow one another, in memory as in the stage.
      const std::byte* levels = data + size_t(unit) * kLevelBytes;
      const std::byte* scales = data + size_t(x.cols) * kRows + size_t(unit) * kUnitBlocks * kRows * 8;
      for (int at = threadIdx.x * kCopyBytes; at < kBytes; at += kThreads * kCopyBytes) {
        copy_async(stage + at, at < kLevelBytes ? levels + at : scales + (at - kLevelBytes), true);
      }
    } else {
      constexpr int kChunks = kRowBytes16 / kCopyBytes;
      for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
        const int row = i / kChunks;
        const int chunk = i % kChunks;
        const bool valid = row < x.n_rows;
        const std::byte* from = data + (size_t(valid ? row : 0) * x.cols + unit * kUnitCols) * 2;
        copy_async(stage + place(row, chunk), from + chunk * kCopyBytes, valid);
      }
    }
  }

  /// Odd rows have their halves swapped, so that two rows' chunks of one block are in different banks.
  __device__ static int place(int row, int chunk) { return row * kRowBytes16 + (chunk ^ (row % 2 * 4)) * kCopyBytes; }
};

/// What a lane reads of x, from a stage; `block` counts from the stage's first.
template <OperandType kOperand, int kTiles>
struct StageColumns {
  using S = Stage<kOperand, kTiles>;
  const std::byte* stage;
  int g, t;

  __device__ uint2 levels_of(int n, int block) const {
    return *reinterpret_cast<const uint2*>(stage + (block * S::kRows + n * kColumnTile + g) * 32 + t * 8);
  }
  __device__ float4 scales_of(int n, int block) const {
    const int pair = (block * S::kRows + n * kColumnTile) / 2 + t;
    return *reinterpret_cast<const float4*>(stage + S::kLevelBytes + pair * 16);
  }
  __device__ uint4 values_of(int n, int block) const {
    return *reinterpret_cast<const uint4*>(stage + S::place(n * kColumnTile + g, 4 * block + t));
  }
};

template <DType kType, OperandType kOperand, int kTiles>
__device__ void run_sums(const PackedWeight& weight, int tile, int split, const Work& work, std::byte* stages,
                         std::byte* ring, float (&acc)[kTiles][4]) {
  using S = Stage<kOperand, kTiles>;
  constexpr PackedFormat kFormat = packed_format(kType);
  constexpr int kBytes = kFormat.bytes();
  constexpr int kUnits = kFormat.cols / kUnitCols;
  constexpr int kSlots = kRingBytes / kBytes;
  static_assert((kSlots - 1) * kUnits + 1 >= kStages - 1, "a record's successor is there when it is wanted");
  const int lane = threadIdx.x % 32;
  const int n_records = weight.cols / kFormat.cols;
  const int from = n_records * split / work.n_splits;
  const int to = n_records * (split + 1) / work.n_splits;
  const std::byte* records = weight.data + size_t(tile) * n_records * kBytes;
  const auto fetch_record = [&](int record, std::byte* slot) {
    if (record < to) copy_record<kBytes>(records + size_t(record) * kBytes, slot, lane);
  };
  const auto fetch_stage = [&](int unit) {
    if (unit < to * kUnits) S::fetch(work.x, unit, stages + unit % kStages * S::kBytes);
  };

#pragma unroll
  for (int i = 0; i < kSlots; ++i) fetch_record(from + i, ring + i * kBytes);
  begin_kernel();
  for (int i = 0; i < kStages - 1; ++i) {
    fetch_stage(from * kUnits + i);
    commit_copies();
  }
  std::byte* slot = ring;
  for (int record = from; record < to; ++record) {
    const auto add_unit = [&]<int kUnit>(std::integral_constant<int, kUnit>) {
      const int unit = record * kUnits + kUnit;
      wait_copies<kStages - 2>();
      __syncthreads();  // This stage is there for all, and the one before it is no longer read.
      fetch_stage(unit + kStages - 1);
      const StageColumns<kOperand, kTiles> columns{stages + unit % kStages * S::kBytes, lane / 4, lane % 4};
      if constexpr (is_quantised(kType)) {
        PackedChunk<kType> chunk;  // Only what these blocks need of it is loaded.
        chunk.load(slot, lane);
        constexpr int kFirst = kUnit * kUnitBlocks;
        add_blocks<kType, kFirst, kFirst + kUnitBlocks, false>(chunk, columns, -kFirst, acc);
      } else {
        PackedChunk16 chunk;
        chunk.load(slot, lane);
        add_blocks_16bit<Value16<kType>>(chunk, columns, 0, acc);
      }
      if constexpr (kUnit == kUnits - 1) {
        __syncwarp();  // All lanes have read the record that the next one takes the place of.
        fetch_record(record + kSlots, slot);
      }
      commit_copies();  // An empty group too: the count of groups is what is waited for.
    };
    [&]<int... kUnit>(std::integer_sequence<int, kUnit...>) { (add_unit(std::integral_constant<int, kUnit>()), ...); }
    (std::make_integer_sequence<int, kUnits>());
    slot = slot + kBytes == ring + kSlots * kBytes ? ring : slot + kBytes;
  }
}

template <OperandType kOperand, int kTiles>
__global__ void __launch_bounds__(kThreads, 2) wide_kernel(const __grid_constant__ Work work) {
  extern __shared__ __align__(128) std::byte shared[];  // [kStages, stage], [kWarps, kRingBytes]
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  int target = 0;
  while (target + 1 < kWideTargetsMax && int(blockIdx.x) >= work.first_block[target + 1]) ++target;
  const PackedWeight& weight = work.targets[target].weight;
  const int tile = (int(blockIdx.x) - work.first_block[target]) * kWarps + warp;
  const int last_tile = (weight.rows + kTileRows - 1) / kTileRows - 1;
  float acc[kTiles][4] = {};
  with_packed_type(weight.dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    if constexpr (linear_operand(kType) == kOperand) {
      // A tile behind the last one is computed like it, for the barriers' sake, and not stored.
      run_sums<kType, kOperand, kTiles>(weight, min(tile, last_tile), blockIdx.y, work, shared,
                                        shared + kStages * Stage<kOperand, kTiles>::kBytes + warp * kRingBytes, acc);
    }
  });

  const int g = lane / 4;
  const int t = lane % 4;
  float* sums = work.targets[target].sums + size_t(blockIdx.y) * work.x.n_rows * weight.rows;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = n * kColumnTile + 2 * t + i % 2;
      const int row = tile * kTileRows + g + 8 * (i / 2);
      if (column < work.x.n_rows && row < weight.rows) sums[size_t(column) * weight.rows + row] = acc[n][i];
    }
  }
}

template <OperandType kOperand, int kTiles>
cudaError_t start(const Work& work, cudaStream_t stream) {
  constexpr int kBytes = kStages * Stage<kOperand, kTiles>::kBytes + kWarps * kRingBytes;
  static_assert(kBytes <= 99 * 1024, "what every target has");
  const auto kernel = wide_kernel<kOperand, kTiles>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, kBytes); error != cudaSuccess) return error;
  const dim3 grid(work.first_block[kWideTargetsMax], work.n_splits);
  return launch(kernel, grid, kThreads, kBytes, stream, work);
}

template <OperandType kOperand>
cudaError_t start(const Work& work, cudaStream_t stream) {
  if (work.x.n_rows <= 32) return start<kOperand, 4>(work, stream);
  // Shared memory's bandwidth bounds these, and every column tile costs some of it. The stages of levels are runs of the
  // operand's memory, which has 32 or 64 rows.
  if constexpr (kOperand != OperandType::kQ8) {
    if (work.x.n_rows <= 40) return start<kOperand, 5>(work, stream);
    if (work.x.n_rows <= 48) return start<kOperand, 6>(work, stream);
    if (work.x.n_rows <= 56) return start<kOperand, 7>(work, stream);
  }
  return start<kOperand, 8>(work, stream);
}

}  // namespace

cudaError_t wide_product(const WideProductParams& p, cudaStream_t stream) {
  if (p.n_targets < 1 || p.n_targets > kWideTargetsMax || p.x.n_rows <= kNarrowRowsMax || p.x.n_rows > 64 ||
      p.n_splits < 1) {
    return cudaErrorInvalidValue;
  }
  Work work = {.x = p.x, .n_splits = p.n_splits};
  int n_blocks = 0;
  for (int i = 0; i < kWideTargetsMax; ++i) {
    work.first_block[i] = n_blocks;
    if (i >= p.n_targets) continue;
    if (!weight_valid(p.targets[i].weight, p.x) || p.targets[i].sums == nullptr) return cudaErrorInvalidValue;
    work.targets[i] = p.targets[i];
    n_blocks += (p.targets[i].weight.rows + kWarps * kTileRows - 1) / (kWarps * kTileRows);
  }
  work.first_block[kWideTargetsMax] = n_blocks;
  switch (p.x.type) {
    case OperandType::kQ8:
      return start<OperandType::kQ8>(work, stream);
    case OperandType::kF16:
      return start<OperandType::kF16>(work, stream);
    case OperandType::kBF16:
      return start<OperandType::kBF16>(work, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace nosa::cuda
