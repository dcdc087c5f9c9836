// Copies from global to shared memory that go on while the block computes.
#pragma once

#include <cstddef>

namespace nosa::cuda {

inline constexpr int kCopyBytes = 16;

/// 16 bytes, or zeros when not `valid`; `global` is a valid address all the same.
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
  const unsigned at = unsigned(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(valid ? kCopyBytes : 0)
               : "memory");
}

/// Ends a group of copies, which may be empty.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until all but the kLater newest groups of this thread are there.
template <int kLater>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLater) : "memory");
}

}  // namespace nosa::cuda
