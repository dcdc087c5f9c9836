// A CUDA part that computes on the processor's cores: what a session says to a GPU can be tested without one, to the bit.
#pragma once

#include <cstdint>

namespace nosa::test {

struct FakeGpuOptions {
  char model[1024] = {};
  int32_t n_pages = 1 << 16;  ///< Blocks that it holds,
  int32_t n_pages_most = 0;   ///< and that it may grow to.
  int32_t fails_after = -1;   ///< So many calls of advance, and then everything fails; -1 for never.
};

struct FakeGpuCounts {
  int32_t n_advances = 0;
  int32_t n_together = 0;  ///< Steps of several sequences.
  int32_t n_blocks_put = 0;
  int32_t n_sequences = 0;  ///< That there are now.
  int32_t n_grown = 0;
};

/// Exported as "fake_gpu_configure" and "fake_gpu_counts"; options hold for runners opened from then on.
using FakeGpuConfigure = void (*)(const FakeGpuOptions*);
using FakeGpuGetCounts = FakeGpuCounts (*)();

}  // namespace nosa::test
