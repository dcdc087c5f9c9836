#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "core/status.h"

namespace nosa {

/// A fixed set of threads that share out loops. The calling thread takes part.
///
/// A decode step runs some two hundred short loops one after the other, so workers watch for the
/// next one for `spin_us` before they sleep, and a loop neither allocates nor waits for a worker
/// that is still asleep: whoever is awake takes the items.
///
/// One thread at a time may call parallel_for, and not from inside a loop body.
class ThreadPool {
 public:
  static constexpr int threads_max = 256;

  struct Options {
    int n_threads = 1;  ///< With the caller; 1 runs everything inline and starts no thread.
    int spin_us = 50;   ///< How long an idle thread watches before it sleeps.
  };

  /// Fails with kInvalidArgument for a thread count outside 1 .. threads_max, and with kOutOfMemory
  /// when the system refuses a thread.
  static Result<std::unique_ptr<ThreadPool>> create(const Options& options);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int n_threads() const { return n_threads_; }

  /// Calls fn(int64_t item, int worker) once for every item in [0, n_items), in no set order, and
  /// returns when all have finished; their writes are then visible to the caller. `worker` is in
  /// [0, n_threads()) and is never in two calls at once, so it can index scratch memory; the caller
  /// is worker 0. `fn` must not throw.
  template <typename Fn>
  void parallel_for(int64_t n_items, Fn&& fn) {
    if (n_threads_ == 1 || n_items <= 1) {
      for (int64_t item = 0; item < n_items; ++item) fn(item, 0);
      return;
    }
    auto body = [&fn](int64_t item, int worker) { fn(item, worker); };
    run(n_items, &body, [](void* opaque, int64_t item, int worker) {
      (*static_cast<decltype(body)*>(opaque))(item, worker);
    });
  }

 private:
  using Call = void (*)(void* body, int64_t item, int worker);

  explicit ThreadPool(const Options& options);
  void run(int64_t n_items, void* body, Call call);
  void worker_main(int worker);
  void take_items(int worker);
  void stop_workers();

  int n_threads_ = 1;
  int spin_us_ = 0;

  // The current loop: written by the caller before it opens `entry_`, read by workers that entered.
  int64_t n_items_ = 0;
  void* body_ = nullptr;
  Call call_ = nullptr;

  // Each on its own cache line, as different threads hammer them.
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint32_t> loop_number_{0};  // Changes when there is something to look at.
  alignas(64) std::atomic<uint32_t> entry_{0};        // Open flag, and how many workers are inside.
  std::atomic<bool> stopping_{false};

  std::vector<std::thread> workers_;
};

}  // namespace nosa
