// The best of up to 16384 scored blocks, by one thread block: higher score first, then higher block index. Device code
// only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/reduce.cuh"

namespace nosa::cuda {

inline constexpr int kBlocksMax = 16384;  // of a lane: a million tokens
inline constexpr int kSelectThreads = 512;

/// Shared memory of take_best().
struct TopScratch {
  static constexpr int kDigitBits = 12;
  static constexpr int kDigits = 1 << kDigitBits;
  static constexpr int kFew = 256;  // candidates that are ranked by comparing each with each
  int histogram[kDigits];
  uint64_t few[kFew];
  uint64_t threshold;
  int n_few;
  int digit;
  int above;
  int in_digit;
  int scan[kSelectThreads / kWarp];
};

/// A number that orders like `score` and is never 0, which stands for no candidate.
__device__ inline uint32_t ordered(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);  // -0 becomes 0, which it equals.
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

__device__ inline float score_of_ordered(uint32_t key) {
  return __uint_as_float(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

/// Score and index in one number, so that no two are equal.
__device__ inline uint64_t ranked_key(uint32_t ordered_score, int block) {
  return uint64_t(ordered_score) << 16 | uint32_t(block);
}

/// The key that exactly `n_best` of `n_candidates` candidates reach: ranked_key(keys[b], b) >= it. By all threads;
/// digit after digit from the top, until few enough are left in the digit where the border lies.
/// REQUIRES: 0 < n_best < n_candidates; synchronised after `keys` were written.
__device__ inline uint64_t border_key(const uint32_t* keys, int n_blocks, int n_best, TopScratch& s) {
  constexpr int kPerThread = TopScratch::kDigits / kSelectThreads;
  uint64_t prefix = 0;
  for (int shift = 48 - TopScratch::kDigitBits;; shift -= TopScratch::kDigitBits) {
    for (int i = threadIdx.x; i < TopScratch::kDigits; i += kSelectThreads) s.histogram[i] = 0;
    if (threadIdx.x == 0) s.n_few = 0;
    __syncthreads();  // The histogram is empty.
    for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
      if (keys[b] == 0) continue;
      const uint64_t key = ranked_key(keys[b], b);
      if (key >> shift >> TopScratch::kDigitBits != prefix) continue;
      atomicAdd(&s.histogram[int(key >> shift) & (TopScratch::kDigits - 1)], 1);
    }
    __syncthreads();  // All are counted.
    // Thread i has the i-th highest run of digits.
    const int top = TopScratch::kDigits - 1 - int(threadIdx.x) * kPerThread;
    int mine = 0;
    for (int i = 0; i < kPerThread; ++i) mine += s.histogram[top - i];
    int total;
    int above = exclusive_scan<kSelectThreads>(mine, s.scan, total);
    if (above < n_best && n_best <= above + mine) {
      int digit = top;
      while (above + s.histogram[digit] < n_best) above += s.histogram[digit--];
      s.digit = digit;
      s.above = above;
      s.in_digit = s.histogram[digit];
    }
    __syncthreads();  // The digit of the border is known.
    prefix = prefix << TopScratch::kDigitBits | uint64_t(s.digit);
    n_best -= s.above;
    if (s.in_digit == n_best) return prefix << shift;
    if (s.in_digit > TopScratch::kFew) continue;

    for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
      if (keys[b] == 0) continue;
      const uint64_t key = ranked_key(keys[b], b);
      if (key >> shift == prefix) s.few[atomicAdd(&s.n_few, 1)] = key;
    }
    __syncthreads();  // The few are together.
    if (int(threadIdx.x) < s.n_few) {
      const uint64_t key = s.few[threadIdx.x];
      int rank = 0;
      for (int i = 0; i < s.n_few; ++i) rank += s.few[i] > key ? 1 : 0;
      if (rank == n_best - 1) s.threshold = key;
    }
    __syncthreads();  // The border is known.
    return s.threshold;
  }
}

}  // namespace nosa::cuda
