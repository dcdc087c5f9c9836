#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "cuda/api.h"
#include "cuda/device_memory.h"
#include "kernels/argmax.h"

namespace nosa::cuda {
namespace {

/// The oldest GPUs that the kernels are built for.
constexpr int capability_least = 80;

/// Why the first GPU is not to be used; empty when it is. What is known is filled in on the way.
std::string look(NosaCudaProbe& probe) {
  cudaDriverGetVersion(&probe.driver);
  cudaRuntimeGetVersion(&probe.runtime);
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (probe.driver == 0) return "There is no NVIDIA driver.";
  int n_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&n_devices); error != cudaSuccess) {
    if (error == cudaErrorInsufficientDriver) {
      return "The NVIDIA driver is too old: it supports CUDA " + version(probe.driver) + ", and " + version(probe.runtime) +
             " is needed.";
    }
    if (error == cudaErrorNoDevice) return "There is no NVIDIA GPU.";
    return std::string("The NVIDIA driver refuses: ") + cudaGetErrorString(error) + ".";
  }
  if (n_devices == 0) return "There is no NVIDIA GPU.";
  cudaDeviceProp properties = {};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, 0); error != cudaSuccess) {
    return std::string("The GPU does not answer: ") + cudaGetErrorString(error) + ".";
  }
  std::snprintf(probe.gpu, sizeof(probe.gpu), "%s", properties.name);
  probe.capability = 10 * properties.major + properties.minor;
  if (probe.capability < capability_least) {
    return std::string("The GPU is too old: ") + properties.name + " has compute capability " +
           std::to_string(properties.major) + "." + std::to_string(properties.minor) + ", and 8.0 is needed.";
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes); error != cudaSuccess) {
    return std::string("The GPU does not tell its memory: ") + cudaGetErrorString(error) + ".";
  }
  probe.free_bytes = free_bytes;
  probe.total_bytes = total_bytes;

  // One of our own kernels, with an answer that is known.
  constexpr int n_values = 1000;
  constexpr int best = 617;
  const Result<DeviceBuffer> memory = DeviceBuffer::create(n_values * sizeof(float), "a trial");
  const Result<DeviceBuffer> out = DeviceBuffer::create(sizeof(int32_t), "a trial");
  const Result<DeviceBuffer> scratch = DeviceBuffer::create(argmax_scratch_bytes(1), "a trial");
  for (const Result<DeviceBuffer>* buffer : {&memory, &out, &scratch}) {
    if (!buffer->ok()) return "The GPU has no memory left: " + buffer->status().message();
  }
  float values[n_values] = {};
  values[best] = 1.0f;
  int32_t answer = -1;
  cudaError_t error = cudaMemcpy(memory->data(), values, sizeof(values), cudaMemcpyHostToDevice);
  if (error == cudaSuccess) {
    error = argmax({memory->as<float>(), out->as<int32_t>(), scratch->data(), 1, n_values}, nullptr);
  }
  if (error == cudaSuccess) error = cudaMemcpy(&answer, out->data(), sizeof(answer), cudaMemcpyDeviceToHost);
  if (error != cudaSuccess) return std::string("A kernel fails on the GPU: ") + cudaGetErrorString(error) + ".";
  if (answer != best) return "A kernel gives a wrong answer on the GPU.";
  return {};
}

}  // namespace
}  // namespace nosa::cuda

extern "C" __attribute__((visibility("default"))) void nosa_cuda_probe(NosaCudaProbe* probe) {
  std::memset(probe, 0, sizeof(*probe));
  probe->abi = NOSA_CUDA_ABI;
  const std::string reason = nosa::cuda::look(*probe);
  std::snprintf(probe->reason, sizeof(probe->reason), "%s", reason.c_str());
  probe->usable = reason.empty() ? 1 : 0;
}
