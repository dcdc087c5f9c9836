#include "kv/block_store.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/check.h"

namespace nosa {

BlockStore::BlockStore(const BlockStoreOptions& options, Tier* below)
    : host_(options.extent_bytes, options.bytes_max), below_(below), writes_behind_(options.writes_behind) {
  CHECK(below == nullptr || below->extent_bytes() == options.extent_bytes);
}

BlockStore::~BlockStore() {
  finish_writing();
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
  if (holders_[i] == 1) settle(block);
  if (--holders_[i] > 0) return;
  leave_memory(i);
  if (below_slots_[i] != kNowhere) below_->release(below_slots_[i]);
  below_slots_[i] = kNowhere;
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
  settle(block);
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

void BlockStore::begin_step() {
  residency_.begin();
  if (!behind_.empty() && !below_->is_writing()) finish_writing();
  if (std::exchange(has_put_out_, false)) write_behind();
}

Status BlockStore::make_resident(std::span<const BlockId> blocks) {
  // What is kept of each lies apart, and takes longer to come than to read.
  for (const BlockId block : blocks) {
    const size_t i = size_t(block);
    CHECK(i < holders_.size());
    residency_.prefetch_entry(block);
    nosa::prefetch(holders_.data() + i);
    nosa::prefetch(addresses_.data() + i);
  }
  // First what is there, so that none of it is put out to make room for the rest.
  for (const BlockId block : blocks) {
    if (!resident(block)) continue;
    residency_.use(block);
    if (!prefetched_[index(block)]) continue;
    prefetched_[index(block)] = false;
    n_prefetched_used_ += 1;
  }
  Status status = find_places(blocks);
  if (!status.ok()) {
    for (const BlockId block : arriving_) leave_memory(index(block));
    return status;
  }
  n_loaded_ += arriving_.size();
  return read_arriving();
}

Result<size_t> BlockStore::prefetch(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    if (resident(block)) residency_.use(block);
  }
  // That the rest does not fit, or that the disk is too full to make room, is no failure of these.
  (void)find_places(blocks);
  if (Status status = read_arriving(); !status.ok()) return status;
  for (const BlockId block : arriving_) prefetched_[index(block)] = true;
  n_prefetched_ += arriving_.size();
  return arriving_.size();
}

// Finds places for those that are not in memory, until there are no more. They are `arriving_`, with
// no bytes yet.
Status BlockStore::find_places(std::span<const BlockId> blocks) {
  transfers_.clear();
  arriving_.clear();
  for (const BlockId block : blocks) {
    if (resident(block)) continue;
    const Result<TierSlot> slot = take_memory();
    if (!slot.ok()) return slot.status();
    place(block, *slot, true);
    transfers_.push_back({below_slots_[index(block)], data(block)});
    arriving_.push_back(block);
  }
  return {};
}

// Fills the places of what arrives, or gives them back.
Status BlockStore::read_arriving() {
  if (transfers_.empty()) return {};
  Status status = below_->read(transfers_);
  if (status.ok()) return status;
  for (const BlockId block : arriving_) leave_memory(index(block));
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
    CHECK(in_memory || !prefetched_[i]);
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
  prefetched_.push_back(false);
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
  settle(block);
  if (below_slots_[i] == kNowhere) {
    if (Status status = write_now(i); !status.ok()) return status;
  }
  leave_memory(i);
  has_put_out_ = true;
  return {};
}

void BlockStore::leave_memory(size_t i) {
  if (host_slots_[i] == kNowhere) return;
  residency_.remove(BlockId(i));
  host_.release(host_slots_[i]);
  host_slots_[i] = kNowhere;
  addresses_[i] = nullptr;
  prefetched_[i] = false;
}

Status BlockStore::write_now(size_t i) {
  const Result<TierSlot> below = below_->take();
  if (!below.ok()) return below.status();
  const TierTransfer transfer{*below, addresses_[i]};
  if (Status status = below_->write({&transfer, 1}); !status.ok()) {
    below_->release(*below);
    return status;
  }
  below_slots_[i] = *below;
  n_put_out_ += 1;
  return {};
}

// Begins to copy down those of the next victims that have no copy there yet. The later half of all
// blocks is left alone: most of these are wanted again, or still written to.
void BlockStore::write_behind() {
  if (!writes_behind_ || !behind_.empty()) return;
  residency_.next_victims(std::min(behind_looked, residency_.n_blocks() / 2), next_);
  transfers_behind_.clear();
  for (const BlockId block : next_) {
    if (behind_.size() == behind_max) break;
    if (below_slots_[index(block)] != kNowhere) continue;
    const Result<TierSlot> slot = below_->take();
    if (!slot.ok()) break;  // Whoever needs the place is told.
    behind_.push_back({block, *slot});
    transfers_behind_.push_back({*slot, addresses_[index(block)]});
  }
  if (!behind_.empty()) below_->start_writing(transfers_behind_);
}

// Waits for what is being written behind. A failure is told to whoever needs the place: the block has
// no copy then, and is written again.
void BlockStore::finish_writing() {
  if (behind_.empty()) return;
  const bool written = below_->finish_writing().ok();
  for (const auto& [block, slot] : behind_) {
    TierSlot& below = below_slots_[index(block)];
    if (written && below == kNowhere) {
      below = slot;
      n_written_behind_ += 1;
    } else {
      below_->release(slot);
    }
  }
  behind_.clear();
}

// Waits until nothing reads the bytes of `block` any more.
void BlockStore::settle(BlockId block) {
  const auto is_block = [&](const Behind& each) { return each.block == block; };
  if (std::ranges::any_of(behind_, is_block)) finish_writing();
}

void BlockStore::place(BlockId block, TierSlot host_slot, bool may_go) {
  const size_t i = index(block);
  host_slots_[i] = host_slot;
  addresses_[i] = host_.address(host_slot);
  residency_.add(block, may_go);
}

}  // namespace nosa
