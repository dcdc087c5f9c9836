#include "core/thread_pool.h"

#include <chrono>
#include <string>
#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "core/check.h"

namespace nosa {
namespace {

// entry_: the top bit says that workers may enter the loop, the rest counts those inside.
constexpr uint32_t entry_open = 1u << 31;

/// Tells the core that this is a spin, which saves power and lets its other thread run.
void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  __asm__ __volatile__("yield" ::: "memory");
#endif
}

/// Watches until `value` is no longer `old`, then sleeps until it is not. Returns the new value.
uint32_t wait_for_change(const std::atomic<uint32_t>& value, uint32_t old, int spin_us) {
  constexpr int pauses_per_look_at_clock = 32;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
  while (spin_us > 0) {
    for (int i = 0; i < pauses_per_look_at_clock; ++i) {
      const uint32_t now = value.load(std::memory_order_acquire);
      if (now != old) return now;
      pause_briefly();
    }
    if (std::chrono::steady_clock::now() >= deadline) break;
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(const Options& options) {
  if (options.n_threads < 1 || options.n_threads > threads_max) {
    return Status::invalid_argument("the number of threads is " +
                                    std::to_string(options.n_threads) + "; set it to 1 .. " +
                                    std::to_string(threads_max));
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool(options));
  pool->workers_.reserve(static_cast<size_t>(options.n_threads - 1));
  for (int worker = 1; worker < options.n_threads; ++worker) {
    // The standard library reports a refused thread by an exception: it ends here.
    try {
      pool->workers_.emplace_back([raw = pool.get(), worker] { raw->worker_main(worker); });
    } catch (const std::system_error& error) {
      return Status::out_of_memory("thread " + std::to_string(worker + 1) + " of " +
                                   std::to_string(options.n_threads) +
                                   " cannot be started: " + error.what());
    }
  }
  return pool;
}

ThreadPool::ThreadPool(const Options& options)
    : n_threads_(options.n_threads), spin_us_(options.spin_us) {}

ThreadPool::~ThreadPool() { stop_workers(); }

void ThreadPool::stop_workers() {
  stopping_.store(true, std::memory_order_relaxed);
  loop_number_.fetch_add(1, std::memory_order_release);
  loop_number_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::run(int64_t n_items, void* body, Call call) {
  DCHECK(entry_.load() == 0);
  n_items_ = n_items;
  body_ = body;
  call_ = call;
  next_item_.store(0, std::memory_order_relaxed);
  entry_.store(entry_open, std::memory_order_release);
  loop_number_.fetch_add(1, std::memory_order_release);
  loop_number_.notify_all();

  take_items(0);

  // Every item is taken. Whoever has not entered by now need not; wait for those inside. Their
  // decrements of entry_ release what they wrote, and this thread acquires it.
  uint32_t inside = entry_.fetch_and(~entry_open, std::memory_order_acq_rel) & ~entry_open;
  while (inside != 0) inside = wait_for_change(entry_, inside, spin_us_);
}

void ThreadPool::take_items(int worker) {
  while (true) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= n_items_) return;
    call_(body_, item, worker);
  }
}

void ThreadPool::worker_main(int worker) {
  uint32_t seen = 0;
  while (true) {
    seen = wait_for_change(loop_number_, seen, spin_us_);
    if (stopping_.load(std::memory_order_relaxed)) return;

    // A worker that wakes late may find the loop closed, or the one after it open: both are fine,
    // as the loop's fields are only read between entering and leaving.
    uint32_t entry = entry_.load(std::memory_order_relaxed);
    bool inside = false;
    while (!inside && (entry & entry_open) != 0) {
      inside = entry_.compare_exchange_weak(entry, entry + 1, std::memory_order_acquire,
                                            std::memory_order_relaxed);
    }
    if (!inside) continue;
    take_items(worker);
    const uint32_t left = entry_.fetch_sub(1, std::memory_order_release) - 1;
    if (left == 0) entry_.notify_one();
  }
}

}  // namespace nosa
