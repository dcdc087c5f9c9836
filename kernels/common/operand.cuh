// Writing operands (see operand.h) from inside a kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "operand.h"

namespace nosa::cuda {

/// Lanes that hold 32 consecutive values, 4 each.
inline constexpr int kQuadsOfBlock = 8;

/// Where quad `q` of a block lies among its quads.
__device__ inline int place_of(int q) { return 2 * (q % 4) + q / 4; }

__device__ inline int8_t* operand_levels(const Operand& out, int row, int block) {
  return static_cast<int8_t*>(out.data) + (size_t(block) * rows_padded(out.n_rows) + row) * 32;
}

__device__ inline float2* operand_scales(const Operand& out) {
  return reinterpret_cast<float2*>(static_cast<int8_t*>(out.data) + size_t(out.cols) * rows_padded(out.n_rows));
}

__device__ inline uint32_t pack_f16(float a, float b) {
  constexpr float kLargest = 65504.0f;
  const __half2 pair = __floats2half2_rn(fminf(fmaxf(a, -kLargest), kLargest), fminf(fmaxf(b, -kLargest), kLargest));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline uint32_t pack_bf16(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Levels of four values of a block of 32 whose others the 8 lanes of an aligned run hold, and (d, d sum) of the block.
__device__ inline uint32_t quad_levels(float4 v, float2& scale) {
  float peak = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
  for (int step = 1; step < kQuadsOfBlock; step *= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, step));
  const float d = peak / 127.0f;
  const float inverse = peak > 0.0f ? 127.0f / peak : 0.0f;
  const int a = __float2int_rn(v.x * inverse);
  const int b = __float2int_rn(v.y * inverse);
  const int c = __float2int_rn(v.z * inverse);
  const int e = __float2int_rn(v.w * inverse);
  int sum = a + b + c + e;
#pragma unroll
  for (int step = 1; step < kQuadsOfBlock; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  scale = make_float2(d, d * float(sum));
  return uint32_t(a & 0xff) | uint32_t(b & 0xff) << 8 | uint32_t(c & 0xff) << 16 | uint32_t(e) << 24;
}

/// Writes values 4 quad .. 4 quad + 3 of `row`. All lanes of the warp call it together; each aligned run of 8
/// lanes holds 8 consecutive quads that begin at a multiple of 8, or none (`valid` false for all of the run).
__device__ inline void store_quad(const Operand& out, int row, int quad, float4 v, bool valid) {
  if (out.type != OperandType::kQ8) {
    if (!valid) return;
    const size_t at =
        size_t(row) * (out.cols / 4) + quad / kQuadsOfBlock * kQuadsOfBlock + place_of(quad % kQuadsOfBlock);
    const uint2 packed = out.type == OperandType::kF16 ? make_uint2(pack_f16(v.x, v.y), pack_f16(v.z, v.w))
                                                       : make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
    static_cast<uint2*>(out.data)[at] = packed;
    return;
  }
  float2 scale;
  const uint32_t word = quad_levels(v, scale);
  if (!valid) return;
  const int block = quad / kQuadsOfBlock;
  const int q = quad % kQuadsOfBlock;
  reinterpret_cast<uint32_t*>(operand_levels(out, row, block))[place_of(q)] = word;
  if (q == 0) operand_scales(out)[size_t(block) * rows_padded(out.n_rows) + row] = scale;
}

/// Whether a launcher may write `out`: the shape is sound and the memory aligned.
inline bool operand_valid(const Operand& out) {
  return out.n_rows >= 0 && out.cols > 0 && out.cols % 32 == 0 &&
         (out.n_rows == 0 || (out.data != nullptr && reinterpret_cast<uintptr_t>(out.data) % 16 == 0));
}

}  // namespace nosa::cuda
