// A block has some tiles of 16 weight rows; the records of a tile are split over some of its warps (see
// common/linear_tile.cuh), whose sums meet in shared memory and are added in order. The targets' tiles follow one
// another, so that q, k and v are one launch. More than 16 rows are wide_product's, and are joined here.
#include "linear.h"

#include "common/linear_tile.cuh"
#include "wide_product.h"

namespace nosa::cuda {
namespace {

constexpr int kSplitsMax = 8;
constexpr int kThreadsMax = 32 * kSplitsMax;
constexpr int kWarpsSmall = 4;  // of a block, unless one tile needs more

struct Work {
  LinearTarget targets[kLinearTargetsMax];
  int first_tile[kLinearTargetsMax + 1];  // of each target; the rest holds the number of all tiles
  Operand x;
  NormedRow row;
  int n_splits;
  int tiles_per_block;
  bool accumulate;
};

template <typename C, RowSource kSource>
__global__ void __launch_bounds__(kThreadsMax, C::kThreads / kThreadsMax)
    linear_kernel(const __grid_constant__ Work work) {
  extern __shared__ __align__(128) std::byte rings[];  // [warps, C::kRingBytes], then the normalised row
  const int warp = threadIdx.x / 32;
  const Input<C, kSource> in{work.x, work.row, rings + size_t(blockDim.x / 32) * C::kRingBytes};
  const auto target_of = [&](int tile) {
    int target = 0;
    while (target + 1 < kLinearTargetsMax && tile >= work.first_tile[target + 1]) ++target;
    return target;
  };
  const int first_tile = blockIdx.x * work.tiles_per_block;
  {
    const int tile = first_tile + warp / work.n_splits;
    const int target = target_of(tile);
    tile_partial<C>(work.targets[target].weight, tile - work.first_tile[target], warp % work.n_splits, work.n_splits,
                    in, rings + warp * C::kRingBytes);
  }
  __syncthreads();  // Every warp's partial sums are there.

  const int n_outputs = work.tiles_per_block * work.x.n_rows * kTileRows;
  for (int i = threadIdx.x; i < n_outputs; i += blockDim.x) {
    const int r = i % kTileRows;
    const int column = i / kTileRows % work.x.n_rows;
    const int block_tile = i / kTileRows / work.x.n_rows;
    const int tile = first_tile + block_tile;
    if (tile >= work.first_tile[kLinearTargetsMax]) return;
    const LinearTarget& target = work.targets[target_of(tile)];
    const int row = (tile - work.first_tile[target_of(tile)]) * kTileRows + r;
    if (row >= target.weight.rows) continue;
    const std::byte* ring = rings + block_tile * work.n_splits * C::kRingBytes;
    float sum = 0.0f;
    for (int split = 0; split < work.n_splits; ++split) {
      sum += reinterpret_cast<const float*>(ring + split * C::kRingBytes)[column * kPartialStride + r];
    }
    if (target.bias != nullptr) sum += target.bias[row];
    float* out = target.out + size_t(column) * target.weight.rows + row;
    *out = work.accumulate ? *out + sum : sum;
  }
}

template <typename C, RowSource kSource>
cudaError_t start(const Work& work, cudaStream_t stream) {
  const int n_tiles = work.first_tile[kLinearTargetsMax];
  const int n_warps = work.tiles_per_block * work.n_splits;
  const auto kernel = linear_kernel<C, kSource>;
  constexpr size_t kBytesMax = kSplitsMax * C::kRingBytes + Input<C, kSource>::shared_bytes_max();
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, kBytesMax); error != cudaSuccess) return error;
  const dim3 grid((n_tiles + work.tiles_per_block - 1) / work.tiles_per_block);
  const size_t shared_bytes = size_t(n_warps) * C::kRingBytes + Input<C, kSource>::shared_bytes(work.x.cols);
  return launch(kernel, grid, 32 * n_warps, shared_bytes, stream, work);
}

constexpr int kJoinThreads = 256;

struct Join {
  LinearTarget targets[kLinearTargetsMax];
  const float* sums[kLinearTargetsMax];  // [n_splits, n_rows, rows]
  int n_targets;
  int n_rows;
  int n_splits;
  bool accumulate;
};

/// One thread per output.
__global__ void join_kernel(const __grid_constant__ Join join) {
  begin_kernel();
  int64_t at = int64_t(blockIdx.x) * kJoinThreads + threadIdx.x;
  for (int i = 0; i < join.n_targets; ++i) {
    const LinearTarget& target = join.targets[i];
    const int64_t n_outputs = int64_t(join.n_rows) * target.weight.rows;
    if (at >= n_outputs) {
      at -= n_outputs;
      continue;
    }
    float sum = 0.0f;
    for (int split = 0; split < join.n_splits; ++split) sum += join.sums[i][split * n_outputs + at];
    if (target.bias != nullptr) sum += target.bias[at % target.weight.rows];
    target.out[at] = join.accumulate ? target.out[at] + sum : sum;
    return;
  }
}

cudaError_t wide(const LinearParams& p, int n_splits, cudaStream_t stream) {
  WideProductParams product = {.n_targets = p.n_targets, .x = p.x, .n_splits = n_splits};
  Join join = {.n_targets = p.n_targets, .n_rows = p.x.n_rows, .n_splits = n_splits, .accumulate = p.accumulate};
  bool plain = n_splits == 1 && !p.accumulate;
  for (int i = 0; i < p.n_targets; ++i) plain = plain && p.targets[i].bias == nullptr;
  if (!plain && p.scratch == nullptr) return cudaErrorInvalidValue;
  float* scratch = p.scratch;
  int64_t n_outputs = 0;
  for (int i = 0; i < p.n_targets; ++i) {
    const LinearTarget& target = p.targets[i];
    product.targets[i] = {target.weight, plain ? target.out : scratch};
    join.targets[i] = target;
    join.sums[i] = scratch;
    n_outputs += int64_t(p.x.n_rows) * target.weight.rows;
    if (!plain) scratch += int64_t(n_splits) * p.x.n_rows * target.weight.rows;
  }
  const cudaError_t error = wide_product(product, stream);
  if (error != cudaSuccess || plain) return error;
  return launch(join_kernel, unsigned((n_outputs + kJoinThreads - 1) / kJoinThreads), kJoinThreads, 0, stream, join);
}

}  // namespace

size_t linear_scratch_bytes(int n_rows, int rows) {
  // Splits times rows is at most what keeps all warps busy, or there is one split.
  return n_rows <= kNarrowRowsMax ? 0
                                  : size_t(n_rows) * size_t(std::max(rows, kWarpsAtOnce * kTileRows)) * sizeof(float);
}

cudaError_t linear(const LinearParams& p, cudaStream_t stream) {
  if (p.n_targets < 1 || p.n_targets > kLinearTargetsMax || p.x.n_rows < 0 || p.x.n_rows > kLinearRowsMax) {
    return cudaErrorInvalidValue;
  }
  const bool normed = p.row.x != nullptr;
  if (normed && !normed_row_valid(p.row, p.x)) return cudaErrorInvalidValue;
  Work work = {.x = p.x, .row = p.row, .accumulate = p.accumulate};
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
  if (p.x.n_rows > kNarrowRowsMax) return wide(p, work.n_splits, stream);
  work.tiles_per_block = std::max(1, kWarpsSmall / work.n_splits);
  return with_source(p.x, normed, work.n_splits, [&]<typename C, RowSource kSource>() { return start<C, kSource>(work, stream); });
}

}  // namespace nosa::cuda
