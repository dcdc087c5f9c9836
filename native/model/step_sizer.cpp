#include "model/step_sizer.h"

#include <algorithm>

namespace nosa {

int64_t StepSizer::items(double item_flops, int64_t n_left) const {
  constexpr int64_t multiple = 16;
  const double fit = step_ns / std::max(item_flops * ns_per_flop_, 1.0);
  if (fit >= double(n_left)) return n_left;
  const auto most = std::max<int64_t>(int64_t(fit), 1);
  if (most < multiple) return most;
  const int64_t n_steps = (n_left + most - 1) / most;
  const int64_t share = (n_left + n_steps - 1) / n_steps;
  return std::min((share + multiple - 1) / multiple * multiple, n_left);
}

void StepSizer::measured(double flops, std::chrono::nanoseconds elapsed) {
  if (flops <= 0) return;
  // Half old, half new: one slow step (a page fault, a busy core) must not halve the next ones.
  ns_per_flop_ = 0.5 * ns_per_flop_ + 0.5 * std::max(double(elapsed.count()), 1.0) / flops;
}

}  // namespace nosa
