// A block has some tiles of 16 weight rows; the records of a tile are split over some of its warps (see
// common/linear_tile.cuh), whose sums meet in shared memory and are added in order. The targets' tiles follow one
// another, so that q, k and v are one launch.
#include "linear.h"

#include "common/linear_tile.cuh"

namespace nosa::cuda {
namespace {

constexpr int kSplitsMax = 8;
constexpr int kThreadsMax = 32 * kSplitsMax;
constexpr int kWarpsSmall = 4;  // of a block, unless one tile needs more

struct Work {
  LinearTarget targets[kLinearTargetsMax];
  int first_tile[kLinearTargetsMax + 1];  // of each target; the rest holds the number of all tiles
  Operand x;
  int n_splits;
  int tiles_per_block;
  bool accumulate;
};

template <typename C>
__global__ void __launch_bounds__(kThreadsMax, C::kThreads / kThreadsMax)
    linear_kernel(const __grid_constant__ Work work) {
  extern __shared__ __align__(128) std::byte rings[];  // [warps, kRingBytes]
  const int warp = threadIdx.x / 32;
  const auto target_of = [&](int tile) {
    int target = 0;
    while (target + 1 < kLinearTargetsMax && tile >= work.first_tile[target + 1]) ++target;
    return target;
  };
  const int first_tile = blockIdx.x * work.tiles_per_block;
  const int first_column = blockIdx.y * C::kCount;
  {
    const int tile = first_tile + warp / work.n_splits;
    const int target = target_of(tile);
    tile_partial<C>(work.targets[target].weight, tile - work.first_tile[target], warp % work.n_splits,
                               work.n_splits, work.x, first_column, rings + warp * kRingBytes);
  }
  __syncthreads();  // Every warp's partial sums are there.

  const int n_columns = min(C::kCount, work.x.n_rows - first_column);
  const int n_outputs = work.tiles_per_block * n_columns * kTileRows;
  for (int i = threadIdx.x; i < n_outputs; i += blockDim.x) {
    const int r = i % kTileRows;
    const int column = i / kTileRows % n_columns;
    const int block_tile = i / kTileRows / n_columns;
    const int tile = first_tile + block_tile;
    if (tile >= work.first_tile[kLinearTargetsMax]) return;
    const LinearTarget& target = work.targets[target_of(tile)];
    const int row = (tile - work.first_tile[target_of(tile)]) * kTileRows + r;
    if (row >= target.weight.rows) continue;
    const std::byte* ring = rings + block_tile * work.n_splits * kRingBytes;
    float sum = 0.0f;
    for (int split = 0; split < work.n_splits; ++split) {
      sum += reinterpret_cast<const float*>(ring + split * kRingBytes)[column * kPartialStride + r];
    }
    if (target.bias != nullptr) sum += target.bias[row];
    float* out = target.out + size_t(first_column + column) * target.weight.rows + row;
    *out = work.accumulate ? *out + sum : sum;
  }
}

template <typename C>
cudaError_t start(const Work& work, cudaStream_t stream) {
  const int n_tiles = work.first_tile[kLinearTargetsMax];
  const int n_warps = work.tiles_per_block * work.n_splits;
  const auto kernel = linear_kernel<C>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSplitsMax * kRingBytes);
      error != cudaSuccess) {
    return error;
  }
  const dim3 grid((n_tiles + work.tiles_per_block - 1) / work.tiles_per_block,
                  (work.x.n_rows + C::kCount - 1) / C::kCount);
  return launch(kernel, grid, 32 * n_warps, size_t(n_warps) * kRingBytes, stream, work);
}

}  // namespace

cudaError_t linear(const LinearParams& p, cudaStream_t stream) {
  if (p.n_targets < 1 || p.n_targets > kLinearTargetsMax || p.x.n_rows < 0 || p.x.n_rows > kLinearRowsMax) {
    return cudaErrorInvalidValue;
  }
  Work work = {.x = p.x, .accumulate = p.accumulate};
  int n_tiles = 0;
  int n_records = p.x.cols;
  for (int i = 0; i < kLinearTargetsMax; ++i) {
    work.first_tile[i] = n_tiles;
    if (i >= p.n_targets) continue;
    const PackedWeight& weight = p.targets[i].weight;
    if (!weight_valid(weight, p.x)) return cudaErrorInvalidValue;
    work.targets[i] = p.targets[i];
    n_tiles += (weight.rows + kTileRows - 1) / kTileRows;
    n_records = std::min(n_records, weight.cols / packed_format(weight.dtype).cols);
  }
  work.first_tile[kLinearTargetsMax] = n_tiles;
  if (p.x.n_rows == 0) return cudaSuccess;
  work.n_splits = tile_splits(n_tiles, n_records, kSplitsMax);
  work.tiles_per_block = std::max(1, kWarpsSmall / work.n_splits);
  return with_columns(p.x, [&](auto columns) { return start<decltype(columns)>(work, stream); });
}

}  // namespace nosa::cuda
