#pragma once

#include <cstddef>
#include <cstdint>

#include "core/block_tokens.h"
#include "core/dtype.h"

namespace nosa {

/// Names one slot of a BlockStore: the keys and values of 64 tokens of one KV head of one layer.
enum class BlockId : uint32_t {};

/// What all blocks of a model have in common.
///
/// A block's bytes, its *extent*, are K then V, each [kBlockTokens, head_dim] in `dtype`, row by
/// row; K is post-RoPE. They are the same bytes in memory and on disk. An extent takes whole pages,
/// so that it can be read directly from a disk.
struct KvShape {
  static constexpr size_t page_bytes = 4096;

  int n_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  DType dtype = DType::kF16;  ///< kF16 or kF32.

  size_t value_bytes() const { return dtype == DType::kF32 ? 4 : 2; }

  /// Bytes of one block of one KV head, rounded up to whole pages.
  size_t extent_bytes() const {
    const size_t used = size_t(2) * kBlockTokens * size_t(head_dim) * value_bytes();
    return (used + page_bytes - 1) / page_bytes * page_bytes;
  }

  /// Extents that 64 tokens of a sequence need: one for each layer and KV head.
  int extents_per_block() const { return n_layers * n_kv_heads; }

  /// Bytes of one token, over all layers and heads, without rounding.
  size_t bytes_per_token() const {
    return size_t(2) * size_t(extents_per_block()) * size_t(head_dim) * value_bytes();
  }

  bool operator==(const KvShape&) const = default;
};

/// Blocks of 64 that `n_tokens` tokens fill, the last one possibly in part.
constexpr int blocks_for(int n_tokens) { return (n_tokens + kBlockTokens - 1) / kBlockTokens; }

}  // namespace nosa
