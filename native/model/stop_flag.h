#pragma once

#include <atomic>
#include <cstdint>

namespace nosa {

/// Tells a running command that somebody asked it to park. Looked at between steps of work.
class StopFlag {
 public:
  /// Never raised.
  StopFlag() = default;

  /// Raised once `stopped_up_to` reaches `command`. `stopped_up_to` outlives the flag.
  StopFlag(const std::atomic<uint64_t>& stopped_up_to, uint64_t command)
      : stopped_up_to_(&stopped_up_to), command_(command) {}

  bool raised() const {
    return stopped_up_to_ != nullptr &&
           stopped_up_to_->load(std::memory_order_relaxed) >= command_;
  }

 private:
  const std::atomic<uint64_t>* stopped_up_to_ = nullptr;
  uint64_t command_ = 0;
};

}  // namespace nosa
