#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "core/status.h"
#include "model/stop_flag.h"

namespace nosa {

/// The one thread that owns a model's state. Commands run there one after the other, in the order
/// they were posted; closing down is a command like the others.
///
/// Every method may be called from any thread, but join() not from a command.
class Worker {
 public:
  static constexpr size_t queue_max = 4096;

  using Command = std::function<void(const StopFlag&)>;

  Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  /// As abandon().
  ~Worker();

  /// Queues a command. Fails with kDisposed after finish() or abandon(), kOutOfMemory when
  /// queue_max commands wait.
  Status post(Command command);

  /// Queues the last command: whatever is posted later is refused, and the thread ends after it.
  /// Fails with kDisposed when there is one already.
  Status finish(Command command);

  /// Raises the stop flag of the command that runs, or of the next one in the queue when none has
  /// begun. Returns at once; without a command it does nothing.
  void interrupt();

  /// Waits until the thread has ended. REQUIRES: finish() or abandon() was called.
  void join();

  /// Drops what waits, stops what runs, and waits for the thread to end.
  void abandon();

 private:
  struct Queued {
    uint64_t number;
    Command command;
  };

  void run();
  Status push(Command command, bool is_last);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Queued> queue_;    // The running command is no longer in it.
  uint64_t last_number_ = 0;
  uint64_t running_ = 0;        // 0 when idle.
  bool finishing_ = false;
  std::atomic<uint64_t> stopped_up_to_{0};
  std::thread thread_;
};

}  // namespace nosa
