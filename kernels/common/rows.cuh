// Reading layout.h on the device.
#pragma once

#include "layout.h"

namespace nosa::cuda {

/// The new tokens of one sequence of the step; none when it is idle.
struct SeqStep {
  int lane;
  int n_new;
  int first_own;  // index of the first new token within its sequence
};

__device__ inline SeqStep read_seq(const StepRows& rows, int seq) {
  const int lane = rows.lanes[seq];
  if (lane < 0) return {-1, 0, 0};
  const int n_new = rows.n_new != nullptr ? rows.n_new[seq] : rows.n_queries;
  return {lane, n_new, rows.n_tokens[lane] - n_new};
}

/// Windows of 32 tokens, every 16, that are complete in `n_tokens` tokens.
__host__ __device__ inline int windows_in(int n_tokens) {
  return n_tokens < kWindowTokens ? 0 : (n_tokens - kWindowTokens) / kWindowStride + 1;
}

__device__ inline std::byte* extent_at(const KvPool& pool, int lane, int head, int index) {
  return pool.base + size_t(lane) * pool.lane_stride + size_t(head) * pool.head_stride +
         size_t(index) * pool.index_stride;
}

}  // namespace nosa::cuda
