#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/prefetch.h"
#include "kv/block.h"

namespace nosa {

/// Which blocks are in memory, and which of them goes when another must come: the least recently
/// used among those that may go. Knows nothing of bytes.
///
/// Blocks used since the last begin() never go, so all that one step wants stays together.
///
/// Not thread-safe: used by the native worker thread only.
class Residency {
 public:
  /// Opens a new step: what it uses from here on is safe until the next one.
  void begin() { step_ += 1; }

  /// `block` is in memory now, and stays for good unless it may go. REQUIRES: it was not.
  void add(BlockId block, bool may_go);

  /// `block` left memory, or there is no such block any more. Does nothing if it was not there.
  void remove(BlockId block);

  /// Counts as a use of `block` by the step. REQUIRES: it is in memory.
  void use(BlockId block);

  bool contains(BlockId block) const;

  /// Asks for what is kept of `block`, which need not be known.
  [[gnu::always_inline]] void prefetch_entry(BlockId block) const {
    if (size_t(block) < entries_.size()) prefetch(&entries_[size_t(block)]);
  }

  /// The block to put out next; none when everything is in use or may not go.
  std::optional<BlockId> victim() const;

  /// The next victims, in the order in which they would go: at most `n`.
  void next_victims(size_t n, std::vector<BlockId>& out) const;

  size_t n_blocks() const { return n_blocks_; }

  /// Aborts unless the list and the counts agree.
  void check_integrity() const;

 private:
  static constexpr int32_t kNone = -1;
  struct Entry {
    bool present = false;
    bool may_go = false;
    uint64_t step = 0;     // Of the last use.
    int32_t older = kNone;  // The list of those that may go, by use.
    int32_t newer = kNone;
  };

  Entry& entry(BlockId block);
  void unlink(int32_t index);
  void link_newest(int32_t index);

  std::vector<Entry> entries_;  // By block id.
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
  uint64_t step_ = 1;
  size_t n_blocks_ = 0;
};

}  // namespace nosa
