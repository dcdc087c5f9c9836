// A fetch over the bus takes microseconds before its first byte, so all that counts is how much is
// asked for at once. An extent is cut into parts of 8 KiB, each a thread block: every thread has
// its two 16-byte loads out before it stores, and a single miss is spread over several processors.
// Parts of extents that are not there end at once.
#include <algorithm>

#include "common/launch.cuh"
#include "gather_blocks.h"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 2;  // of 16 bytes a thread
constexpr size_t kPartBytes = size_t(kThreads) * kLoads * sizeof(uint4);
constexpr unsigned kLoadsAtOnce =
    128;  // extents in the grid, of all streams; when there are more, they take turns

/// A load that bypasses the caches: host memory may have changed since they were filled.
__device__ uint4 load_host(const uint4* at) {
  uint4 value;
  asm volatile("ld.global.cv.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(at));
  return value;
}

__global__ void __launch_bounds__(kThreads) gather_blocks_kernel(GatherBlocksParams p) {
  begin_kernel();
  const int n_parts = int((p.extent_bytes + kPartBytes - 1) / kPartBytes);
  const int part = blockIdx.x % n_parts;
  const int head = blockIdx.y;
  const int lane = p.lanes[blockIdx.z];
  if (lane < 0) return;
  const size_t stream = size_t(blockIdx.z) * p.n_kv_heads + head;
  const int n_loads = p.n_loads[stream];
  for (int i = blockIdx.x / n_parts; i < n_loads; i += gridDim.x / n_parts) {
    const int page = p.load_pages[stream * p.n_loads_max + i];
    const int slot = p.load_slots[stream * p.n_loads_max + i];
    const auto* from =
        reinterpret_cast<const uint4*>(p.pages.base + size_t(head) * p.pages.head_stride +
                                       size_t(page) * p.pages.index_stride + part * kPartBytes);
    auto* to = reinterpret_cast<uint4*>(p.slots.base + size_t(lane) * p.slots.lane_stride +
                                        size_t(head) * p.slots.head_stride +
                                        size_t(slot) * p.slots.index_stride + part * kPartBytes);
    const int n = int(min(kPartBytes, p.extent_bytes - part * kPartBytes) / sizeof(uint4));
    uint4 values[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      if (int(threadIdx.x) + j * kThreads < n)
        values[j] = load_host(from + threadIdx.x + j * kThreads);
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      if (int(threadIdx.x) + j * kThreads < n) to[threadIdx.x + j * kThreads] = values[j];
    }
  }
}

}  // namespace

cudaError_t gather_blocks(const GatherBlocksParams& p, cudaStream_t stream) {
  if (p.n_seqs < 0 || p.n_kv_heads < 1 || p.n_loads_max < 0) return cudaErrorInvalidValue;
  if (p.extent_bytes == 0 || p.extent_bytes % 4096 != 0) return cudaErrorInvalidValue;
  if (p.n_seqs == 0 || p.n_loads_max == 0) return cudaSuccess;
  const unsigned n_parts = unsigned((p.extent_bytes + kPartBytes - 1) / kPartBytes);
  constexpr unsigned kOfStreamMax = 16;
  const unsigned n_streams = unsigned(p.n_seqs) * unsigned(p.n_kv_heads);
  const unsigned n_at_once =
      std::min({unsigned(p.n_loads_max), kOfStreamMax, std::max(2u, kLoadsAtOnce / n_streams)});
  return launch(gather_blocks_kernel, dim3(n_at_once * n_parts, p.n_kv_heads, p.n_seqs), kThreads,
                0, stream, p);
}

}  // namespace nosa::cuda
