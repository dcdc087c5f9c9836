#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/prefetch.h"
#include "core/status.h"
#include "kv/block.h"
#include "kv/block_store.h"

namespace nosa {

/// The blocks of one sequence, [n_layers, n_kv_heads, n_blocks]: block `b` holds its own tokens
/// 64 b to 64 b + 63. A table holds its blocks in the store and releases them when it goes.
///
/// Not thread-safe: used by the native worker thread only.
class BlockTable {
 public:
  /// `store` must outlive the table.
  BlockTable(BlockStore& store, const KvShape& shape);

  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&& other) noexcept;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable();

  BlockStore& store() const { return *store_; }
  const KvShape& shape() const { return shape_; }
  int n_blocks() const { return n_blocks_; }

  /// Takes blocks until there are `n_blocks` of them.
  /// Fails with kOutOfMemory, and then keeps the whole blocks it had got so far.
  Status grow(int n_blocks);

  /// Adds a block whose extents, [n_layers, n_kv_heads], are in the tier below the store, which owns
  /// the slots from here on. REQUIRES: one slot for each.
  void adopt(std::span<const TierSlot> slots);

  /// Releases all blocks from `n_blocks` on.
  void truncate(int n_blocks);

  /// A table that shares every block of this one.
  BlockTable fork() const;

  /// One block. REQUIRES: indices in range.
  BlockId id(int layer, int kv_head, int block) const { return ids_[index(layer, kv_head, block)]; }

  /// Asks for what id() will read. REQUIRES: indices in range.
  [[gnu::always_inline]] void prefetch_id(int layer, int kv_head, int block) const {
    prefetch(&ids_[index(layer, kv_head, block)]);
  }

  /// The bytes of one block, for the rest of the store's step. REQUIRES: indices in range; resident.
  const std::byte* extent(int layer, int kv_head, int block) const {
    return store_->data(ids_[index(layer, kv_head, block)]);
  }

  /// The same for writing: a block that another table shares is copied first, and one that is not
  /// in memory is brought there. Fails as BlockStore::make_private(). REQUIRES: indices in range.
  Result<std::byte*> writable_extent(int layer, int kv_head, int block);

 private:
  // Block-major, so that growing appends and a file of finished blocks has the same order.
  size_t index(int layer, int kv_head, int block) const {
    return (size_t(block) * shape_.n_layers + layer) * shape_.n_kv_heads + kv_head;
  }

  BlockStore* store_;
  KvShape shape_;
  int n_blocks_ = 0;
  std::vector<BlockId> ids_;
};

}  // namespace nosa
