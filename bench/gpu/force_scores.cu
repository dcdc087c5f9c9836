// One thread block a row and KV head.
#include "force_scores.h"

#include "kernels/common/launch.cuh"

namespace nosa::bench {
namespace {

constexpr int kThreads = 1024;

__device__ uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

/// Fresh picks of a stream before `step`, when each step has floor(fresh + a fixed offset of the stream's step) of them.
__device__ int fresh_before(float fresh, uint32_t step) { return int(double(fresh) * double(step)); }

__global__ void __launch_bounds__(kThreads) force_scores_kernel(ForceScoresParams p) {
  cuda::begin_kernel();
  const int head = blockIdx.x;
  const int row = blockIdx.y;
  const int lane = p.scores.rows.lanes[row];
  if (lane < 0) return;
  const int n_tokens = p.scores.rows.n_tokens[lane];
  const int n_blocks = p.scores.blocks.n_attended[lane] + (n_tokens + kBlockTokens - 1) / kBlockTokens;
  float2* best = p.scores.best + (size_t(row) * p.scores.n_kv_heads + head) * p.scores.blocks.n_blocks_max;
  for (int b = threadIdx.x; b < n_blocks; b += kThreads) best[b] = {-1.0f - 1e-6f * b, -2.0f};
  __syncthreads();  // What follows overwrites some of them.

  const int n_free = n_blocks - p.window_blocks - 1;  // Blocks 1 .. n_free.
  if (n_free <= p.n_picks) return;
  const uint32_t stream = mixed(uint32_t((p.layer * 64 + lane) * 16 + head));
  const uint32_t step = *p.step + stream % 1024;  // So that streams do not all have their extra one at once.
  const int first = fresh_before(p.fresh, step);
  const int n_fresh = min(fresh_before(p.fresh, step + 1) - first, p.n_picks);
  for (int i = threadIdx.x; i < p.n_picks; i += kThreads) {
    const bool is_fresh = i < n_fresh;
    // The fixed ones lie apart from each other; the fresh ones walk through the rest.
    const uint32_t at = is_fresh ? uint32_t(first + i) * 7u + stream : mixed(stream + 977u * uint32_t(i));
    best[1 + at % uint32_t(n_free)] = {1000.0f - i, -2.0f};
  }
}

}  // namespace

cudaError_t force_scores(const ForceScoresParams& params, cudaStream_t stream) {
  if (params.scores.rows.n_queries != 1) return cudaErrorInvalidValue;
  const dim3 grid(unsigned(params.scores.n_kv_heads), unsigned(params.scores.rows.n_seqs));
  return cuda::launch(force_scores_kernel, grid, dim3(kThreads), 0, stream, params);
}

}  // namespace nosa::bench
