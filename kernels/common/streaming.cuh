// Loads of what a step reads once and that is larger than the second-level cache. Device code only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nosa::cuda {

/// Says that what is loaded with it is the first to leave the second-level cache: keys and values
/// pass through, while tables and activations, which the next kernels read, stay. For plain loads:
/// asynchronous copies of 16-bit weights that carried it ended in an illegal instruction on an H200
/// (driver 580.159, CUDA 13.0).
__device__ inline uint64_t streaming_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline uint4 load_streaming(const uint4* at, uint64_t policy) {
  uint4 value;
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(at), "l"(policy)
               : "memory");
  return value;
}

}  // namespace nosa::cuda
