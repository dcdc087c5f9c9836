// A block makes 32 outputs, one block of the operand that follows: two tiles of the gate and two of the other half,
// each with its records split over some warps (see common/linear_tile.cuh). More than 16 rows are wide_product's, and
// are joined here.
#include "gated_linear.h"

#include "common/linear_tile.cuh"
#include "common/silu.cuh"
#include "linear.h"
#include "wide_product.h"

namespace nosa::cuda {
namespace {

constexpr int kTiles = 4;  // gate, gate, up, up
constexpr int kSplitsMax = 2;
constexpr int kThreadsMax = 32 * kTiles * kSplitsMax;
constexpr int kBlockRows = 2 * kTileRows;
static_assert(kBlockRows == 32, "a block of outputs is a warp wide");

/// Lane r's value of row `row`, of an aligned run of 32.
__device__ void store_lane(const Operand& out, int row, int block, int lane, float value) {
  const int place = 4 * place_of(lane / 4) + lane % 4;
  const size_t at = size_t(row) * out.cols + block * 32 + place;
  if (out.type == OperandType::kF16) {
    static_cast<uint16_t*>(out.data)[at] = uint16_t(pack_f16(value, 0.0f));
    return;
  }
  if (out.type == OperandType::kBF16) {
    static_cast<uint16_t*>(out.data)[at] = uint16_t(pack_bf16(value, 0.0f));
    return;
  }
  float peak = fabsf(value);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, step));
  const int level = __float2int_rn(value * (peak > 0.0f ? 127.0f / peak : 0.0f));
  int sum = level;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  operand_levels(out, row, block)[place] = int8_t(level);
  if (lane == 0) {
    const float d = peak / 127.0f;
    operand_scales(out)[size_t(block) * rows_padded(out.n_rows) + row] = make_float2(d, d * float(sum));
  }
}

template <typename C, RowSource kSource>
__global__ void __launch_bounds__(kThreadsMax, C::kThreads / kThreadsMax)
    gated_linear_kernel(const __grid_constant__ GatedLinearParams p, int n_splits) {
  extern __shared__ __align__(128) std::byte rings[];  // [kTiles, splits, C::kRingBytes], then the normalised row
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int tile = warp / n_splits;
  const Input<C, kSource> in{p.x, p.row, rings + size_t(blockDim.x / 32) * C::kRingBytes};
  tile_partial<C>(tile < 2 ? p.gate : p.up, blockIdx.x * 2 + tile % 2, warp % n_splits, n_splits, in,
                  rings + warp * C::kRingBytes);
  __syncthreads();  // Every warp's partial sums are there.

  for (int column = warp; column < p.x.n_rows; column += blockDim.x / 32) {
    const auto sum_of = [&](int first_tile) {
      const std::byte* ring = rings + (first_tile + lane / kTileRows) * n_splits * C::kRingBytes;
      float sum = 0.0f;
      for (int split = 0; split < n_splits; ++split) {
        sum += reinterpret_cast<const float*>(ring + split * C::kRingBytes)[column * kPartialStride + lane % kTileRows];
      }
      return sum;
    };
    store_lane(p.out, column, blockIdx.x, lane, gated(sum_of(0), sum_of(2)));
  }
}

template <typename C, RowSource kSource>
cudaError_t start(const GatedLinearParams& p, int n_splits, cudaStream_t stream) {
  const int n_warps = kTiles * n_splits;
  const auto kernel = gated_linear_kernel<C, kSource>;
  constexpr size_t kBytesMax = kTiles * kSplitsMax * C::kRingBytes + Input<C, kSource>::shared_bytes_max();
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, kBytesMax); error != cudaSuccess) return error;
  return launch(kernel, p.gate.rows / kBlockRows, 32 * n_warps, size_t(n_warps) * C::kRingBytes + Input<C, kSource>::shared_bytes(p.x.cols), stream, p, n_splits);
}

constexpr int kJoinThreads = 256;

/// One thread per 4 outputs. sums: [2, n_splits, n_rows, cols of out], gate then up.
__global__ void join_kernel(Operand out, const float* sums, int n_splits) {
  begin_kernel();
  const int64_t at = int64_t(blockIdx.x) * kJoinThreads + threadIdx.x;
  const int n_quads = out.cols / 4;
  const int64_t n_all = int64_t(out.n_rows) * n_quads;
  const bool valid = at < n_all;
  const auto sum_of = [&](int half) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int split = 0; valid && split < n_splits; ++split) {
      const float4 v = reinterpret_cast<const float4*>(sums)[(half * n_splits + split) * n_all + at];
      sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    return sum;
  };
  const float4 g = sum_of(0);
  const float4 u = sum_of(1);
  const float4 y = make_float4(gated(g.x, u.x), gated(g.y, u.y), gated(g.z, u.z), gated(g.w, u.w));
  store_quad(out, int(at / n_quads), int(at % n_quads), y, valid);
}

cudaError_t wide(const GatedLinearParams& p, int n_splits, cudaStream_t stream) {
  if (p.scratch == nullptr) return cudaErrorInvalidValue;
  float* up_sums = p.scratch + size_t(n_splits) * p.x.n_rows * p.gate.rows;
  const WideProductParams product = {{{p.gate, p.scratch}, {p.up, up_sums}}, 2, p.x, n_splits};
  if (const cudaError_t error = wide_product(product, stream); error != cudaSuccess) return error;
  const int64_t n_threads = int64_t(p.x.n_rows) * (p.gate.rows / 4);
  const unsigned grid = unsigned((n_threads + kJoinThreads - 1) / kJoinThreads);
  return launch(join_kernel, grid, kJoinThreads, 0, stream, p.out, static_cast<const float*>(p.scratch), n_splits);
}

}  // namespace

cudaError_t gated_linear(const GatedLinearParams& p, cudaStream_t stream) {
  if (p.x.n_rows < 0 || p.x.n_rows > kLinearRowsMax || p.out.n_rows != p.x.n_rows || !operand_valid(p.out) ||
      !weight_valid(p.gate, p.x) || !weight_valid(p.up, p.x) || p.gate.rows != p.up.rows || p.gate.rows != p.out.cols) {
    return cudaErrorInvalidValue;
  }
  const bool normed = p.row.x != nullptr;
  if (normed && !normed_row_valid(p.row, p.x)) return cudaErrorInvalidValue;
  if (p.x.n_rows == 0) return cudaSuccess;
  const int n_records = p.x.cols / std::max(packed_format(p.gate.dtype).cols, packed_format(p.up.dtype).cols);
  const int n_splits = tile_splits(2 * p.gate.rows / kTileRows, n_records, kSplitsMax);
  if (p.x.n_rows > kNarrowRowsMax) return wide(p, n_splits, stream);
  return with_source(p.x, normed, n_splits, [&]<typename C, RowSource kSource>() { return start<C, kSource>(p, n_splits, stream); });
}

}  // namespace nosa::cuda
