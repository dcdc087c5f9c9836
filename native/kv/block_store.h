#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "core/status.h"
#include "kv/block.h"
#include "kv/page_memory.h"

namespace nosa {

struct BlockStoreOptions {
  size_t extent_bytes = 0;  ///< Bytes of one block, whole pages.
  /// Most bytes of memory the store maps.
  size_t bytes_max = std::numeric_limits<size_t>::max();
};

/// Owns every block: the memory of its extent, and the count of those who share it.
///
/// A slot is either free or held, and a held one has one or more holders. Memory comes in slabs of
/// 64 slots, mapped when the first of them is held and given back when the last is released, so
/// that mapped bytes follow the blocks in use.
///
/// Not thread-safe: used by the native worker thread only.
class BlockStore {
 public:
  static constexpr int slab_slots = 64;

  /// REQUIRES: `options.extent_bytes` is a positive number of whole pages.
  explicit BlockStore(const BlockStoreOptions& options);

  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  /// Takes a free slot, with one holder and bytes of no meaning.
  /// Fails with kOutOfMemory at the limit, or when the system has no more.
  Result<BlockId> hold();

  /// One more holder. REQUIRES: `block` is held.
  void retain(BlockId block);

  /// One holder less; the last one frees the slot. REQUIRES: `block` is held.
  void release(BlockId block);

  /// Whether a write would be seen by another holder. REQUIRES: `block` is held.
  bool shared(BlockId block) const;

  /// The caller's own copy of a block that it holds: the block itself when nobody else holds it,
  /// else a new one with the same bytes, for which the caller's hold on `block` is given up.
  /// Fails with kOutOfMemory, and then nothing has changed. REQUIRES: `block` is held.
  Result<BlockId> make_private(BlockId block);

  /// The extent, extent_bytes() long, page-aligned. Stays where it is while the block is held.
  /// REQUIRES: `block` is held.
  std::byte* data(BlockId block);
  const std::byte* data(BlockId block) const;

  size_t extent_bytes() const { return extent_bytes_; }

  /// Held blocks, each counted once however many share it.
  size_t n_held() const { return n_held_; }

  /// Memory taken from the system.
  size_t mapped_bytes() const { return n_slabs_mapped_ * slab_bytes(); }

  /// Aborts unless the books balance: held slots, holders and mapped slabs.
  void check_integrity() const;

 private:
  struct Slab {
    PageMemory memory;        // Empty when no slot is held.
    uint64_t free_mask = ~uint64_t(0);
    uint32_t holders[slab_slots] = {};
  };

  size_t slab_bytes() const { return extent_bytes_ * slab_slots; }
  Result<size_t> open_slab();
  const Slab& slab_of(BlockId block) const;

  size_t extent_bytes_;
  size_t bytes_max_;
  std::vector<Slab> slabs_;
  size_t first_open_ = 0;  // No slab before this one has a free slot.
  size_t n_held_ = 0;
  size_t n_slabs_mapped_ = 0;
};

}  // namespace nosa
