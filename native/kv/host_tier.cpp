#include "kv/host_tier.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "core/check.h"
#include "kv/block.h"

namespace nosa {
namespace {

size_t slab_index(TierSlot slot) { return size_t(slot) / HostTier::slab_slots; }
int slot_index(TierSlot slot) { return int(size_t(slot) % HostTier::slab_slots); }

}  // namespace

HostTier::HostTier(size_t extent_bytes, size_t bytes_max)
    : extent_bytes_(extent_bytes), bytes_max_(bytes_max) {
  CHECK(extent_bytes_ > 0 && extent_bytes_ % KvShape::page_bytes == 0);
}

Result<TierSlot> HostTier::take() {
  Result<size_t> open = open_slab();
  if (!open.ok()) return open.status();
  Slab& slab = slabs_[*open];
  const int slot = std::countr_zero(slab.free_mask);
  slab.free_mask &= slab.free_mask - 1;
  n_taken_ += 1;
  return TierSlot(*open * slab_slots + size_t(slot));
}

void HostTier::release(TierSlot slot) {
  CHECK(address(slot) != nullptr);
  Slab& slab = slabs_[slab_index(slot)];
  slab.free_mask |= uint64_t(1) << slot_index(slot);
  n_taken_ -= 1;
  first_open_ = std::min(first_open_, slab_index(slot));
  if (~slab.free_mask == 0) {
    slab.memory = PageMemory();
    n_slabs_mapped_ -= 1;
  }
}

Status HostTier::write(std::span<const TierTransfer> transfers) {
  for (const auto& [slot, bytes] : transfers) std::memcpy(address(slot), bytes, extent_bytes_);
  return {};
}

Status HostTier::read(std::span<const TierTransfer> transfers) {
  for (const auto& [slot, bytes] : transfers) std::memcpy(bytes, address(slot), extent_bytes_);
  return {};
}

std::byte* HostTier::address(TierSlot slot) {
  CHECK(slab_index(slot) < slabs_.size());
  Slab& slab = slabs_[slab_index(slot)];
  CHECK((slab.free_mask >> slot_index(slot) & 1) == 0);
  return slab.memory.data() + size_t(slot_index(slot)) * extent_bytes_;
}

// The first slab with a free slot, its memory mapped.
Result<size_t> HostTier::open_slab() {
  while (first_open_ < slabs_.size() && slabs_[first_open_].free_mask == 0) ++first_open_;
  if (first_open_ == slabs_.size()) slabs_.emplace_back();
  Slab& slab = slabs_[first_open_];
  if (!slab.memory.empty()) return first_open_;
  if (mapped_bytes() + slab_bytes() > bytes_max_) {
    return Status::out_of_memory("The KV cache has reached its limit of " +
                                 std::to_string(bytes_max_) + " bytes; raise its memory budget.");
  }
  Result<PageMemory> memory = PageMemory::map(slab_bytes());
  if (!memory.ok()) return memory.status();
  slab.memory = *std::move(memory);
  n_slabs_mapped_ += 1;
  return first_open_;
}

void HostTier::check_integrity() const {
  size_t n_taken = 0;
  size_t n_mapped = 0;
  for (size_t slab_idx = 0; slab_idx < slabs_.size(); ++slab_idx) {
    const Slab& slab = slabs_[slab_idx];
    n_taken += size_t(slab_slots - std::popcount(slab.free_mask));
    const bool all_free = ~slab.free_mask == 0;
    CHECK(slab.memory.empty() == all_free);
    CHECK(slab_idx >= first_open_ || slab.free_mask == 0);
    n_mapped += all_free ? 0 : 1;
  }
  CHECK(n_taken == n_taken_);
  CHECK(n_mapped == n_slabs_mapped_);
}

}  // namespace nosa
