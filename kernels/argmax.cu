// kParts thread blocks a row, each for a run of values; the last of them to finish joins their results. A value and its
// index make one 64-bit key whose order is that of the answer, so the order in which parts finish does not matter.
#include "argmax.h"

#include "common/launch.cuh"
#include "common/reduce.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kParts = 32;
using Key = unsigned long long;

struct Scratch {
  Key keys[kParts];
  unsigned n_done;  // Zero between launches.
  unsigned unused[3];
};

/// Ascending with the value, then descending with the index.
__device__ Key key_of(float value, int index) {
  if (isnan(value)) return 0;
  const unsigned bits = __float_as_uint(value);
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (Key(ordered) << 32) | (0xffffffffu - unsigned(index));
}

__device__ Key warp_max_key(Key key) {
  for (int step = kWarp / 2; step > 0; step /= 2) key = max(key, __shfl_xor_sync(kAllLanes, key, step));
  return key;
}

__global__ void __launch_bounds__(kThreads) argmax_kernel(ArgmaxParams p) {
  __shared__ Key keys[kThreads / kWarp];
  __shared__ bool is_last;
  begin_kernel();
  const int row = blockIdx.y;
  const float* scores = p.scores + size_t(row) * p.n_values;
  const int run = (p.n_values + kParts - 1) / kParts;
  const int end = min(p.n_values, int(blockIdx.x + 1) * run);
  Key best = 0;
  for (int i = blockIdx.x * run + threadIdx.x; i < end; i += kThreads) best = max(best, key_of(scores[i], i));
  best = warp_max_key(best);
  if (threadIdx.x % kWarp == 0) keys[threadIdx.x / kWarp] = best;
  __syncthreads();  // Every warp's best is there.

  Scratch& scratch = reinterpret_cast<Scratch*>(p.scratch)[row];
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / kWarp; ++warp) best = max(best, keys[warp]);
    scratch.keys[blockIdx.x] = best;
    __threadfence();
    is_last = atomicAdd(&scratch.n_done, 1) == kParts - 1;
  }
  __syncthreads();  // Thread 0 knows whether this part is the last.
  if (!is_last || threadIdx.x >= kWarp) return;
  __threadfence();
  static_assert(kParts == kWarp);
  best = warp_max_key(*const_cast<volatile Key*>(&scratch.keys[threadIdx.x]));
  if (threadIdx.x != 0) return;
  // A row of nothing but not-a-number has no best; index 0 it is.
  p.out[row] = best == 0 ? 0 : int(0xffffffffu - unsigned(best & 0xffffffffu));
  scratch.n_done = 0;
}

}  // namespace

size_t argmax_scratch_bytes(int n_rows) { return size_t(n_rows) * sizeof(Scratch); }

cudaError_t argmax(const ArgmaxParams& p, cudaStream_t stream) {
  if (p.n_rows < 0 || p.n_rows > 65535 || p.n_values < 1) return cudaErrorInvalidValue;
  if (p.n_rows == 0) return cudaSuccess;
  return launch(argmax_kernel, dim3(kParts, unsigned(p.n_rows)), dim3(kThreads), 0, stream, p);
}

}  // namespace nosa::cuda
