#include "kv/disk_tier.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/check.h"
#include "kv/block.h"
#include "kv/xxh64.h"

namespace nosa {
namespace {

/// Longer runs are split, so that all readers have something to do.
constexpr size_t run_extents_max = 16;

}  // namespace

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
  for (const TierTransfer& transfer : transfers) CHECK(slot_of(transfer).written);
  bytes_read_ += transfers.size() * options_.extent_bytes;
  sorted_.assign(transfers.begin(), transfers.end());
  std::sort(sorted_.begin(), sorted_.end(), [this](const TierTransfer& a, const TierTransfer& b) {
    const Slot& one = slot_of(a);
    const Slot& other = slot_of(b);
    return one.file != other.file ? one.file < other.file : one.offset < other.offset;
  });
  run_begins_.clear();
  for (size_t i = 0; i < sorted_.size(); ++i) {
    const bool goes_on = i > 0 && i - run_begins_.back() < run_extents_max &&
                         slot_of(sorted_[i]).file == slot_of(sorted_[i - 1]).file &&
                         slot_of(sorted_[i]).offset ==
                             slot_of(sorted_[i - 1]).offset + int64_t(options_.extent_bytes);
    if (!goes_on) run_begins_.push_back(i);
  }
  run_begins_.push_back(sorted_.size());
  return on_readers(run_begins_.size() - 1, [this](size_t i) {
    return read_run(std::span(sorted_).subspan(run_begins_[i], run_begins_[i + 1] - run_begins_[i]));
  });
}

void DiskTier::start_writing(std::span<const TierTransfer> transfers) {
  CHECK(writing_.empty() && !transfers.empty());
  std::vector<BackgroundWriter::Item> items;
  for (const TierTransfer& transfer : transfers) {
    const Slot& target = slot_of(transfer);
    CHECK(target.taken && target.file == kSpill);
    items.push_back({target.offset, {transfer.bytes, options_.extent_bytes}});
    writing_.push_back(transfer.slot);
  }
  behind_.start(*files_[kSpill].file, std::move(items));
}

Status DiskTier::finish_writing() {
  Result<std::vector<BackgroundWriter::Item>> items = behind_.finish();
  if (items.ok()) {
    for (size_t i = 0; i < writing_.size(); ++i) {
      Slot& target = slots_[size_t(writing_[i])];
      target.checksum = (*items)[i].checksum;
      target.written = true;
    }
    bytes_written_ += writing_.size() * options_.extent_bytes;
  }
  writing_.clear();
  return items.status();
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

// Extents that follow one another in one file.
Status DiskTier::read_run(std::span<const TierTransfer> run) const {
  const Slot& first = slot_of(run.front());
  const RandomFile& file = *files_[first.file].file;
  std::array<std::span<std::byte>, run_extents_max> extents;
  for (size_t i = 0; i < run.size(); ++i) extents[i] = {run[i].bytes, options_.extent_bytes};
  if (Status status = file.read(first.offset, std::span(extents).first(run.size())); !status.ok()) return status;
  for (const TierTransfer& transfer : run) {
    if (xxh64({transfer.bytes, options_.extent_bytes}) == slot_of(transfer).checksum) continue;
    return Status::corrupt("A block of " + file.path() +
                           " is not what was written there; its segment must be read again.");
  }
  return {};
}

// Runs item(0) .. item(n - 1), here and on the readers; gives the first failure.
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
  // The owner takes its share: often it is done before a reader has woken.
  while (next_item_ < end_item_) take_item(lock);
  finished_.wait(lock, [this] { return n_running_ == 0; });
  item_ = nullptr;
  return std::exchange(failure_, {});
}

void DiskTier::reader_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return closing_ || next_item_ < end_item_; });
    if (closing_) return;
    take_item(lock);
    if (next_item_ == end_item_ && n_running_ == 0) finished_.notify_one();
  }
}

// Runs the next item. REQUIRES: there is one; `lock` is held, and is again afterwards.
void DiskTier::take_item(std::unique_lock<std::mutex>& lock) {
  const size_t index = next_item_++;
  const auto& item = *item_;
  n_running_ += 1;
  lock.unlock();
  Status status = item(index);
  lock.lock();
  n_running_ -= 1;
  if (!status.ok() && failure_.ok()) failure_ = std::move(status);
}

}  // namespace nosa
