#include "kv/block_store.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "core/check.h"

namespace nosa {
namespace {

size_t slab_index(BlockId block) { return static_cast<uint32_t>(block) / BlockStore::slab_slots; }
size_t slot_index(BlockId block) { return static_cast<uint32_t>(block) % BlockStore::slab_slots; }

}  // namespace

BlockStore::BlockStore(const BlockStoreOptions& options)
    : extent_bytes_(options.extent_bytes), bytes_max_(options.bytes_max) {
  CHECK(extent_bytes_ > 0 && extent_bytes_ % KvShape::page_bytes == 0);
}

Result<BlockId> BlockStore::hold() {
  Result<size_t> open = open_slab();
  if (!open.ok()) return open.status();
  Slab& slab = slabs_[*open];
  const int slot = std::countr_zero(slab.free_mask);
  slab.free_mask &= slab.free_mask - 1;
  slab.holders[slot] = 1;
  ++n_held_;
  return BlockId(*open * slab_slots + slot);
}

void BlockStore::retain(BlockId block) {
  uint32_t& holders = const_cast<Slab&>(slab_of(block)).holders[slot_index(block)];
  CHECK(holders < std::numeric_limits<uint32_t>::max());
  ++holders;
}

void BlockStore::release(BlockId block) {
  Slab& slab = const_cast<Slab&>(slab_of(block));
  const size_t slot = slot_index(block);
  if (--slab.holders[slot] > 0) return;
  slab.free_mask |= uint64_t(1) << slot;
  --n_held_;
  first_open_ = std::min(first_open_, slab_index(block));
  if (~slab.free_mask == 0) {
    slab.memory = PageMemory();
    --n_slabs_mapped_;
  }
}

bool BlockStore::shared(BlockId block) const {
  return slab_of(block).holders[slot_index(block)] > 1;
}

Result<BlockId> BlockStore::make_private(BlockId block) {
  if (!shared(block)) return block;
  Result<BlockId> copy = hold();
  if (!copy.ok()) return copy.status();
  std::memcpy(data(*copy), data(block), extent_bytes_);
  release(block);
  return *copy;
}

std::byte* BlockStore::data(BlockId block) {
  return slab_of(block).memory.data() + slot_index(block) * extent_bytes_;
}

const std::byte* BlockStore::data(BlockId block) const {
  return slab_of(block).memory.data() + slot_index(block) * extent_bytes_;
}

void BlockStore::check_integrity() const {
  size_t n_held = 0;
  size_t n_mapped = 0;
  for (size_t slab_idx = 0; slab_idx < slabs_.size(); ++slab_idx) {
    const Slab& slab = slabs_[slab_idx];
    for (int slot = 0; slot < slab_slots; ++slot) {
      const bool free = (slab.free_mask >> slot & 1) != 0;
      CHECK(free == (slab.holders[slot] == 0));
      n_held += free ? 0 : 1;
    }
    const bool all_free = ~slab.free_mask == 0;
    CHECK(slab.memory.empty() == all_free);
    CHECK(slab_idx >= first_open_ || slab.free_mask == 0);
    n_mapped += all_free ? 0 : 1;
  }
  CHECK(n_held == n_held_);
  CHECK(n_mapped == n_slabs_mapped_);
}

// The first slab with a free slot, its memory mapped.
Result<size_t> BlockStore::open_slab() {
  while (first_open_ < slabs_.size() && slabs_[first_open_].free_mask == 0) ++first_open_;
  if (first_open_ == slabs_.size()) {
    CHECK(slabs_.size() < std::numeric_limits<uint32_t>::max() / slab_slots);
    slabs_.emplace_back();
  }
  Slab& slab = slabs_[first_open_];
  if (!slab.memory.empty()) return first_open_;
  if (slab_bytes() > bytes_max_ - mapped_bytes()) {
    return Status::out_of_memory("The KV cache has reached its limit of " +
                                 std::to_string(bytes_max_) + " bytes; raise its memory budget.");
  }
  Result<PageMemory> memory = PageMemory::map(slab_bytes());
  if (!memory.ok()) return memory.status();
  slab.memory = *std::move(memory);
  ++n_slabs_mapped_;
  return first_open_;
}

const BlockStore::Slab& BlockStore::slab_of(BlockId block) const {
  const size_t slab_idx = slab_index(block);
  CHECK(slab_idx < slabs_.size() && slabs_[slab_idx].holders[slot_index(block)] > 0);
  return slabs_[slab_idx];
}

}  // namespace nosa
