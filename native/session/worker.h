#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "core/status.h"
#include "model/stop_flag.h"

namespace nosa {

/// One piece of work for a worker. A command that is dropped unrun is destroyed all the same.
class Command {
 public:
  virtual ~Command() = default;

  /// On the worker's thread. Looks at `stop` at least every 20 ms of work when it can.
  virtual void run(const StopFlag& stop) = 0;
};

/// A command out of anything that can be called with a stop flag; it may be move-only.
template <typename Fn>
std::unique_ptr<Command> make_command(Fn fn) {
  class FnCommand final : public Command {
   public:
    explicit FnCommand(Fn fn) : fn_(std::move(fn)) {}
    void run(const StopFlag& stop) override { fn_(stop); }

   private:
    Fn fn_;
  };
  return std::make_unique<FnCommand>(std::move(fn));
}

/// The one thread that owns a model's state. Commands run there one after the other, in the order
/// they were posted; closing down is a command like the others.
///
/// Every method may be called from any thread, but join() not from a command.
class Worker {
 public:
  static constexpr size_t queue_max = 4096;

  Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  /// As abandon().
  ~Worker();

  /// Queues a command. Fails with kDisposed after finish() or abandon(), kOutOfMemory when
  /// queue_max commands wait; the command is then dropped.
  Status post(std::unique_ptr<Command> command);

  /// Queues the last command: whatever is posted later is refused, and the thread ends after it.
  /// Fails with kDisposed when there is one already.
  Status finish(std::unique_ptr<Command> command);

  /// Raises the stop flag of the command that runs, or of the next one in the queue when none has
  /// begun. Returns at once; without a command it does nothing.
  void interrupt();

  /// Waits until the thread has ended. REQUIRES: finish() or abandon() was called.
  void join();

  /// Drops what waits, stops what runs, and waits for the thread to end.
  void abandon();

 private:
  struct Queued {
    uint64_t number = 0;
    std::unique_ptr<Command> command;
  };

  void run();
  Status push(std::unique_ptr<Command> command, bool is_last);

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
