#pragma once

#include <vector>

#include "kv/page_memory.h"
#include "kv/tier.h"

namespace nosa {

/// Extents in memory. It comes in slabs of 64 slots, mapped when the first of them is taken and
/// given back when the last is released, so that mapped bytes follow the slots in use.
class HostTier final : public Tier {
 public:
  static constexpr int slab_slots = 64;

  /// REQUIRES: `extent_bytes` is a positive number of whole pages.
  /// `bytes_max` is the most memory that the tier maps.
  HostTier(size_t extent_bytes, size_t bytes_max);

  std::string_view name() const override { return "memory"; }
  size_t extent_bytes() const override { return extent_bytes_; }
  size_t n_taken() const override { return n_taken_; }
  Result<TierSlot> take() override;
  void release(TierSlot slot) override;
  Status write(std::span<const TierTransfer> transfers) override;
  Status read(std::span<const TierTransfer> transfers) override;
  void start_writing(std::span<const TierTransfer> transfers) override { written_ = write(transfers); }
  bool is_writing() const override { return false; }
  Status finish_writing() override { return written_; }
  std::byte* address(TierSlot slot) override;

  /// From here on the tier maps no more than this. What is mapped stays until its slots are released.
  void limit(size_t bytes_max) { bytes_max_ = bytes_max; }

  /// Memory taken from the system.
  size_t mapped_bytes() const { return n_slabs_mapped_ * slab_bytes(); }

  /// Aborts unless the books balance.
  void check_integrity() const;

 private:
  struct Slab {
    PageMemory memory;  // Empty when no slot is taken.
    uint64_t free_mask = ~uint64_t(0);
  };

  size_t slab_bytes() const { return extent_bytes_ * slab_slots; }
  Result<size_t> open_slab();

  size_t extent_bytes_;
  size_t bytes_max_;
  std::vector<Slab> slabs_;
  size_t first_open_ = 0;  // No slab before this one has a free slot.
  size_t n_taken_ = 0;
  Status written_;  // By start_writing(): memory is written at once.
  size_t n_slabs_mapped_ = 0;
};

}  // namespace nosa
