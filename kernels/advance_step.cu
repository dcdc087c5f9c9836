// One thread a sequence, in one thread block.
#include "advance_step.h"

#include "common/launch.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 64;

__global__ void __launch_bounds__(kThreads) advance_step_kernel(AdvanceStepParams p) {
  begin_kernel();
  const int at = p.ids != nullptr ? *p.cursor : 0;
  __syncthreads();  // Everyone has read the cursor before it moves.
  for (int s = threadIdx.x; p.ids != nullptr && s < p.n_seqs; s += kThreads) {
    const int lane = p.lanes[s];
    if (lane < 0 || at >= p.n_steps_max) continue;
    const size_t place = size_t(at) * p.n_seqs_max + s;
    const int32_t given = p.teacher[place];
    const int32_t token = given >= 0 ? given : p.drawn[s];
    p.history[place] = token;
    p.ids[s] = token;
    p.n_tokens[lane] += 1;
  }
  if (threadIdx.x != 0) return;
  if (p.ids != nullptr) *p.cursor = at + 1;
  *p.step += 1;
}

}  // namespace

cudaError_t advance_step(const AdvanceStepParams& p, cudaStream_t stream) {
  if (p.n_seqs < 0 || p.n_seqs > p.n_seqs_max || p.step == nullptr) return cudaErrorInvalidValue;
  return launch(advance_step_kernel, dim3(1), dim3(kThreads), 0, stream, p);
}

}  // namespace nosa::cuda
