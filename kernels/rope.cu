// One thread per pair. The angle of a far position needs more than float's 24 bits after reduction, so the position
// times the frequency is reduced to one turn in double before the sine.
#include "rope.h"

#include "common/launch.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void rope_kernel(RopeParams p) {
  begin_kernel();
  const int n_pairs = p.n_rotated / 2;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int pair = int(at % n_pairs);
  const int64_t head = at / n_pairs;  // of all rows
  if (head >= int64_t(p.n_rows) * p.n_heads) return;
  const int row = int(head / p.n_heads);
  const int position = p.positions != nullptr ? p.positions[row] : *p.first_position + row;

  constexpr double kTurn = 6.283185307179586;
  const double angle = double(position) * double(p.inv_freq[pair]);
  float sine, cosine;
  sincosf(float(angle - kTurn * rint(angle / kTurn)), &sine, &cosine);

  const bool adjacent = p.pairing == RopePairing::kAdjacent;
  float* x = p.x + head * p.head_dim;
  float* a = x + (adjacent ? 2 * pair : pair);
  float* b = adjacent ? a + 1 : a + n_pairs;
  const float first = *a;
  const float second = *b;
  *a = p.magnitude * (first * cosine - second * sine);
  *b = p.magnitude * (second * cosine + first * sine);
}

}  // namespace

cudaError_t rope(const RopeParams& p, cudaStream_t stream) {
  if (p.n_rows < 0 || p.n_heads <= 0 || p.head_dim <= 0 || p.n_rotated < 0 || p.n_rotated > p.head_dim ||
      p.n_rotated % 2 != 0 || (p.positions == nullptr && p.first_position == nullptr)) {
    return cudaErrorInvalidValue;
  }
  const int64_t n_threads = int64_t(p.n_rows) * p.n_heads * (p.n_rotated / 2);
  if (n_threads == 0) return cudaSuccess;
  return launch(rope_kernel, unsigned((n_threads + kThreads - 1) / kThreads), kThreads, 0, stream, p);
}

}  // namespace nosa::cuda
