#include "kv/block_store.h"

#include <cstring>
#include <optional>

#include "core/check.h"

namespace nosa {

BlockStore::BlockStore(const BlockStoreOptions& options, Tier* below)
    : host_(options.extent_bytes, options.bytes_max), below_(below) {
  CHECK(below == nullptr || below->extent_bytes() == options.extent_bytes);
}

BlockStore::~BlockStore() {
  for (size_t i = 0; i < holders_.size(); ++i) {
    if (holders_[i] > 0 && below_slots_[i] != kNowhere) below_->release(below_slots_[i]);
  }
}

Result<BlockId> BlockStore::hold() {
  const Result<TierSlot> slot = take_memory();
  if (!slot.ok()) return slot.status();
  const BlockId block = add();
  place(block, *slot, below_ != nullptr);
  return block;
}

BlockId BlockStore::adopt(TierSlot slot) {
  CHECK(below_ != nullptr);
  const BlockId block = add();
  below_slots_[index(block)] = slot;
  return block;
}

void BlockStore::retain(BlockId block) {
  uint32_t& holders = holders_[index(block)];
  CHECK(holders < std::numeric_limits<uint32_t>::max());
  holders += 1;
}

void BlockStore::release(BlockId block) {
  const size_t i = index(block);
  if (--holders_[i] > 0) return;
  residency_.remove(block);
  if (host_slots_[i] != kNowhere) host_.release(host_slots_[i]);
  if (below_slots_[i] != kNowhere) below_->release(below_slots_[i]);
  host_slots_[i] = below_slots_[i] = kNowhere;
  addresses_[i] = nullptr;
  free_.push_back(block);
  n_held_ -= 1;
}

Result<BlockId> BlockStore::make_private(BlockId block) {
  if (Status status = make_resident({&block, 1}); !status.ok()) return status;
  if (shared(block)) {
    const Result<BlockId> copy = hold();
    if (!copy.ok()) return copy.status();
    std::memcpy(data(*copy), data(block), extent_bytes());
    release(block);
    return *copy;
  }
  TierSlot& old = below_slots_[index(block)];
  if (old != kNowhere) below_->release(old);
  old = kNowhere;
  return block;
}

void BlockStore::saved(BlockId block, TierSlot slot) {
  TierSlot& below = below_slots_[index(block)];
  if (below != kNowhere) below_->release(below);
  below = slot;
}

Status BlockStore::make_resident(std::span<const BlockId> blocks) {
  // First what is there, so that none of it is put out to make room for the rest.
  for (const BlockId block : blocks) {
    if (resident(block)) residency_.use(block);
  }
  transfers_.clear();
  arriving_.clear();
  Status status;
  for (const BlockId block : blocks) {
    if (resident(block)) continue;
    const Result<TierSlot> slot = take_memory();
    if (!slot.ok()) {
      status = slot.status();
      break;
    }
    place(block, *slot, true);
    transfers_.push_back({below_slots_[index(block)], data(block)});
    arriving_.push_back(block);
  }
  if (status.ok() && !transfers_.empty()) {
    status = below_->read(transfers_);
    n_loaded_ += transfers_.size();
  }
  if (status.ok()) return status;
  for (const BlockId block : arriving_) {
    residency_.remove(block);
    host_.release(host_slots_[index(block)]);
    host_slots_[index(block)] = kNowhere;
    addresses_[index(block)] = nullptr;
  }
  return status;
}

Status BlockStore::limit(size_t bytes_max) {
  begin_step();
  host_.limit(bytes_max);
  while (host_.mapped_bytes() > bytes_max) {
    const std::optional<BlockId> victim = residency_.victim();
    if (!victim.has_value()) return Status::out_of_memory("More of the KV cache is in use than its new limit holds.");
    if (Status status = put_out(*victim); !status.ok()) return status;
  }
  return {};
}

void BlockStore::check_integrity() const {
  size_t n_held = 0;
  size_t n_in_memory = 0;
  for (size_t i = 0; i < holders_.size(); ++i) {
    const bool in_memory = host_slots_[i] != kNowhere;
    CHECK(in_memory == residency_.contains(BlockId(i)));
    CHECK(in_memory == (addresses_[i] != nullptr));
    CHECK((holders_[i] > 0) == (in_memory || below_slots_[i] != kNowhere));
    n_held += holders_[i] > 0 ? 1 : 0;
    n_in_memory += in_memory ? 1 : 0;
  }
  CHECK(n_held == n_held_);
  CHECK(n_held + free_.size() == holders_.size());
  CHECK(n_in_memory == host_.n_taken());
  residency_.check_integrity();
  host_.check_integrity();
}

size_t BlockStore::index(BlockId block) const {
  const size_t i = size_t(block);
  CHECK(i < holders_.size() && holders_[i] > 0);
  return i;
}

BlockId BlockStore::add() {
  n_held_ += 1;
  if (!free_.empty()) {
    const BlockId block = free_.back();
    free_.pop_back();
    holders_[size_t(block)] = 1;
    return block;
  }
  CHECK(holders_.size() < std::numeric_limits<uint32_t>::max());
  holders_.push_back(1);
  host_slots_.push_back(kNowhere);
  below_slots_.push_back(kNowhere);
  addresses_.push_back(nullptr);
  return BlockId(holders_.size() - 1);
}

// A slot of memory: a free one, or that of a block which is put out for it.
Result<TierSlot> BlockStore::take_memory() {
  for (;;) {
    Result<TierSlot> slot = host_.take();
    if (slot.ok() || slot.status().code() != StatusCode::kOutOfMemory) return slot;
    const std::optional<BlockId> victim = residency_.victim();
    if (!victim.has_value()) return slot;
    if (Status status = put_out(*victim); !status.ok()) return status;
  }
}

Status BlockStore::put_out(BlockId block) {
  const size_t i = index(block);
  if (below_slots_[i] == kNowhere) {
    const Result<TierSlot> below = below_->take();
    if (!below.ok()) return below.status();
    const TierTransfer transfer{*below, addresses_[i]};
    if (Status status = below_->write({&transfer, 1}); !status.ok()) {
      below_->release(*below);
      return status;
    }
    below_slots_[i] = *below;
  }
  residency_.remove(block);
  host_.release(host_slots_[i]);
  host_slots_[i] = kNowhere;
  addresses_[i] = nullptr;
  return {};
}

void BlockStore::place(BlockId block, TierSlot host_slot, bool may_go) {
  const size_t i = index(block);
  host_slots_[i] = host_slot;
  addresses_[i] = host_.address(host_slot);
  residency_.add(block, may_go);
}

}  // namespace nosa
