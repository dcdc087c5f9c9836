#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/status.h"
#include "kv/block.h"
#include "kv/host_tier.h"
#include "kv/residency.h"
#include "kv/tier.h"

namespace nosa {

struct BlockStoreOptions {
  size_t extent_bytes = 0;  ///< Bytes of one block, whole pages.
  /// Most bytes of memory for blocks. Beyond it, blocks go to the tier below.
  size_t bytes_max = std::numeric_limits<size_t>::max();
  /// Copies blocks down ahead of need, while the caller computes. Off only to measure what it brings.
  bool writes_behind = true;
};

/// Owns every block: where its extent is, and the count of those who share it.
///
/// A block has one or more holders. Its extent is in memory, in the tier below (disk), or in both;
/// one that is nowhere but in memory is copied down before it goes. When memory is full, the least
/// recently used block that the current step does not need goes. Where blocks go, those that would be
/// next are copied down ahead of it, behind the caller's back.
///
/// Not thread-safe: used by the native worker thread only.
class BlockStore {
 public:
  /// `below` must outlive the store; without one every block stays in memory.
  /// REQUIRES: `options.extent_bytes` is a positive number of whole pages.
  explicit BlockStore(const BlockStoreOptions& options, Tier* below = nullptr);
  ~BlockStore();

  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  /// A new block in memory, with one holder and bytes of no meaning.
  /// Fails with kOutOfMemory at the limit, or as the tier below does when it must take something.
  Result<BlockId> hold();

  /// A new block whose extent is in the tier below, at `slot`, which it owns from here on.
  BlockId adopt(TierSlot slot);

  /// One more holder. REQUIRES: `block` is held.
  void retain(BlockId block);

  /// One holder less; the last one frees the block in all tiers. REQUIRES: `block` is held.
  void release(BlockId block);

  /// Whether a write would be seen by another holder. REQUIRES: `block` is held.
  bool shared(BlockId block) const { return holders_[index(block)] > 1; }

  /// The caller's own block with the same bytes, in memory, to be written: the block itself when
  /// nobody else holds it, else a new one for which the caller's hold on `block` is given up.
  /// A copy below is dropped, for it will be wrong. Fails as make_resident(); nothing has changed then.
  Result<BlockId> make_private(BlockId block);

  /// `block`, not written since, also lies at `slot` of the tier below, which it owns from here on.
  void saved(BlockId block, TierSlot slot);

  /// From here on blocks take at most `bytes_max` of memory; the least recently used go until they do.
  /// Opens a new step. Fails with kOutOfMemory when what may not go is more, or as the tier below does.
  Status limit(size_t bytes_max);

  /// Opens a new step: blocks used from here on stay in memory until the next step.
  void begin_step();

  /// Brings blocks into memory, reading what is missing in one batch, and counts as their use.
  /// Fails with kOutOfMemory when the step needs more than fits, or as the tier below does.
  Status make_resident(std::span<const BlockId> blocks);

  /// Brings blocks into memory that will soon be wanted: the first of them that fit beside what the
  /// step uses. Gives how many were read. Fails as the tier below does.
  Result<size_t> prefetch(std::span<const BlockId> blocks);

  /// Whether the extent is in memory.
  bool resident(BlockId block) const { return residency_.contains(block); }

  /// The extent, extent_bytes() long, page-aligned; it stays where it is for the rest of the step.
  /// REQUIRES: resident.
  std::byte* data(BlockId block) { return addresses_[index(block)]; }
  const std::byte* data(BlockId block) const { return addresses_[index(block)]; }

  size_t extent_bytes() const { return host_.extent_bytes(); }

  /// Held blocks, each counted once however many share it.
  size_t n_held() const { return n_held_; }

  size_t n_resident() const { return residency_.n_blocks(); }

  /// Memory taken from the system for extents.
  size_t mapped_bytes() const { return host_.mapped_bytes(); }

  /// Blocks read from the tier below because they were wanted, ever.
  uint64_t n_loaded() const { return n_loaded_; }

  /// Blocks read ahead, and how many of them were wanted while they were there.
  uint64_t n_prefetched() const { return n_prefetched_; }
  uint64_t n_prefetched_used() const { return n_prefetched_used_; }

  /// Blocks copied down because one had to go, and ahead of that.
  uint64_t n_put_out() const { return n_put_out_; }
  uint64_t n_written_behind() const { return n_written_behind_; }

  /// Aborts unless the books balance: holders, memory, and the tier below.
  void check_integrity() const;

 private:
  static constexpr TierSlot kNowhere = TierSlot(~uint64_t(0));
  static constexpr size_t behind_max = 64;     // Blocks written behind at once.
  static constexpr size_t behind_looked = 256; // Next victims looked at for them.

  size_t index(BlockId block) const;
  BlockId add();
  Result<TierSlot> take_memory();
  Status put_out(BlockId block);
  void leave_memory(size_t i);
  void place(BlockId block, TierSlot host_slot, bool may_go);
  Status find_places(std::span<const BlockId> blocks);
  Status read_arriving();
  Status write_now(size_t i);
  void write_behind();
  void finish_writing();
  void settle(BlockId block);

  HostTier host_;
  Tier* below_;
  Residency residency_;
  // By block id.
  std::vector<uint32_t> holders_;
  std::vector<TierSlot> host_slots_;   // kNowhere when not in memory.
  std::vector<TierSlot> below_slots_;  // kNowhere when not below.
  std::vector<std::byte*> addresses_;  // Of the extent in memory, or null.
  std::vector<bool> prefetched_;       // And not wanted yet.
  std::vector<BlockId> free_;
  std::vector<TierTransfer> transfers_;  // Scratch of find_places().
  std::vector<BlockId> arriving_;        // Likewise.
  std::vector<BlockId> next_;            // Scratch of write_behind().
  std::vector<TierTransfer> transfers_behind_;  // Likewise.
  // Being written behind: blocks that nobody may write to or free until it is over, and where to.
  struct Behind {
    BlockId block;
    TierSlot slot;
  };
  std::vector<Behind> behind_;
  bool writes_behind_;
  bool has_put_out_ = false;  // Since the last step began.
  size_t n_held_ = 0;
  uint64_t n_loaded_ = 0;
  uint64_t n_prefetched_ = 0;
  uint64_t n_prefetched_used_ = 0;
  uint64_t n_put_out_ = 0;
  uint64_t n_written_behind_ = 0;
};

}  // namespace nosa
