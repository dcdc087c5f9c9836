#pragma once

#include <cuda_runtime.h>

#include "core/status.h"
#include "core/tensor_view.h"
#include "cuda/device_memory.h"
#include "kernels/pack_weights.h"

namespace nosa::cuda {

/// What upload_packed() wants of its staging buffer, and more is of no use.
inline constexpr size_t staging_bytes_max = size_t(64) << 20;

struct PackedUpload {
  PackedWeight weight;
  DeviceBuffer memory;  // Holds it.
};

/// Packs a weight on the device, its raw rows going through `staging` in the order of `stream`. Fails with kUnsupported,
/// naming `what`, for a type or a width that the kernels do not read.
Result<PackedUpload> upload_packed(const WeightView& weight, const DeviceBuffer& staging, const char* what,
                                   cudaStream_t stream);

}  // namespace nosa::cuda
