#pragma once

#include <chrono>
#include <cstdint>

namespace nosa {

/// Chooses how much work one step takes, so that a stop flag is looked at often enough: about
/// 10 ms, from how fast the last step of the same kind was. Only the cut depends on time, never
/// a result: operations treat every token alone.
class StepSizer {
 public:
  static constexpr double step_ns = 10e6;

  /// Items of `item_flops` each for the next step out of `n_left`: all of them when they fit one
  /// step, else an even share in multiples of 16. REQUIRES: `n_left` > 0.
  int64_t items(double item_flops, int64_t n_left) const;

  /// Learns from a step that took `elapsed`.
  void measured(double flops, std::chrono::nanoseconds elapsed);

 private:
  double ns_per_flop_ = 0.05;  // A slow core, until something was measured.
};

}  // namespace nosa
