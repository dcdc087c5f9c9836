// One thread per 4 values. Bound by reading both inputs once.
#include "silu_mul.h"

#include "common/launch.cuh"
#include "common/operand.cuh"
#include "common/silu.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void silu_mul_kernel(SiluMulParams p) {
  begin_kernel();
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int n_quads = p.out.cols / 4;
  const int row = int(at / n_quads);
  const bool valid = row < p.out.n_rows;
  const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const float4 g = valid ? reinterpret_cast<const float4*>(p.gate)[at] : zero;
  const float4 u = valid ? reinterpret_cast<const float4*>(p.up)[at] : zero;
  const float4 y = make_float4(gated(g.x, u.x), gated(g.y, u.y), gated(g.z, u.z), gated(g.w, u.w));
  store_quad(p.out, row, int(at % n_quads), y, valid);
}

}  // namespace

cudaError_t silu_mul(const SiluMulParams& p, cudaStream_t stream) {
  if (!operand_valid(p.out)) return cudaErrorInvalidValue;
  if (p.out.n_rows == 0) return cudaSuccess;
  const int64_t n_quads = int64_t(p.out.n_rows) * (p.out.cols / 4);
  return launch(silu_mul_kernel, unsigned((n_quads + kThreads - 1) / kThreads), kThreads, 0, stream, p);
}

}  // namespace nosa::cuda
