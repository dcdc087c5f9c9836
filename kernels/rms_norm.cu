// One block per row; each thread keeps its quads of the row in registers between the sum and the scaling, so the row
// is read once. For one row only latency matters: as many threads as quads, and one barrier.
#include "rms_norm.h"

#include "common/launch.cuh"
#include "common/normed_row.cuh"
#include "common/operand.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreadsMax = 1024;

/// Sum over the block, the same in every thread; in a fixed order.
__device__ float block_sum(float value) {
  __shared__ float sums[kThreadsMax / 32];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();  // Every warp's sum is there.
  const int n_warps = blockDim.x / 32;
  float total = int(threadIdx.x % 32) < n_warps ? sums[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
  return total;
}

template <int kQuads>  // of a thread
__global__ void rms_norm_kernel(RmsNormParams p) {
  const int n_quads = p.out.cols / 4;
  const int row = blockIdx.x;
  // The weights are nobody's output, so they may come before the wait.
  float4 weight[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = i * blockDim.x + threadIdx.x;
    if (quad < n_quads) weight[i] = reinterpret_cast<const float4*>(p.weight)[quad];
  }
  begin_kernel();
  const float4* x = reinterpret_cast<const float4*>(p.x) + size_t(row) * n_quads;
  float4 v[kQuads];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = i * blockDim.x + threadIdx.x;
    v[i] = quad < n_quads ? x[quad] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    squares += square_sum(v[i]);
  }
  const float factor = norm_factor(block_sum(squares), p.out.cols, p.eps);
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = i * blockDim.x + threadIdx.x;
    const bool valid = quad < n_quads;
    const float4 w = valid ? weight[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float4 y = scaled(v[i], factor, w);
    if (p.out.data != nullptr) store_quad(p.out, row, quad, y, valid);
    if (p.plain != nullptr && valid) reinterpret_cast<float4*>(p.plain)[size_t(row) * n_quads + quad] = y;
  }
}

}  // namespace

cudaError_t rms_norm(const RmsNormParams& p, cudaStream_t stream) {
  const bool no_operand = p.out.data == nullptr && p.plain != nullptr && p.out.cols > 0 && p.out.cols % 32 == 0;
  if (p.out.n_rows < 0 || p.out.cols > kRmsNormColsMax || !(no_operand || operand_valid(p.out))) {
    return cudaErrorInvalidValue;
  }
  if (p.out.n_rows == 0) return cudaSuccess;
  const int n_quads = p.out.cols / 4;
  const int threads = n_quads < kThreadsMax ? (n_quads + 31) / 32 * 32 : kThreadsMax;
  const int quads = (n_quads + threads - 1) / threads;
  const auto kernel = quads == 1 ? rms_norm_kernel<1> : quads == 2 ? rms_norm_kernel<2> : rms_norm_kernel<4>;
  return launch(kernel, p.out.n_rows, threads, 0, stream, p);
}

}  // namespace nosa::cuda
