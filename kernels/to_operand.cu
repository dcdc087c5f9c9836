// One thread per 4 values.
#include "to_operand.h"

#include "common/launch.cuh"
#include "common/operand.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void to_operand_kernel(ToOperandParams p) {
  begin_kernel();
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int n_quads = p.out.cols / 4;
  const int row = int(at / n_quads);
  const bool valid = row < p.out.n_rows;
  const float4 v = valid ? reinterpret_cast<const float4*>(p.x)[at] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  store_quad(p.out, row, int(at % n_quads), v, valid);
}

}  // namespace

cudaError_t to_operand(const ToOperandParams& p, cudaStream_t stream) {
  if (!operand_valid(p.out)) return cudaErrorInvalidValue;
  if (p.out.n_rows == 0) return cudaSuccess;
  const int64_t n_quads = int64_t(p.out.n_rows) * (p.out.cols / 4);
  return launch(to_operand_kernel, unsigned((n_quads + kThreads - 1) / kThreads), kThreads, 0, stream, p);
}

}  // namespace nosa::cuda
