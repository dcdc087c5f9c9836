// Launching kernels so that the next one of a stream is on the machine when its predecessor ends.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

namespace nosa::cuda {

/// Waits until everything that earlier kernels of the stream wrote is visible, and lets the next
/// kernel start to be placed. Every kernel that `launch` starts calls it once: what a kernel may
/// rely on holds only if none in the chain leaves it out.
///
/// Before it, a kernel may read constants and what was written at least two kernels earlier: the
/// kernel directly before it is past this call, so all before that one are done.
__device__ inline void begin_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// The same for a kernel of a few thread blocks before a product: lets the next kernel be placed
/// while the one before this one still runs, so that the product's first weights are on their way
/// through all of this kernel. The next kernel may then read nothing but constants before it waits;
/// those after it are as above.
__device__ inline void begin_kernel_before_product() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Whether the GPU can place a kernel before its predecessor ends; asked once.
inline bool places_early() {
  static const bool value = [] {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
  }();
  return value;
}

/// How much dynamic shared memory a kernel may be launched with, beyond what any kernel may: the driver is told once a device.
/// One of each kernel, static in what launches it. Thread-safe.
class SharedMemoryLimit {
 public:
  /// To be called before every launch, always with the same kernel and the most `bytes` that it is ever launched with.
  template <typename... Params>
  cudaError_t raise(void (*kernel)(Params...), size_t bytes) {
    int device = 0;
    if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
    const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
    if ((told_.load(std::memory_order_relaxed) & bit) != 0) return cudaSuccess;
    // Two threads may both tell it: that changes nothing.
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
    if (error == cudaSuccess) told_.fetch_or(bit, std::memory_order_relaxed);
    return error;
  }

 private:
  std::atomic<uint64_t> told_{0};  // Devices, a bit each; any beyond the 64th is told each time.
};

/// Starts `kernel` on `stream` as a programmatic dependent of what is before it there, where the
/// GPU knows that.
template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args... args) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = places_early() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

}  // namespace nosa::cuda
