// One thread block a row, one thread a pair. The angle is formed and reduced in double precision:
// at position 100,000 a float would be off by hundredths of a radian.
#include "common/launch.cuh"
#include "rope_angles.h"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 64;

__global__ void rope_angles_kernel(RopeAnglesParams p) {
  begin_kernel();
  const int row = blockIdx.x;
  const int seq = row / p.rows.n_queries;
  const int t = row % p.rows.n_queries;
  const int lane = p.rows.lanes[seq];
  const int n_new = p.rows.n_new != nullptr ? p.rows.n_new[seq] : p.rows.n_queries;
  if (lane < 0 || t >= n_new) {
    if (threadIdx.x == 0) p.rows.places[row] = {-1, 0, 0, 0};
    return;
  }
  const int own = p.rows.n_tokens[lane] - n_new + t;
  if (threadIdx.x == 0) {
    const int n_attended = p.n_attended[lane];
    p.rows.places[row] = {lane, own, n_attended, n_attended + own / kBlockTokens + 1};
  }
  const double position = p.base_position[lane] + own;
  const int n_pairs = p.n_rotated / 2;
  for (int pair = threadIdx.x; pair < n_pairs; pair += kThreads) {
    constexpr double kTurn = 6.283185307179586476925;
    const double angle = position * double(p.inv_freq[pair]);
    const float reduced = float(angle - kTurn * rint(angle / kTurn));
    float sine, cosine;
    sincosf(reduced, &sine, &cosine);
    p.rotation[size_t(row) * n_pairs + pair] = {p.magnitude * cosine, p.magnitude * sine};
  }
}

}  // namespace

cudaError_t rope_angles(const RopeAnglesParams& p, cudaStream_t stream) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax)
    return cudaErrorInvalidValue;
  if (p.n_rotated < 2 || p.n_rotated % 2 != 0) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  return launch(rope_angles_kernel, p.rows.n_seqs * p.rows.n_queries, kThreads, 0, stream, p);
}

}  // namespace nosa::cuda
