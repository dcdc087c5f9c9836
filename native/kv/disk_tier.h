#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kv/background_writer.h"
#include "kv/random_file.h"
#include "kv/tier.h"

namespace nosa {

struct DiskTierOptions {
  size_t extent_bytes = 0;
  std::string spill_folder;  ///< Where slots that take() gives are kept; nothing outlives the process.
  size_t spill_bytes_max = 0;
  int n_readers = 4;         ///< Reads in flight.
};

/// Extents on disk. Two kinds of slot: extents of saved segments, *adopted* where they lie and never
/// written; and slots of a spill file, for blocks that no segment holds.
///
/// Extents that lie together are read together, in the order of their files. Every read is checked
/// against the checksum of what was written or adopted.
class DiskTier final : public Tier {
 public:
  /// A file that slots can be adopted from; it stays open until its last slot is released.
  enum class FileId : uint32_t {};

  explicit DiskTier(const DiskTierOptions& options);
  ~DiskTier() override;

  std::string_view name() const override { return "disk"; }
  size_t extent_bytes() const override { return options_.extent_bytes; }
  size_t n_taken() const override { return n_taken_; }
  Result<TierSlot> take() override;
  void release(TierSlot slot) override;
  Status write(std::span<const TierTransfer> transfers) override;
  Status read(std::span<const TierTransfer> transfers) override;
  void start_writing(std::span<const TierTransfer> transfers) override;
  bool is_writing() const override { return behind_.is_running(); }
  Status finish_writing() override;
  std::byte* address(TierSlot) override { return nullptr; }

  /// Opens a file of saved extents. Fails as RandomFile::open().
  Result<FileId> open_file(const std::string& path);

  /// The extent at `offset` of `file`, a whole page, with its xxh64. It is not read.
  TierSlot adopt(FileId file, int64_t offset, uint64_t checksum);

  /// A file from which nothing was adopted, or nothing is any more, is closed.
  void close_unused(FileId file);

  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_written() const { return bytes_written_; }

  /// Whether transfers of `slot` pass by the page cache.
  bool direct(TierSlot slot) const;

 private:
  static constexpr uint32_t kSpill = 0;

  struct Slot {
    int64_t offset = 0;
    uint64_t checksum = 0;
    uint32_t file = 0;
    bool taken = false;
    bool written = false;
  };
  struct File {
    std::unique_ptr<RandomFile> file;
    size_t n_slots = 0;
  };

  TierSlot add(const Slot& slot);
  const Slot& slot_of(const TierTransfer& transfer) const { return slots_[size_t(transfer.slot)]; }
  Status read_run(std::span<const TierTransfer> run) const;
  Status on_readers(size_t n_items, const std::function<Status(size_t)>& item);
  void reader_loop();
  void take_item(std::unique_lock<std::mutex>& lock);

  DiskTierOptions options_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> free_slots_;     // Indices into slots_.
  std::vector<File> files_;              // [0] is the spill file, once there is one.
  std::vector<int64_t> free_spill_;      // Offsets within it.
  int64_t spill_end_ = 0;
  size_t n_taken_ = 0;
  uint64_t bytes_read_ = 0;
  uint64_t bytes_written_ = 0;
  std::vector<TierTransfer> sorted_;  // Scratch of read().
  std::vector<size_t> run_begins_;    // Likewise: where in it a run begins, and its end.
  std::vector<TierSlot> writing_;     // Between start_writing() and finish_writing().
  BackgroundWriter behind_;

  // One batch at a time: the owner posts it and waits, readers take items until none is left.
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable finished_;
  const std::function<Status(size_t)>* item_ = nullptr;
  size_t next_item_ = 0;
  size_t end_item_ = 0;
  size_t n_running_ = 0;
  Status failure_;
  bool closing_ = false;
  std::vector<std::thread> readers_;
};

}  // namespace nosa
