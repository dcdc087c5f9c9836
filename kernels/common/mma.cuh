// Tensor core products of 16 x 8 x 16 halves with float sums, and how query heads are laid out for
// them. Device code only, sm_80 and up.
//
// The sum over a head's dimensions may run in any order, so its order is chosen for the loads: lane
// l holds row l / 4 of the keys and 8 consecutive dimensions, 16 bytes, of each 32: dimensions 32 j
// + 8 (l mod 4) .. + 7, which serve two products. load_queries() lays the queries out to match.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/reduce.cuh"

namespace nosa::cuda {

inline constexpr int kTileHeads = 16;  // query heads of a product

/// c[16, 8] += a[16, 16] b[16, 8]; c.x, c.y are row lane / 4 and columns 2 (lane mod 4), + 1; c.z,
/// c.w eight rows on.
__device__ inline void mma(float4& c, const uint4& a, uint32_t b_low, uint32_t b_high) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c.x), "+f"(c.y), "+f"(c.z), "+f"(c.w)
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b_low), "r"(b_high));
}

__device__ inline uint32_t pack(__half low, __half high) {
  return uint32_t(__half_as_ushort(low)) | uint32_t(__half_as_ushort(high)) << 16;
}

/// Up to 16 query heads as the left operand: each value as the sum of two halves, which is exact to
/// 2^-22.
template <int kHeadDim>
struct QueryTile {
  static constexpr int kSteps = kHeadDim / 16;
  uint4 high[kSteps][kWarp];
  uint4 low[kSteps][kWarp];
};

/// Fills `tile` from `q` [n_heads, kHeadDim], by all kThreads threads; heads beyond n_heads become
/// zero. The caller synchronises before use.
template <int kHeadDim, int kThreads>
__device__ void load_queries(QueryTile<kHeadDim>& tile, const float* q, int n_heads) {
  for (int i = threadIdx.x; i < QueryTile<kHeadDim>::kSteps * kWarp; i += kThreads) {
    const int step = i / kWarp;
    const int lane = i % kWarp;
    const int dim = step / 2 * 32 + lane % 4 * 8 + step % 2 * 4;
    uint32_t high[4], low[4];
    for (int part = 0; part < 4; ++part) {
      const int head = lane / 4 + (part % 2) * 8;
      const int at = dim + part / 2 * 2;
      const float2 x = head < n_heads ? *reinterpret_cast<const float2*>(q + head * kHeadDim + at)
                                      : float2{0.0f, 0.0f};
      const __half2 rounded = {__float2half_rn(x.x), __float2half_rn(x.y)};
      high[part] = pack(rounded.x, rounded.y);
      low[part] = pack(__float2half_rn(x.x - __half2float(rounded.x)),
                       __float2half_rn(x.y - __half2float(rounded.y)));
    }
    tile.high[step][lane] = {high[0], high[1], high[2], high[3]};
    tile.low[step][lane] = {low[0], low[1], low[2], low[3]};
  }
}

/// Adds q . key for kTiles tiles of 8 keys: keys[tile][j] are this lane's 16 bytes of dimensions 32
/// j .. of its key.
template <int kHeadDim, int kTiles>
__device__ void multiply(const QueryTile<kHeadDim>& tile,
                         const uint4 (&keys)[kTiles][kHeadDim / 32], float4 (&sums)[kTiles]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int step = 0; step < QueryTile<kHeadDim>::kSteps; ++step) {
    const uint4 high = tile.high[step][lane];
    const uint4 low = tile.low[step][lane];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4& k = keys[i][step / 2];
      const uint32_t first = step % 2 == 0 ? k.x : k.z;
      const uint32_t second = step % 2 == 0 ? k.y : k.w;
      mma(sums[i], high, first, second);
      mma(sums[i], low, first, second);
    }
  }
}

}  // namespace nosa::cuda
