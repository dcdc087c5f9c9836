// One thread block copies one part of one extent. Stores to host memory are posted, so all that matters
// is that many are on their way; the loads come from the device.
#include "write_back.h"

#include "common/launch.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 4;
constexpr int64_t kPartBytes = int64_t(kThreads) * kVectorsPerThread * sizeof(uint4);

__global__ void __launch_bounds__(kThreads) write_back_kernel(WriteBackParams p) {
  begin_kernel();
  const int layer = blockIdx.y / p.n_kv_heads;
  const int head = blockIdx.y % p.n_kv_heads;
  const int slot = p.slot_of_block[layer * p.slot_layer_stride + head * p.slot_head_stride];
  if (slot < 0) return;
  const int64_t stream_idx = blockIdx.y;
  const std::byte* from = p.slots + (stream_idx * p.n_slots + slot) * p.extent_bytes;
  std::byte* to = p.page + stream_idx * p.extent_bytes;
  int64_t at = blockIdx.x * kPartBytes + int64_t(threadIdx.x) * sizeof(uint4);
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i, at += int64_t(kThreads) * sizeof(uint4)) {
    if (at < p.extent_bytes) *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
  }
}

}  // namespace

cudaError_t write_back(const WriteBackParams& params, cudaStream_t stream) {
  constexpr int grid_max = 65535;
  const int64_t n_streams = int64_t(params.n_layers) * params.n_kv_heads;
  if (params.n_layers < 0 || params.n_kv_heads < 0 || n_streams > grid_max) return cudaErrorInvalidValue;
  if (n_streams == 0) return cudaSuccess;
  if (params.slots == nullptr || params.slot_of_block == nullptr || params.page == nullptr || params.n_slots <= 0 ||
      params.extent_bytes <= 0 || params.extent_bytes % 4096 != 0) {
    return cudaErrorInvalidValue;
  }
  const unsigned n_parts = unsigned((params.extent_bytes + kPartBytes - 1) / kPartBytes);
  return launch(write_back_kernel, dim3(n_parts, unsigned(n_streams)), dim3(kThreads), 0, stream, params);
}

}  // namespace nosa::cuda
