#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::cuda {

/// Where extent `i` of stream `s` (one layer and KV head) lies:
///   base + s * stream_stride + index[s * index_stream_stride + i] * index_stride
/// A place is device memory or mapped host memory. A negative index stands for no extent.
struct ExtentPlace {
  std::byte* base = nullptr;
  int64_t stream_stride = 0;           // bytes
  int64_t index_stride = 0;            // bytes
  const int32_t* index = nullptr;      // device [n_streams, n_extents], or [n_extents] with stride 0
  int64_t index_stream_stride = 0;     // elements
};

/// Copies n_extents extents of every stream from one place to another: pages between host, device
/// and the slots of a lane, whatever the direction.
struct CopyExtentsParams {
  ExtentPlace from;
  ExtentPlace to;
  int n_streams = 0;        // layers * KV heads
  int n_extents = 0;        // of each stream
  int64_t extent_bytes = 0; // a multiple of 4096
};

/// Fails with cudaErrorInvalidValue for sizes that make no sense. Accepts no extents.
cudaError_t copy_extents(const CopyExtentsParams& params, cudaStream_t stream);

}  // namespace nosa::cuda
