// One thread block a KV head: finds the border of the best `capacity` blocks, gathers those, and
// gives each the place that a comparison with all others says.
#include "common/eviction_pool.cuh"
#include "common/launch.cuh"
#include "common/top_blocks.cuh"
#include "rank_blocks.h"

namespace nosa::cuda {
namespace {

__global__ void __launch_bounds__(kSelectThreads) rank_blocks_kernel(RankBlocksParams p) {
  extern __shared__ uint32_t keys[];  // [n_blocks_max]
  __shared__ TopScratch scratch;
  __shared__ uint64_t best[kSelectedMax];
  __shared__ int n_best;
  __shared__ int n_candidates;
  begin_kernel();
  const int head = blockIdx.x;
  const int n_own_ranked = max(0, p.n_own_tokens / kBlockTokens + 1 - p.window_blocks);
  const int n_blocks = p.n_attended + n_own_ranked;
  clear_counts(scratch);
  if (threadIdx.x == 0) n_best = n_candidates = 0;
  __syncthreads();  // The counts are zero.
  for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
    const bool masked = p.blocks.info[size_t(p.lane) * p.blocks.n_blocks_max + b].masked != 0;
    const float score =
        pooled_score(p.blocks, p.side_car, p.lane, head, p.n_attended, p.n_own_tokens, b);
    keys[b] = masked ? 0 : ordered(score);
    if (masked) continue;
    atomicAdd(&n_candidates, 1);
    count_key(keys[b], scratch);
  }
  __syncthreads();  // All keys are there.
  const int n_wanted = min(p.ranking.capacity, n_candidates);
  const uint64_t border =
      n_wanted < n_candidates ? border_key(keys, n_blocks, n_wanted, scratch) : 0;
  for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
    if (keys[b] == 0 || ranked_key(keys[b], b) < border) continue;
    best[atomicAdd(&n_best, 1)] = ranked_key(keys[b], b);
  }
  __syncthreads();  // The best are together.
  const size_t stream = size_t(p.lane) * gridDim.x + head;
  for (int i = threadIdx.x; i < n_best; i += kSelectThreads) {
    int rank = 0;
    for (int j = 0; j < n_best; ++j) rank += best[j] > best[i] ? 1 : 0;
    p.ranking.blocks[stream * p.ranking.capacity + rank] = int(best[i] & 0xffff);
    p.ranking.scores[stream * p.ranking.capacity + rank] =
        score_of_ordered(uint32_t(best[i] >> 16));
  }
  if (threadIdx.x == 0) {
    p.ranking.n_entries[stream] = n_best;
    p.ranking.n_own[stream] = n_own_ranked;
  }
}

}  // namespace

cudaError_t rank_blocks(const RankBlocksParams& p, cudaStream_t stream) {
  if (p.n_kv_heads < 1 || p.window_blocks < 1 || p.n_attended < 0 || p.n_own_tokens < 0 ||
      p.lane < 0) {
    return cudaErrorInvalidValue;
  }
  if (p.ranking.capacity < 1 || p.ranking.capacity > kSelectedMax) return cudaErrorInvalidValue;
  if (p.blocks.n_blocks_max < 1 || p.blocks.n_blocks_max > kBlocksMax) return cudaErrorInvalidValue;
  const size_t shared_bytes = size_t(p.blocks.n_blocks_max) * sizeof(uint32_t);
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(rank_blocks_kernel, kBlocksMax * sizeof(uint32_t)); error != cudaSuccess) return error;
  return launch(rank_blocks_kernel, p.n_kv_heads, kSelectThreads, shared_bytes, stream, p);
}

}  // namespace nosa::cuda
