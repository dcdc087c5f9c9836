#include "kv/disk_tier.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "kv/block.h"
#include "kv/xxh64.h"

namespace nosa {

DiskTier::DiskTier(const DiskTierOptions& options) : options_(options), files_(1) {
  CHECK(options.extent_bytes > 0 && options.extent_bytes % KvShape::page_bytes == 0);
  for (int i = 0; i < options.n_readers; ++i) readers_.emplace_back([this] { reader_loop(); });
}

DiskTier::~DiskTier() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  for (std::thread& reader : readers_) reader.join();
}

Result<TierSlot> DiskTier::take() {
  File& spill = files_[kSpill];
  if (spill.file == nullptr) {
    Result<RandomFile> file = RandomFile::create_nameless(options_.spill_folder);
    if (!file.ok()) return file.status();
    spill.file = std::make_unique<RandomFile>(*std::move(file));
  }
  Slot slot{.file = kSpill, .taken = true};
  if (!free_spill_.empty()) {
    slot.offset = free_spill_.back();
    free_spill_.pop_back();
    return add(slot);
  }
  if (size_t(spill_end_) + options_.extent_bytes > options_.spill_bytes_max) {
    return Status::no_space("The KV cache has reached its limit of " +
                            std::to_string(options_.spill_bytes_max) +
                            " bytes on disk; raise its disk budget.");
  }
  slot.offset = spill_end_;
  spill_end_ += int64_t(options_.extent_bytes);
  return add(slot);
}

void DiskTier::release(TierSlot slot) {
  Slot& gone = slots_[size_t(slot)];
  CHECK(gone.taken);
  if (gone.file == kSpill) free_spill_.push_back(gone.offset);
  const FileId file = FileId(gone.file);
  files_[gone.file].n_slots -= 1;
  gone = {};
  free_slots_.push_back(uint64_t(slot));
  n_taken_ -= 1;
  if (uint32_t(file) != kSpill) close_unused(file);
}

Status DiskTier::write(std::span<const TierTransfer> transfers) {
  for (const auto& [slot, bytes] : transfers) {
    Slot& target = slots_[size_t(slot)];
    CHECK(target.taken && target.file == kSpill);
    const std::span<const std::byte> extent(bytes, options_.extent_bytes);
    if (Status status = files_[kSpill].file->write(target.offset, extent); !status.ok()) return status;
    target.checksum = xxh64(extent);
    target.written = true;
    bytes_written_ += options_.extent_bytes;
  }
  return {};
}

Status DiskTier::read(std::span<const TierTransfer> transfers) {
  for (const TierTransfer& transfer : transfers) CHECK(slots_[size_t(transfer.slot)].written);
  bytes_read_ += transfers.size() * options_.extent_bytes;
  return on_readers(transfers.size(), [&](size_t i) { return read_one(transfers[i]); });
}

Result<DiskTier::FileId> DiskTier::open_file(const std::string& path) {
  Result<RandomFile> file = RandomFile::open(path);
  if (!file.ok()) return file.status();
  File opened{.file = std::make_unique<RandomFile>(*std::move(file)), .n_slots = 0};
  const auto closed = std::find_if(files_.begin() + 1, files_.end(),
                                   [](const File& each) { return each.file == nullptr; });
  if (closed != files_.end()) {
    *closed = std::move(opened);
    return FileId(closed - files_.begin());
  }
  files_.push_back(std::move(opened));
  return FileId(files_.size() - 1);
}

TierSlot DiskTier::adopt(FileId file, int64_t offset, uint64_t checksum) {
  CHECK(uint32_t(file) != kSpill && files_[uint32_t(file)].file != nullptr);
  CHECK(offset % int64_t(KvShape::page_bytes) == 0);
  return add({.offset = offset, .checksum = checksum, .file = uint32_t(file), .taken = true, .written = true});
}

void DiskTier::close_unused(FileId file) {
  File& each = files_[uint32_t(file)];
  if (each.n_slots == 0) each.file = nullptr;
}

bool DiskTier::direct(TierSlot slot) const {
  return files_[slots_[size_t(slot)].file].file->direct();
}

TierSlot DiskTier::add(const Slot& slot) {
  files_[slot.file].n_slots += 1;
  n_taken_ += 1;
  if (free_slots_.empty()) {
    slots_.push_back(slot);
    return TierSlot(slots_.size() - 1);
  }
  const uint64_t index = free_slots_.back();
  free_slots_.pop_back();
  slots_[index] = slot;
  return TierSlot(index);
}

Status DiskTier::read_one(const TierTransfer& transfer) const {
  const Slot& slot = slots_[size_t(transfer.slot)];
  const RandomFile& file = *files_[slot.file].file;
  const std::span<std::byte> extent(transfer.bytes, options_.extent_bytes);
  if (Status status = file.read(slot.offset, extent); !status.ok()) return status;
  if (xxh64(extent) != slot.checksum) {
    return Status::corrupt("A block of " + file.path() +
                           " is not what was written there; its segment must be read again.");
  }
  return {};
}

// Runs item(0) .. item(n - 1), some on the readers; gives the first failure.
Status DiskTier::on_readers(size_t n_items, const std::function<Status(size_t)>& item) {
  if (n_items == 0) return {};
  if (n_items == 1 || readers_.empty()) {
    for (size_t i = 0; i < n_items; ++i) {
      if (Status status = item(i); !status.ok()) return status;
    }
    return {};
  }
  std::unique_lock lock(mutex_);
  item_ = &item;
  next_item_ = 0;
  end_item_ = n_items;
  failure_ = {};
  work_.notify_all();
  finished_.wait(lock, [this] { return next_item_ == end_item_ && n_running_ == 0; });
  item_ = nullptr;
  return std::exchange(failure_, {});
}

void DiskTier::reader_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return closing_ || next_item_ < end_item_; });
    if (closing_) return;
    const size_t index = next_item_++;
    const auto& item = *item_;
    n_running_ += 1;
    lock.unlock();
    Status status = item(index);
    lock.lock();
    n_running_ -= 1;
    if (!status.ok() && failure_.ok()) failure_ = std::move(status);
    if (next_item_ == end_item_ && n_running_ == 0) finished_.notify_one();
  }
}

}  // namespace nosa
