// Reading layout.h on the device.
#pragma once

#include "layout.h"

namespace nosa::cuda {

/// Past the first-level cache, which may hold the place of a step before.
__device__ inline RowPlace read_place(const StepRows& rows, int row) {
  const int4 place = __ldcg(reinterpret_cast<const int4*>(rows.places + row));
  return {place.x, place.y, place.z, place.w};
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
