// One thread block copies one part of one extent. All its loads are issued before its first store, for
// a load from host memory takes microseconds and only many at once fill the link.
#include "copy_extents.h"

#include "common/launch.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 4;
constexpr int64_t kPartBytes = int64_t(kThreads) * kVectorsPerThread * sizeof(uint4);

__device__ std::byte* address(const ExtentPlace& place, int stream, int i) {
  const int32_t index = place.index[stream * place.index_stream_stride + i];
  if (index < 0) return nullptr;
  return place.base + stream * place.stream_stride + index * place.index_stride;
}

__global__ void __launch_bounds__(kThreads) copy_extents_kernel(CopyExtentsParams p) {
  begin_kernel();
  const std::byte* from = address(p.from, blockIdx.y, blockIdx.z);
  std::byte* to = address(p.to, blockIdx.y, blockIdx.z);
  if (from == nullptr || to == nullptr) return;
  const int64_t first = blockIdx.x * kPartBytes + int64_t(threadIdx.x) * sizeof(uint4);
  constexpr int64_t step = int64_t(kThreads) * sizeof(uint4);
  uint4 values[kVectorsPerThread];
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (first + i * step < p.extent_bytes) values[i] = *reinterpret_cast<const uint4*>(from + first + i * step);
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (first + i * step < p.extent_bytes) *reinterpret_cast<uint4*>(to + first + i * step) = values[i];
  }
}

bool is_valid(const ExtentPlace& place) {
  return place.base != nullptr && place.index != nullptr && reinterpret_cast<uintptr_t>(place.base) % sizeof(uint4) == 0 &&
         place.stream_stride % int64_t(sizeof(uint4)) == 0 && place.index_stride % int64_t(sizeof(uint4)) == 0;
}

}  // namespace

cudaError_t copy_extents(const CopyExtentsParams& params, cudaStream_t stream) {
  constexpr int grid_max = 65535;
  if (params.n_extents == 0 || params.n_streams == 0) return cudaSuccess;
  if (params.n_extents < 0 || params.n_extents > grid_max || params.n_streams < 0 || params.n_streams > grid_max ||
      params.extent_bytes <= 0 || params.extent_bytes % 4096 != 0 || !is_valid(params.from) || !is_valid(params.to)) {
    return cudaErrorInvalidValue;
  }
  const unsigned n_parts = unsigned((params.extent_bytes + kPartBytes - 1) / kPartBytes);
  const dim3 grid(n_parts, unsigned(params.n_streams), unsigned(params.n_extents));
  return launch(copy_extents_kernel, grid, dim3(kThreads), 0, stream, params);
}

}  // namespace nosa::cuda
