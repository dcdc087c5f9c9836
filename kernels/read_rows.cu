// A warp a token and stream: its two rows are 256 or 512 bytes. Stores to host memory are posted.
#include "read_rows.h"

#include "common/launch.cuh"
#include "core/block_tokens.h"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 32;

__global__ void __launch_bounds__(kThreads) read_rows_kernel(ReadRowsParams p) {
  begin_kernel();
  const int stream_idx = blockIdx.x;
  const int layer = stream_idx / p.n_kv_heads;
  const int head = stream_idx % p.n_kv_heads;
  const int row = p.first_row + blockIdx.y;
  int index = p.page;
  if (p.slot_of_block != nullptr) index = p.slot_of_block[layer * p.slot_layer_stride + head * p.slot_head_stride];
  const size_t to_row = size_t(blockIdx.y) * gridDim.x + stream_idx;
  if (threadIdx.x == 0) {
    p.scores[to_row] = p.token_scores[(size_t(stream_idx) * p.n_pages + p.page) * kBlockTokens + row];
  }
  if (index < 0) return;
  const int n_vectors = p.head_dim / 8;
  const std::byte* extent = p.extents + layer * p.layer_stride + head * p.head_stride + index * p.index_stride;
  const auto* from = reinterpret_cast<const uint4*>(extent);
  auto* to = reinterpret_cast<uint4*>(p.rows) + to_row * 2 * n_vectors;
  for (int i = threadIdx.x; i < 2 * n_vectors; i += kThreads) {
    const int part = i / n_vectors;  // keys, then values
    to[i] = from[(size_t(part) * kBlockTokens + row) * n_vectors + i % n_vectors];
  }
}

}  // namespace

cudaError_t read_rows(const ReadRowsParams& p, cudaStream_t stream) {
  const int n_streams = p.n_layers * p.n_kv_heads;
  if (p.n_rows < 0 || p.first_row < 0 || p.first_row + p.n_rows > kBlockTokens || n_streams < 0 || p.head_dim % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  if (p.n_rows == 0 || n_streams == 0) return cudaSuccess;
  if (p.extents == nullptr || p.token_scores == nullptr || p.rows == nullptr || p.scores == nullptr) return cudaErrorInvalidValue;
  return launch(read_rows_kernel, dim3(n_streams, p.n_rows), dim3(kThreads), 0, stream, p);
}

}  // namespace nosa::cuda
