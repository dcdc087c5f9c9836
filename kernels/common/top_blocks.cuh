// The best of up to 16384 scored blocks, by one thread block: higher score first, then higher block
// index. Device code only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/reduce.cuh"

namespace nosa::cuda {

inline constexpr int kBlocksMax = 16384;  // of a lane: a million tokens
inline constexpr int kSelectThreads = 512;

/// Shared memory of border_key().
struct TopScratch {
  static constexpr int kDigitBits = 12;
  static constexpr int kDigits = 1 << kDigitBits;
  static constexpr int kFew = 64;  // candidates that are ranked by comparing each with each
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

/// Finds the digit where the border of the n_best highest lies, of keys that are counted in
/// s.histogram: into s.digit, with the number of keys in higher digits and in it.
__device__ inline void find_digit(int n_best, TopScratch& s) {
  constexpr int kPerThread = TopScratch::kDigits / kSelectThreads;
  // Thread i has the i-th highest run of digits.
  const int top = TopScratch::kDigits - 1 - int(threadIdx.x) * kPerThread;
  int counts[kPerThread];
  int mine = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) mine += counts[i] = s.histogram[top - i];
  int total;
  int above = exclusive_scan<kSelectThreads>(mine, s.scan, total);
  if (above < n_best && n_best <= above + mine) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (above < n_best && n_best <= above + counts[i]) {
        s.digit = top - i;
        s.above = above;
        s.in_digit = counts[i];
      }
      above += counts[i];
    }
  }
  __syncthreads();  // The digit of the border is known.
}

/// The n_best-th highest of the candidates for which `chosen` holds, no more than kFew.
template <typename Chosen>
__device__ uint64_t border_of_few(const uint32_t* keys, int n_blocks, int n_best, TopScratch& s,
                                  const Chosen& chosen) {
  for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
    const uint32_t key = keys[b];
    if (key != 0 && chosen(key, b)) s.few[atomicAdd(&s.n_few, 1)] = ranked_key(key, b);
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

/// The digit of a softmax's score: 128 an octave over the 32 octaves from 2^-25 on, smaller ones in
/// digit 0, larger ones in the last. Orders like the score.
__device__ inline int score_digit(uint32_t key) {
  constexpr int kShift = 16;  // leaves 7 bits of the mantissa
  constexpr int kLowest = int((0x80000000u | (127u - 25u) << 23) >> kShift);
  return min(max(int(key >> kShift) - kLowest, 0), TopScratch::kDigits - 1);
}

/// As border_key(), for keys that no one digit tells apart: digit after digit from the top.
__device__ inline uint64_t border_by_digits(const uint32_t* keys, int n_blocks, int n_best,
                                            TopScratch& s) {
  uint64_t prefix = 0;
  for (int shift = 48 - TopScratch::kDigitBits;; shift -= TopScratch::kDigitBits) {
    __syncthreads();  // The round before is over.
    for (int i = threadIdx.x; i < TopScratch::kDigits; i += kSelectThreads) s.histogram[i] = 0;
    if (threadIdx.x == 0) s.n_few = 0;
    __syncthreads();  // The histogram is empty.
    for (int b = threadIdx.x; b < n_blocks; b += kSelectThreads) {
      const uint64_t key = ranked_key(keys[b], b);
      if (keys[b] == 0 || key >> shift >> TopScratch::kDigitBits != prefix) continue;
      atomicAdd(&s.histogram[int(key >> shift) & (TopScratch::kDigits - 1)], 1);
    }
    __syncthreads();  // All are counted.
    find_digit(n_best, s);
    prefix = prefix << TopScratch::kDigitBits | uint64_t(s.digit);
    n_best -= s.above;
    if (s.in_digit == n_best) return prefix << shift;
    if (s.in_digit > TopScratch::kFew) continue;
    return border_of_few(keys, n_blocks, n_best, s, [&](uint32_t key, int b) {
      return ranked_key(key, b) >> shift == prefix;
    });
  }
}

/// Empties what count_key() counts in. To be synchronised before that.
__device__ inline void clear_counts(TopScratch& s) {
  for (int i = threadIdx.x; i < TopScratch::kDigits; i += kSelectThreads) s.histogram[i] = 0;
  if (threadIdx.x == 0) s.n_few = 0;
}

/// To be called once for every candidate's key that is not 0.
__device__ inline void count_key(uint32_t key, TopScratch& s) {
  atomicAdd(&s.histogram[score_digit(key)], 1);
}

/// The key that exactly `n_best` candidates reach: ranked_key(keys[b], b) >= it. By all threads.
/// REQUIRES: 0 < n_best < number of candidates; all were counted, and synchronised since.
__device__ inline uint64_t border_key(const uint32_t* keys, int n_blocks, int n_best,
                                      TopScratch& s) {
  find_digit(n_best, s);
  if (s.in_digit > TopScratch::kFew) return border_by_digits(keys, n_blocks, n_best, s);
  const int digit = s.digit;
  return border_of_few(keys, n_blocks, n_best - s.above, s,
                       [&](uint32_t key, int) { return score_digit(key) == digit; });
}

}  // namespace nosa::cuda
