#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::cuda {

/// Copies one block of one lane, all its layers and KV heads, out of the slots it is in: the finished
/// tail on its way to host memory. Streams that do not hold the block are left out.
struct WriteBackParams {
  const std::byte* slots = nullptr;        // [n_layers, n_kv_heads, n_slots] extents of the lane
  const int16_t* slot_of_block = nullptr;  // entry of the block for layer 0, head 0; -1 for none
  int64_t slot_layer_stride = 0;           // elements from one layer's entry to the next
  int64_t slot_head_stride = 0;            // elements from one head's entry to the next
  std::byte* page = nullptr;               // [n_layers, n_kv_heads] extents, mapped host memory
  int n_layers = 0;
  int n_kv_heads = 0;
  int n_slots = 0;
  int64_t extent_bytes = 0;                // a multiple of 4096
};

/// Fails with cudaErrorInvalidValue for sizes that make no sense.
cudaError_t write_back(const WriteBackParams& params, cudaStream_t stream);

}  // namespace nosa::cuda
