#include "cuda/device_memory.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cuda/cuda_status.h"

namespace nosa::cuda {
namespace {

std::string taking(size_t bytes, const char* what, const char* where) {
  return "Taking " + std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB of " + where + " memory for " + what;
}

// Large buffers. What cudaHostAlloc does with one thread, taking every page and locking it, is shared by several here.
#ifdef __linux__
constexpr size_t large_bytes = size_t(1) << 30;
constexpr size_t piece_bytes = size_t(64) << 20;  // That a thread takes at a time.
constexpr unsigned n_threads_max = 16;

bool can_lock_memory() {
  int device = 0, registers = 0, same_pointer = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&registers, cudaDevAttrHostRegisterSupported, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&same_pointer, cudaDevAttrCanUseHostPointerForRegisteredMem, device) == cudaSuccess &&
         registers != 0 && same_pointer != 0;
}

void free_locked(std::byte* memory, size_t bytes) {
  cudaHostUnregister(memory);
  munmap(memory, bytes);
}

/// Null when the system does not give it. `bytes` is a multiple of a page. Locked in one piece: a copy must not run over two
/// of them.
std::byte* take_locked(size_t bytes) {
  // Not reserved: some virtual machines get their memory as they use it, and say before that they have less.
  void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const memory = static_cast<std::byte*>(mapped);
  madvise(mapped, bytes, MADV_HUGEPAGE);  // Where it is not known, small pages serve as well.
  // Locked pages would be copied, one by one, into every program that this process starts, such as git: a second for 2 GB.
  madvise(mapped, bytes, MADV_DONTFORK);
  std::atomic<size_t> next{0};
  const auto touch = [&] {
    for (size_t begin = piece_bytes * next++; begin < bytes; begin = piece_bytes * next++) {
      constexpr size_t page = 4096;
      const size_t end = std::min(bytes, begin + piece_bytes);
      for (size_t at = begin; at < end; at += page) static_cast<volatile std::byte*>(memory)[at] = std::byte{0};
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::clamp(std::thread::hardware_concurrency(), 1u, n_threads_max); ++i) threads.emplace_back(touch);
  touch();
  for (std::thread& thread : threads) thread.join();
  if (cudaHostRegister(memory, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable) == cudaSuccess) return memory;
  cudaGetLastError();  // It is answered here.
  munmap(mapped, bytes);
  return nullptr;
}
#endif

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
  if (host_ == nullptr) return;
#ifdef __linux__
  if (mapped_bytes_ > 0) {
    free_locked(host_, mapped_bytes_);
    return;
  }
#endif
  cudaFreeHost(host_);
}

Result<PinnedBuffer> PinnedBuffer::create(size_t bytes, const char* what) {
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  const std::string doing = taking(bytes, what, "pinned host");
#ifdef __linux__
  if (bytes >= large_bytes && can_lock_memory()) {
    constexpr size_t huge_page = size_t(2) << 20;
    const size_t mapped_bytes = (bytes + huge_page - 1) / huge_page * huge_page;
    if (std::byte* const memory = take_locked(mapped_bytes); memory != nullptr) {
      buffer.host_ = buffer.device_ = memory;
      buffer.bytes_ = bytes;
      buffer.mapped_bytes_ = mapped_bytes;
      return buffer;
    }
  }
#endif
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
