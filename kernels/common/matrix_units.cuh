// Matrix instructions of sm_80 and later on fragments that a warp holds in registers, as the products with weights
// use them: 8-bit levels, and 16-bit values of either type.
//
// With g = lane / 4 and t = lane % 4, a lane holds
//   A 16-bit [16, 16]: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with its right neighbour
//   A 8-bit  [16, 32]: (g, 4t), (g + 8, 4t), (g, 4t + 16), (g + 8, 4t + 16), each 4 values; [16, 16]: the first two
//   B [k, 8]:          column g, rows as A's columns
//   C, D [16, 8]:      (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// The columns of A may be taken in any order as long as the rows of B are taken in the same.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace nosa::cuda {

/// d = A B + c, c the same everywhere.
__device__ inline void mma_s8_k32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int c) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}

__device__ inline void mma_s8_k16(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b, int c) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(c));
}

/// acc += A B; T is __half or __nv_bfloat16.
template <typename T>
__device__ inline void mma_16bit(float (&acc)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                 uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

/// 1.5 * 2^23 as a float's bits: that plus a small integer is, read as a float, the integer above kIntegerBias.
/// It saves converting every sum, which runs at a quarter of the rate.
inline constexpr int kIntegerBiasBits = 0x4b400000;
inline constexpr float kIntegerBias = 12582912.0f;

__device__ inline float biased_to_float(int bits) { return __int_as_float(bits) - kIntegerBias; }

}  // namespace nosa::cuda
