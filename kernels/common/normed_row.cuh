// A row's normalisation, by rms_norm and by products that do it themselves: the same order of sums. Device code only.
#pragma once

#include "operand.cuh"

namespace nosa::cuda {

__device__ inline float square_sum(float4 v) { return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, v.x * v.x))); }

__device__ inline float lane_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

__device__ inline float norm_factor(float squares, int cols, float eps) { return 1.0f / sqrtf(squares / float(cols) + eps); }

__device__ inline float4 scaled(float4 v, float factor, float4 w) {
  return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z, v.w * factor * w.w);
}

/// A normalised row in shared memory, as the lanes of a product take it; all 8 columns of a matrix instruction are it.
/// kQ8: levels [cols], then (d, d sum) [cols / 32]; else 16-bit values [cols].
template <OperandType kOperand>
struct SharedRow {
  const std::byte* at;
  int cols;
  int t;  // of the lane

  __device__ uint2 levels_of(int, int block) const { return *reinterpret_cast<const uint2*>(at + block * 32 + t * 8); }
  __device__ float4 scales_of(int, int block) const {
    const float2 scale = *reinterpret_cast<const float2*>(at + cols + block * 8);
    return make_float4(scale.x, scale.y, scale.x, scale.y);
  }
  __device__ uint4 values_of(int, int block) const { return *reinterpret_cast<const uint4*>(at + block * 64 + t * 16); }
};

constexpr size_t shared_row_bytes(OperandType type, int cols) {
  return type == OperandType::kQ8 ? size_t(cols) + size_t(cols) / 32 * 8 : size_t(cols) * 2;
}

/// Copies the single row of a kQ8 operand to shared memory at `to`. All threads of the block call it;
/// it ends with a barrier.
template <int kPadded>
__device__ void copy_row(const Operand& x, std::byte* to) {
  const auto* levels = static_cast<const std::byte*>(x.data);
  const std::byte* scales = levels + size_t(x.cols) * kPadded;
  for (int i = threadIdx.x; i < x.cols / 16; i += blockDim.x) {
    reinterpret_cast<uint4*>(to)[i] = *reinterpret_cast<const uint4*>(levels + size_t(i / 2) * (kPadded * 32) + i % 2 * 16);
  }
  for (int block = threadIdx.x; block < x.cols / 32; block += blockDim.x) {
    reinterpret_cast<float2*>(to + x.cols)[block] = *reinterpret_cast<const float2*>(scales + size_t(block) * (kPadded * 8));
  }
  __syncthreads();  // The row is whole.
}

/// Normalises a row into shared memory at `to`. All threads of the block call it; it ends with a barrier.
template <OperandType kOperand>
__device__ void norm_row(const NormedRow& row, int cols, std::byte* to) {
  __shared__ float sums[NormedRow::kColsMax / 128];
  const int lane = threadIdx.x % 32;
  const int n_quads = cols / 4;
  const int n_groups = (n_quads + 31) / 32;
  const auto* x = reinterpret_cast<const float4*>(row.x);
  for (int group = threadIdx.x / 32; group < n_groups; group += blockDim.x / 32) {
    const int quad = group * 32 + lane;
    const float squares = lane_sum(quad < n_quads ? square_sum(x[quad]) : 0.0f);
    if (lane == 0) sums[group] = squares;
  }
  __syncthreads();  // Every group's sum is there.
  const float factor = norm_factor(lane_sum(lane < n_groups ? sums[lane] : 0.0f), cols, row.eps);
  for (int group = threadIdx.x / 32; group < n_groups; group += blockDim.x / 32) {
    const int quad = group * 32 + lane;
    const bool valid = quad < n_quads;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float4 y = valid ? scaled(x[quad], factor, reinterpret_cast<const float4*>(row.weight)[quad]) : zero;
    const int place = quad / kQuadsOfBlock * kQuadsOfBlock + place_of(quad % kQuadsOfBlock);
    if constexpr (kOperand == OperandType::kQ8) {
      float2 scale;
      const uint32_t word = quad_levels(y, scale);
      if (!valid) continue;
      reinterpret_cast<uint32_t*>(to)[place] = word;
      if (quad % kQuadsOfBlock == 0) reinterpret_cast<float2*>(to + cols)[quad / kQuadsOfBlock] = scale;
    } else if (valid) {
      reinterpret_cast<uint2*>(to)[place] = kOperand == OperandType::kF16 ? make_uint2(pack_f16(y.x, y.y), pack_f16(y.z, y.w))
                                                                         : make_uint2(pack_bf16(y.x, y.y), pack_bf16(y.z, y.w));
    }
  }
  __syncthreads();  // The row is whole.
}

}  // namespace nosa::cuda
