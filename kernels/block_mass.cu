// One thread block an entry of a list: four threads a token, who share out its dimensions. The keys were read a moment
// ago by attend_blocks, so they come from the second-level cache; what attend_blocks left of the softmax is joined anew.
#include "block_mass.h"
#include "common/attention_parts.cuh"
#include "common/launch.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreadsOfToken = 4;
constexpr int kThreads = kBlockTokens * kThreadsOfToken;
constexpr float kLog2E = 1.4426950408889634f;

/// log2 of the sum of 2^logit over the whole list. The same for all lanes of the warp.
__device__ float total_log2(const PartTotal* totals, int n_parts) {
  const int lane = threadIdx.x % kWarp;
  const PartTotal part = lane < n_parts ? totals[lane] : PartTotal{-INFINITY, 0.0f};
  const float highest = warp_max(part.peak);
  const float mine = highest == -INFINITY || lane >= n_parts ? 0.0f : part.total * exp2f(part.peak - highest);
  return highest + log2f(warp_sum(mine));
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) block_mass_kernel(BlockMassParams out, int n_parts) {
  const AttendBlocksParams& p = out.attended;
  __shared__ float of_warp[kThreads / kWarp];
  constexpr int kDims = kHeadDim / kThreadsOfToken;
  const int row = blockIdx.z;
  const int head = blockIdx.y;
  const int entry = blockIdx.x;
  const RowPlace place = read_place(p.rows, row);
  begin_kernel();
  if (place.lane < 0) return;
  const size_t list = size_t(row) * p.n_kv_heads + head;
  const int n_entries = p.n_selected[list];
  if (entry == 0 && threadIdx.x == 0) out.n_blocks[list] = n_entries;
  if (entry >= n_entries) return;
  const SelectedBlock of = p.selected[list * p.n_selected_max + entry];
  const int n_tokens = of.index < 0 ? 0 : of.n_tokens % kToFetch;

  const int token = threadIdx.x / kThreadsOfToken;
  const int first = threadIdx.x % kThreadsOfToken * kDims;
  const bool there = token < n_tokens;
  float key[kDims];
  const auto* keys = reinterpret_cast<const __half*>(extent_at(p.pool, place.lane, head, max(of.index, 0)));
  for (int d = 0; d < kDims; ++d) key[d] = there ? __half2float(keys[size_t(token) * kHeadDim + first + d]) : 0.0f;
  float bias = 0.0f;
  if (there && p.token_bias != nullptr) bias = p.token_bias[(size_t(head) * p.n_pages + of.page) * kBlockTokens + token];

  const int n_group = p.n_heads / p.n_kv_heads;
  const PartsView parts(p.parts, int(gridDim.z), p.n_heads);
  float sum = 0.0f;
  for (int g = 0; g < n_group; ++g) {
    const int q_head = head * n_group + g;
    const float* q = p.q + row * p.q_stride + size_t(q_head) * kHeadDim + first;
    float dot = 0.0f;
    for (int d = 0; d < kDims; ++d) dot += q[d] * key[d];
    for (int step = 1; step < kThreadsOfToken; step *= 2) dot += __shfl_xor_sync(kAllLanes, dot, step);
    const float total = total_log2(parts.totals + (size_t(row) * p.n_heads + q_head) * kPartsMax, n_parts);
    if (there && first == 0) sum += exp2f(kLog2E * (p.scale * dot + bias) - total);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = sum;
  __syncthreads();  // Every warp's sum is there.
  if (threadIdx.x > 0) return;
  float all = 0.0f;
  for (const float part : of_warp) all += part;
  out.mass[list * p.n_selected_max + entry] = all / float(n_group);
  out.blocks[list * p.n_selected_max + entry] = of.block;
}

}  // namespace

cudaError_t block_mass(const BlockMassParams& out, cudaStream_t stream) {
  const AttendBlocksParams& p = out.attended;
  if (p.rows.n_seqs < 0 || p.rows.n_queries != 1 || p.n_selected_max < 1) return cudaErrorInvalidValue;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  int n_parts = 0;
  const int n_tiles = (p.n_heads / p.n_kv_heads + kTileHeads - 1) / kTileHeads;
  const cudaError_t error = part_count(p.rows.n_seqs * p.n_kv_heads * n_tiles, &n_parts);
  if (error != cudaSuccess) return error;
  const dim3 grid(p.n_selected_max, p.n_kv_heads, p.rows.n_seqs);
  switch (p.head_dim) {
    case 64: return launch(block_mass_kernel<64>, grid, kThreads, 0, stream, out, n_parts);
    case 128: return launch(block_mass_kernel<128>, grid, kThreads, 0, stream, out, n_parts);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace nosa::cuda
