// A block's eviction score out of those of its windows. Device code only.
#pragma once

#include "common/rows.cuh"

namespace nosa::cuda {

/// Complete windows that start in `block`, when `n_own_tokens` own tokens are there.
__device__ inline int windows_of_block(const LaneBlocks& blocks, int lane, int n_attended,
                                       int n_own_tokens, int block) {
  if (block < n_attended) return blocks.info[size_t(lane) * blocks.n_blocks_max + block].n_windows;
  return min(max(windows_in(n_own_tokens) - kBlockWindows * (block - n_attended), 0),
             kBlockWindows);
}

/// The highest of windows 4b - 1 .. 4b + 3. The last block of a sequence never has a window 3, so
/// the one before `block` is of the same sequence.
__device__ inline float pooled_score(const LaneBlocks& blocks, const SideCarView& side_car,
                                     int lane, int head, int n_attended, int n_own_tokens,
                                     int block) {
  const int32_t* pages = blocks.pages + size_t(lane) * blocks.n_blocks_max;
  const float* windows = side_car.window_scores + size_t(head) * side_car.n_pages * kBlockWindows;
  float best = -INFINITY;
  const int n = windows_of_block(blocks, lane, n_attended, n_own_tokens, block);
  for (int i = 0; i < n; ++i) best = fmaxf(best, windows[size_t(pages[block]) * kBlockWindows + i]);
  if (block > 0 &&
      windows_of_block(blocks, lane, n_attended, n_own_tokens, block - 1) == kBlockWindows) {
    best = fmaxf(best, windows[size_t(pages[block - 1]) * kBlockWindows + kBlockWindows - 1]);
  }
  return best;
}

}  // namespace nosa::cuda
