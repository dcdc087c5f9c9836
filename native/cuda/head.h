#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/device_model.h"

namespace nosa::cuda {

/// Where the end of the network writes, on the device.
struct HeadScratch {
  std::byte* normed;  // Operand [n_rows, n_embd]
  float* logits;      // [n_rows, n_vocab]
  float* product;     // linear_scratch_bytes()
};

/// Enqueues the end of the network: hidden rows [n_rows, n_embd] on the device to logits.
Status enqueue_logits(const DeviceModel& model, const float* hidden, int n_rows, const HeadScratch& to, cudaStream_t stream);

/// Scores of the token that follows hidden rows which the host has: the end of the network for itself.
///
/// Not thread-safe.
class Head {
 public:
  static constexpr int rows_max = 16;

  /// `model` must outlive it.
  static Result<std::unique_ptr<Head>> create(const DeviceModel& model);
  ~Head();

  /// Device bytes that create() takes.
  static size_t bytes_for(const ModelShape& shape);

  /// hidden [n_rows, n_embd] to logits [n_rows, n_vocab], both in host memory; waits. REQUIRES: n_rows in 1 .. rows_max.
  Status compute(const float* hidden, int n_rows, float* logits, cudaStream_t stream);

 private:
  struct Buffers;
  explicit Head(const DeviceModel& model);

  const DeviceModel& model_;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace nosa::cuda
