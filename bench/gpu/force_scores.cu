// One thread block a row, KV head and layer.
#include "force_scores.h"

#include "kernels/common/launch.cuh"

namespace nosa::bench {
namespace {

constexpr int kThreads = 64;

__device__ uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

/// What a block has that nobody picks.
__device__ float2 base_score(int block) { return {-1.0f - 1e-6f * float(block), -2.0f}; }

/// Fresh picks of a stream before `step`.
__device__ int fresh_before(float fresh, uint32_t step) { return int(double(fresh) * double(step)); }

struct Stream {
  float2* best;
  uint32_t id;
  uint32_t step;  // Apart from other streams', so that they do not all have their extra pick at once.
};

__device__ Stream stream_of(const ForcedPicks& p) {
  const size_t place = (size_t(blockIdx.z) * p.n_rows + blockIdx.y) * p.n_kv_heads + blockIdx.x;
  const uint32_t id = mixed((blockIdx.z * 64 + blockIdx.y) * 16 + blockIdx.x);
  return {p.best + place * p.n_blocks_max, id, (p.step != nullptr ? *p.step : 0) + 1 + id % 1024};
}

__device__ int fresh_block(const ForcedPicks& p, const Stream& stream, int nth) {
  return 1 + int((uint32_t(nth) * 7u + stream.id) % uint32_t(p.n_free));
}

__global__ void __launch_bounds__(kThreads) set_kernel(ForcedPicks p) {
  cuda::begin_kernel();
  const Stream stream = stream_of(p);
  for (int b = threadIdx.x; b < p.n_blocks_max; b += kThreads) stream.best[b] = base_score(b);
}

__global__ void __launch_bounds__(kThreads) move_kernel(ForcedPicks p) {
  cuda::begin_kernel();
  const Stream stream = stream_of(p);
  const int before = fresh_before(p.fresh, stream.step - 1);
  const int first = fresh_before(p.fresh, stream.step);
  const int n_fresh = min(fresh_before(p.fresh, stream.step + 1) - first, p.n_picks);
  for (int nth = before + threadIdx.x; nth < first; nth += kThreads) {
    const int block = fresh_block(p, stream, nth);
    stream.best[block] = base_score(block);
  }
  // The fixed ones lie apart from each other; the fresh ones walk through the rest.
  const auto fixed_block = [&](int i) { return 1 + int(mixed(stream.id + 977u * uint32_t(i)) % uint32_t(p.n_free)); };
  for (int i = threadIdx.x; i < n_fresh; i += kThreads) stream.best[fixed_block(i)] = base_score(fixed_block(i));
  __syncthreads();  // What follows overwrites some of them.
  for (int i = threadIdx.x; i < p.n_picks; i += kThreads) {
    const int block = i < n_fresh ? fresh_block(p, stream, first + i) : fixed_block(i);
    stream.best[block] = {1000.0f - float(i), -2.0f};
  }
}

dim3 grid_of(const ForcedPicks& p) { return {unsigned(p.n_kv_heads), unsigned(p.n_rows), unsigned(p.n_layers)}; }

bool valid(const ForcedPicks& p) { return p.n_free > p.n_picks && p.n_free < p.n_blocks_max; }

}  // namespace

cudaError_t set_forced_picks(const ForcedPicks& picks, cudaStream_t stream) {
  if (!valid(picks)) return cudaErrorInvalidValue;
  return cuda::launch(set_kernel, grid_of(picks), dim3(kThreads), 0, stream, picks);
}

cudaError_t move_forced_picks(const ForcedPicks& picks, cudaStream_t stream) {
  if (!valid(picks)) return cudaErrorInvalidValue;
  return cuda::launch(move_kernel, grid_of(picks), dim3(kThreads), 0, stream, picks);
}

}  // namespace nosa::bench
