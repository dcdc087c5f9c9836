#include "kv/block_table.h"

#include <utility>

#include "core/check.h"

namespace nosa {

BlockTable::BlockTable(BlockStore& store, const KvShape& shape) : store_(&store), shape_(shape) {
  CHECK(store.extent_bytes() == shape.extent_bytes());
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : store_(other.store_),
      shape_(other.shape_),
      n_blocks_(std::exchange(other.n_blocks_, 0)),
      ids_(std::exchange(other.ids_, {})) {}

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(shape_, other.shape_);
  std::swap(n_blocks_, other.n_blocks_);
  std::swap(ids_, other.ids_);
  return *this;
}

BlockTable::~BlockTable() { truncate(0); }

Status BlockTable::grow(int n_blocks) {
  const size_t per_block = size_t(shape_.extents_per_block());
  while (n_blocks_ < n_blocks) {
    for (size_t n_new = 0; n_new < per_block; ++n_new) {
      Result<BlockId> id = store_->hold();
      if (!id.ok()) {
        truncate(n_blocks_);
        return id.status();
      }
      ids_.push_back(*id);
    }
    ++n_blocks_;
  }
  return {};
}

void BlockTable::adopt(std::span<const TierSlot> slots) {
  CHECK(slots.size() == size_t(shape_.extents_per_block()));
  for (const TierSlot slot : slots) ids_.push_back(store_->adopt(slot));
  n_blocks_ += 1;
}

void BlockTable::truncate(int n_blocks) {
  const size_t n_kept = size_t(n_blocks) * size_t(shape_.extents_per_block());
  while (ids_.size() > n_kept) {
    store_->release(ids_.back());
    ids_.pop_back();
  }
  if (n_blocks < n_blocks_) n_blocks_ = n_blocks;
}

BlockTable BlockTable::fork() const {
  BlockTable copy(*store_, shape_);
  copy.n_blocks_ = n_blocks_;
  copy.ids_ = ids_;
  for (BlockId id : ids_) store_->retain(id);
  return copy;
}

Result<std::byte*> BlockTable::writable_extent(int layer, int kv_head, int block) {
  BlockId& id = ids_[index(layer, kv_head, block)];
  Result<BlockId> own = store_->make_private(id);
  if (!own.ok()) return own.status();
  id = *own;
  return store_->data(id);
}

}  // namespace nosa
