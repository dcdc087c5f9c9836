#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/model_source.h"
#include "kernels/pack_weights.h"

namespace nosa::cuda {

/// A product of a layer on the device.
struct DeviceLinear {
  PackedWeight weight = {};
  const float* bias = nullptr;  // [n_rows] or null
};

struct DeviceLayer {
  const float* attn_norm = nullptr;
  const float* ffn_norm = nullptr;
  DeviceLinear q, k, v, out, gate, up, down;
  const float* eviction_a = nullptr;           // Null for the training-free ranking.
  const float* eviction_delta = nullptr;
  const float* eviction_delta_bias = nullptr;
};

/// The weights of a network on the device, uploaded once and packed as the kernels read them.
class DeviceModel {
 public:
  /// Fails with kUnsupported, naming the tensor, for a type or a width that the kernels do not read,
  /// with kOutOfMemory when the device is too small.
  static Result<std::unique_ptr<DeviceModel>> create(const ModelSource& source, cudaStream_t stream);

  /// Device bytes that `source` will take.
  static size_t bytes_for(const ModelSource& source);

  const ModelShape& shape() const { return shape_; }
  bool additive() const { return additive_; }
  const float* inv_freq() const { return inv_freq_; }
  const PackedWeight& embedding() const { return embedding_; }
  const float* output_norm() const { return output_norm_; }
  const PackedWeight& output() const { return output_; }
  const std::vector<DeviceLayer>& layers() const { return layers_; }
  size_t bytes() const { return bytes_; }

 private:
  DeviceModel() = default;
  Status load(const ModelSource& source, cudaStream_t stream);
  Result<PackedWeight> pack(const WeightView& weight, const char* what, cudaStream_t stream);
  Result<const float*> floats(const float* values, size_t n);
  Status load_linear(const LinearSource& source, const char* what, DeviceLinear& linear, cudaStream_t stream);

  ModelShape shape_;
  bool additive_ = false;
  const float* inv_freq_ = nullptr;
  PackedWeight embedding_ = {};
  const float* output_norm_ = nullptr;
  PackedWeight output_ = {};
  std::vector<DeviceLayer> layers_;
  std::vector<DeviceBuffer> buffers_;  // What all of the above points into.
  DeviceBuffer staging_;               // Raw rows on their way; gone when all are packed.
  size_t bytes_ = 0;
};

}  // namespace nosa::cuda
