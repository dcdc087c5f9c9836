#include "kv/background_writer.h"

#include <utility>

#include "core/check.h"
#include "kv/xxh64.h"

namespace nosa {

BackgroundWriter::~BackgroundWriter() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void BackgroundWriter::start(RandomFile& file, std::vector<Item> items) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(state_ == State::kIdle);
    file_ = &file;
    items_ = std::move(items);
    state_ = State::kRunning;
  }
  changed_.notify_all();
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
}

bool BackgroundWriter::is_running() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kRunning;
}

Result<std::vector<BackgroundWriter::Item>> BackgroundWriter::finish() {
  std::unique_lock lock(mutex_);
  CHECK(state_ != State::kIdle);
  changed_.wait(lock, [this] { return state_ == State::kOver; });
  state_ = State::kIdle;
  Status status = std::exchange(status_, {});
  if (!status.ok()) return status;
  return std::move(items_);
}

void BackgroundWriter::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || state_ == State::kRunning; });
    if (state_ != State::kRunning) return;
    lock.unlock();
    Status status;
    for (Item& item : items_) {
      status = file_->write(item.offset, item.bytes);
      if (!status.ok()) break;
      item.checksum = xxh64(item.bytes);
    }
    lock.lock();
    status_ = std::move(status);
    state_ = State::kOver;
    changed_.notify_all();
  }
}

}  // namespace nosa
