// What this machine can do at best: the figures that everything else is held against.
#include "bench.h"

namespace nosa::bench {
namespace {

double best_seconds(int n, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  cudaEvent_t begin, end;
  must(cudaEventCreate(&begin), "creating an event");
  must(cudaEventCreate(&end), "creating an event");
  float best_ms = 1e9f;
  for (int i = 0; i < n; ++i) {
    must(cudaEventRecord(begin), "copying");
    must(cudaMemcpyAsync(to, from, bytes, kind), "copying");
    must(cudaEventRecord(end), "copying");
    must(cudaEventSynchronize(end), "copying");
    float ms = 0.0f;
    must(cudaEventElapsedTime(&ms, begin, end), "copying");
    if (ms < best_ms) best_ms = ms;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best_ms / 1e3;
}

}  // namespace

Ceilings measure_ceilings(Figures& figures) {
  constexpr size_t bytes = size_t(1) << 30;
  auto a = must(cuda::DeviceBuffer::create(bytes, "a copy"), "measuring");
  auto b = must(cuda::DeviceBuffer::create(bytes, "a copy"), "measuring");
  auto host = must(cuda::PinnedBuffer::create(bytes, "a copy"), "measuring");
  Ceilings ceilings;
  ceilings.device_copy = 2.0 * double(bytes) / best_seconds(10, a.data(), b.data(), bytes, cudaMemcpyDeviceToDevice);
  ceilings.pinned_to_device = double(bytes) / best_seconds(5, a.data(), host.host(), bytes, cudaMemcpyHostToDevice);
  const double back = double(bytes) / best_seconds(5, host.host(), a.data(), bytes, cudaMemcpyDeviceToHost);
  figures.begin("ceilings")
      .add("device copy (read + written) GB/s", ceilings.device_copy / 1e9)
      .add("pinned host to device GB/s", ceilings.pinned_to_device / 1e9)
      .add("device to pinned host GB/s", back / 1e9)
      .end();
  return ceilings;
}

}  // namespace nosa::bench
