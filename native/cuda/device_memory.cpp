#include "cuda/device_memory.h"

#include <cuda_runtime.h>

#include "cuda/cuda_status.h"

namespace nosa::cuda {
namespace {

std::string taking(size_t bytes, const char* what, const char* where) {
  return "Taking " + std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB of " + where + " memory for " + what;
}

}  // namespace

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

Result<DeviceBuffer> DeviceBuffer::create(size_t bytes, const char* what) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  const std::string doing = taking(bytes, what, "device");
  void* data = nullptr;
  NOSA_CUDA_TRY(cudaMalloc(&data, bytes), doing.c_str());
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.bytes_ = bytes;
  NOSA_CUDA_TRY(cudaMemset(data, 0, bytes), doing.c_str());
  // The zeroes must be there before work of another stream is.
  NOSA_CUDA_TRY(cudaStreamSynchronize(nullptr), doing.c_str());
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (host_ != nullptr) cudaFreeHost(host_);
}

Result<PinnedBuffer> PinnedBuffer::create(size_t bytes, const char* what) {
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  const std::string doing = taking(bytes, what, "pinned host");
  void* host = nullptr;
  NOSA_CUDA_TRY(cudaHostAlloc(&host, bytes, cudaHostAllocMapped | cudaHostAllocPortable), doing.c_str());
  buffer.host_ = static_cast<std::byte*>(host);
  buffer.bytes_ = bytes;
  void* device = nullptr;
  NOSA_CUDA_TRY(cudaHostGetDevicePointer(&device, host, 0), doing.c_str());
  buffer.device_ = static_cast<std::byte*>(device);
  return buffer;
}

}  // namespace nosa::cuda
