#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "core/status.h"
#include "kv/random_file.h"

namespace nosa {

/// Writes to a file behind its owner's back: one batch at a time, on a thread of its own that begins
/// with the first.
///
/// Owned by one thread; is_running() and finish() are how it hears of the other.
class BackgroundWriter {
 public:
  struct Item {
    int64_t offset = 0;
    std::span<const std::byte> bytes;  ///< Must stay as they are until finish().
    uint64_t checksum = 0;             ///< xxh64 of what was written.
  };

  BackgroundWriter() = default;
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;
  /// Waits for what is being written.
  ~BackgroundWriter();

  /// Begins a batch. REQUIRES: the last one was finished; `file` stays until this one is.
  void start(RandomFile& file, std::vector<Item> items);

  /// Whether a batch is still being written.
  bool is_running() const;

  /// Waits for the batch and gives its items, checksums filled in. Fails as RandomFile::write(), and
  /// then nothing of the batch counts as written. REQUIRES: one was started.
  Result<std::vector<Item>> finish();

 private:
  enum class State { kIdle, kRunning, kOver };

  void loop();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kIdle;
  bool closing_ = false;
  RandomFile* file_ = nullptr;
  std::vector<Item> items_;  // The thread's own while kRunning.
  Status status_;
  std::thread thread_;
};

}  // namespace nosa
