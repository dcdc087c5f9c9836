#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/device_model.h"
#include "cuda/page_arena.h"
#include "cuda/page_pool.h"

namespace nosa::cuda {

/// Consecutive tokens of one sequence, and all blocks that they see.
struct PrefillChunk {
  std::span<const uint32_t> ids;  // 1 .. chunk_tokens
  int own_start = 0;              // index of the first within the sequence
  int base_position = 0;          // of own token 0
  std::span<const int32_t> attended_pages;
  std::span<const BlockInfo> attended_info;  // likewise
  std::span<const int32_t> own_pages;        // up to the chunk's end
};

/// Computes chunks that attend to everything before them: matrix products instead of the vector products of a step.
///
/// Not thread-safe.
class Prefill {
 public:
  /// `model` must outlive it.
  static Result<std::unique_ptr<Prefill>> create(const DeviceModel& model, int chunk_tokens, int n_blocks_max);
  ~Prefill();

  /// Device bytes that create() takes.
  static size_t bytes_for(const ModelShape& shape, int chunk_tokens, int n_blocks_max);

  /// The residual stream behind the last layer for the last chunk, [n_tokens, n_embd].
  const float* device_hidden() const;

  /// Leaves keys, values and side-cars of the chunk in its pages. REQUIRES: the blocks fit the arena.
  Status compute(const PrefillChunk& chunk, PagePool& pool, PageArena& arena, cudaStream_t stream);

 private:
  struct Buffers;
  explicit Prefill(const DeviceModel& model);
  Status upload(const PrefillChunk& chunk, PageArena& arena, cudaStream_t stream);
  Status enqueue_qkv(int layer, const PrefillChunk& chunk, PagePool& pool, PageArena& arena, cudaStream_t stream);
  Status enqueue_attention(int layer, const PrefillChunk& chunk, PagePool& pool, PageArena& arena, cudaStream_t stream);
  Status enqueue_ffn(int layer, int n_tokens, cudaStream_t stream);

  const DeviceModel& model_;
  int chunk_tokens_ = 0;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace nosa::cuda
