#pragma once

#include <algorithm>
#include <cstdint>

#include "model/block_selector.h"

namespace nosa {

class DeviceNetwork;

/// A sequence's copy on the GPU, which is there or not, whole or in part: the sequence itself is what host memory holds.
/// The network fills it and takes it away as it computes and needs room.
///
/// Not thread-safe: used by the native worker thread only.
class DeviceKv {
 public:
  /// `network`, or null where there is no GPU, must outlive it.
  DeviceKv(DeviceNetwork* network, int base_position) : network_(network), base_position_(base_position) {}
  ~DeviceKv();
  DeviceKv(const DeviceKv&) = delete;
  DeviceKv& operator=(const DeviceKv&) = delete;

  /// The sequence's tokens from `n_tokens` on are not what they were.
  void truncate(int n_tokens) {
    n_valid_ = std::min(n_valid_, n_tokens);
    n_otherwise_ = std::min(n_otherwise_, n_tokens);
  }

  /// The sequence's `n_tokens` tokens were computed with another selection than what follows.
  void selection_changed(int n_tokens) { n_otherwise_ = n_tokens; }

  /// Makes this empty one a copy of `other`, sharing what is on the device. Nothing happens when that fails.
  void fork_from(const DeviceKv& other);

 private:
  friend class DeviceNetwork;

  DeviceNetwork* network_;
  int base_position_;
  uint64_t key_ = 0;      // The runner's, or 0 when nothing is there.
  int n_there_ = 0;       // Tokens that the runner has,
  int n_valid_ = 0;       // and those of them that are still right.
  int n_otherwise_ = 0;   // Tokens that would have other keys and values if they were computed anew.
  bool attends_ = false;  // Whether the runner knows what it attends.
  uint64_t last_use_ = 0;
  bool selects_ = false;  // Whether the runner was told how it selects,
  bool refused_ = false;  // and would not.
  SelectionOptions selection_;
};

}  // namespace nosa
