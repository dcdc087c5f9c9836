// Sums and scans within a warp or a thread block. Device code only.
#pragma once

#include <cuda_runtime.h>

namespace nosa::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

/// The sum over all threads of the block, in each of them. `scratch` holds one value a warp.
template <int kThreads>
__device__ float block_sum(float x, float* scratch) {
  constexpr int n_warps = kThreads / kWarp;
  x = warp_sum(x);
  __syncthreads();  // An earlier use of scratch is over.
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();  // Every warp's sum is there.
  float total = 0.0f;
  for (int warp = 0; warp < n_warps; ++warp) total += scratch[warp];
  return total;
}

/// How much lower-numbered threads hold, and through `total` what all hold. `scratch`: one value a
/// warp.
template <int kThreads>
__device__ int exclusive_scan(int x, int* scratch, int& total) {
  constexpr int n_warps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp;
  int inclusive = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const int below = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += below;
  }
  __syncthreads();  // An earlier use of scratch is over.
  if (lane == kWarp - 1) scratch[threadIdx.x / kWarp] = inclusive;
  __syncthreads();  // Every warp's total is there.
  int before = 0;
  total = 0;
  for (int warp = 0; warp < n_warps; ++warp) {
    if (warp < int(threadIdx.x) / kWarp) before += scratch[warp];
    total += scratch[warp];
  }
  return before + inclusive - x;
}

/// How many lower-numbered threads hold true, and through `total` how many do. One barrier;
/// `scratch`, one value a warp, must not be in use from before.
template <int kThreads>
__device__ int exclusive_count(bool holds, unsigned* scratch, int& total) {
  constexpr int n_warps = kThreads / kWarp;
  const unsigned ballot = __ballot_sync(kAllLanes, holds);
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) scratch[warp] = ballot;
  __syncthreads();  // Every warp's ballot is there.
  int before = __popc(ballot & ((1u << lane) - 1));
  total = 0;
#pragma unroll
  for (int w = 0; w < n_warps; ++w) {
    const int count = __popc(scratch[w]);
    if (w < warp) before += count;
    total += count;
  }
  return before;
}

}  // namespace nosa::cuda
