#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace nosa::cuda {

/// Copies what some tokens of one block of one lane left in the cache to host memory, for all layers and KV heads: for
/// stream s = layer n_kv_heads + head and token first_row + t of the block
///
///   rows[t, s]    = K row, then V row, [2, head_dim] f16
///   scores[t, s]  = the token's eviction score
struct ReadRowsParams {
  const std::byte* extents = nullptr;      // of layer 0, head 0; a slot or a page is index_stride further
  int64_t layer_stride = 0;                // bytes
  int64_t head_stride = 0;                 // bytes
  int64_t index_stride = 0;                // bytes
  const int16_t* slot_of_block = nullptr;  // entry of the block for layer 0, head 0; null: the index is `page`
  int64_t slot_layer_stride = 0;           // elements from one layer's entry to the next
  int64_t slot_head_stride = 0;            // elements from one head's entry to the next
  const float* token_scores = nullptr;     // [n_layers, n_kv_heads, n_pages, 64]
  int page = 0;
  int n_pages = 0;
  int first_row = 0;
  int n_rows = 0;  // first_row + n_rows is at most 64
  int n_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;               // a multiple of 8
  std::byte* rows = nullptr;      // [n_rows, n_layers n_kv_heads, 2, head_dim] f16, mapped host memory
  float* scores = nullptr;        // [n_rows, n_layers n_kv_heads], likewise
};

cudaError_t read_rows(const ReadRowsParams& p, cudaStream_t stream);

}  // namespace nosa::cuda
