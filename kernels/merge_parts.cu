// One thread for 4 values of a row's output. The parts' sums are independent loads, so all are on
// their way at once; their weights are worked out meanwhile, a part a lane.
#include <algorithm>

#include "attend_blocks.h"
#include "common/attention_parts.cuh"
#include "common/launch.cuh"
#include "common/mma.cuh"
#include "common/operand.cuh"
#include "common/rows.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 128;

static_assert(kPartsMax == kWarp, "a part a lane");

/// For at most kParts parts.
template <int kHeadDim, int kParts>
__global__ void __launch_bounds__(kThreads) merge_parts_kernel(MergePartsParams p, int n_parts) {
  constexpr int kHeadLanes = kHeadDim / 4;  // threads of a head
  constexpr int kWarpHeads = kWarp / kHeadLanes;
  const int row = blockIdx.y;
  const bool idle = read_place(p.rows, row).lane < 0;
  begin_kernel_before_product();
  const int quad = blockIdx.x * kThreads + threadIdx.x;
  const int lane = threadIdx.x % kWarp;
  const bool there = quad < p.n_heads * kHeadLanes;
  const int head = min(quad / kHeadLanes, p.n_heads - 1);
  const PartsView parts(const_cast<std::byte*>(p.parts), int(gridDim.y), p.n_heads);
  const size_t first_part = (size_t(row) * p.n_heads + head) * kPartsMax;

  // An idle row's parts are read like any other, and thrown away.
  const auto* sums =
      reinterpret_cast<const float4*>(parts.sums + first_part * kHeadDim) + quad % kHeadLanes;
  float4 values[kParts];
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    values[i] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (i < n_parts) values[i] = sums[size_t(i) * kHeadLanes];
  }
  __syncthreads();  // Keeps the compiler from moving the loads down to where they are used, one
                    // after the other.
  float weights[kWarpHeads];  // of part `lane`, for each head of the warp
  float totals[kWarpHeads];
#pragma unroll
  for (int h = 0; h < kWarpHeads; ++h) {
    const size_t first = __shfl_sync(kAllLanes, first_part, h * kHeadLanes);
    const PartTotal part = lane < n_parts ? parts.totals[first + lane] : PartTotal{-INFINITY, 0.0f};
    const float highest = warp_max(part.peak);
    weights[h] = highest == -INFINITY || lane >= n_parts ? 0.0f : exp2f(part.peak - highest);
    totals[h] = warp_sum(weights[h] * part.total);
  }
  float4 out = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const float of_first = __shfl_sync(kAllLanes, weights[0], i);
    const float of_last = __shfl_sync(kAllLanes, weights[kWarpHeads - 1], i);
    const float weight = lane < kHeadLanes ? of_first : of_last;
    out.x += weight * values[i].x;
    out.y += weight * values[i].y;
    out.z += weight * values[i].z;
    out.w += weight * values[i].w;
  }
  const float total = lane < kHeadLanes ? totals[0] : totals[kWarpHeads - 1];
  const float scale = total > 0.0f ? 1.0f / total : 0.0f;
  out = {out.x * scale, out.y * scale, out.z * scale, out.w * scale};
  if (idle) out = {0.0f, 0.0f, 0.0f, 0.0f};
  if (p.out_f32 != nullptr && there)
    reinterpret_cast<float4*>(p.out_f32 + row * p.out_stride)[quad] = out;
  if (p.out.data != nullptr) store_quad(p.out, row, quad, out, there);
}

template <int kHeadDim>
cudaError_t launch_merge(const MergePartsParams& p, int n_rows, int n_parts, cudaStream_t stream) {
  constexpr int kFew = 4;
  const dim3 grid((p.n_heads * kHeadDim / 4 + kThreads - 1) / kThreads, n_rows);
  const auto kernel = n_parts <= kFew ? merge_parts_kernel<kHeadDim, kFew>
                                      : merge_parts_kernel<kHeadDim, kPartsMax>;
  return launch(kernel, grid, kThreads, 0, stream, p, n_parts);
}

}  // namespace

cudaError_t merge_parts(const MergePartsParams& p, cudaStream_t stream) {
  const int n_rows = p.rows.n_seqs * p.rows.n_queries;
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax)
    return cudaErrorInvalidValue;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0 || p.out_stride % 4 != 0)
    return cudaErrorInvalidValue;
  if (p.out.data != nullptr &&
      (!operand_valid(p.out) || p.out.n_rows != n_rows || p.out.cols != p.n_heads * p.head_dim)) {
    return cudaErrorInvalidValue;
  }
  if (p.rows.n_seqs == 0) return cudaSuccess;
  int n_parts = 0;
  const int n_tiles = (p.n_heads / p.n_kv_heads + kTileHeads - 1) / kTileHeads;
  const cudaError_t error = part_count(n_rows * p.n_kv_heads * n_tiles, &n_parts);
  if (error != cudaSuccess) return error;
  switch (p.head_dim) {
    case 64:
      return launch_merge<64>(p, n_rows, n_parts, stream);
    case 128:
      return launch_merge<128>(p, n_rows, n_parts, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nosa::cuda
