#include "session/worker.h"

#include <limits>
#include <utility>

namespace nosa {

Worker::Worker() : thread_([this] { run(); }) {}

Worker::~Worker() { abandon(); }

Status Worker::post(std::unique_ptr<Command> command) { return push(std::move(command), false); }

Status Worker::finish(std::unique_ptr<Command> command) { return push(std::move(command), true); }

Status Worker::push(std::unique_ptr<Command> command, bool is_last) {
  {
    const std::lock_guard lock(mutex_);
    if (finishing_) return Status::disposed("The model was disposed.");
    if (queue_.size() >= queue_max && !is_last) {
      return Status::out_of_memory("Too many commands wait for the model; try again later.");
    }
    finishing_ = is_last;
    queue_.push_back({++last_number_, std::move(command)});
  }
  wake_.notify_one();
  return {};
}

void Worker::interrupt() {
  const std::lock_guard lock(mutex_);
  const uint64_t number = running_ != 0 ? running_ : queue_.empty() ? 0 : queue_.front().number;
  if (number > stopped_up_to_.load(std::memory_order_relaxed)) {
    stopped_up_to_.store(number, std::memory_order_relaxed);
  }
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::abandon() {
  std::deque<Queued> dropped;
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
    dropped.swap(queue_);
    stopped_up_to_.store(std::numeric_limits<uint64_t>::max(), std::memory_order_relaxed);
  }
  wake_.notify_one();
  join();
}

void Worker::run() {
  while (true) {
    Queued next;
    {
      std::unique_lock lock(mutex_);
      running_ = 0;
      wake_.wait(lock, [this] { return finishing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      next = std::move(queue_.front());
      queue_.pop_front();
      running_ = next.number;
    }
    next.command->run(StopFlag(stopped_up_to_, next.number));
  }
}

}  // namespace nosa
