// Two launches: one warp for each token and KV head stores and scores it; then one warp for each finished window and
// KV head takes its means, for a window may begin in tokens that another thread block stored.
#include "append_chunk.h"

#include "common/launch.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr float kHalfMax = 65504.0f;

__device__ __half to_half(float x) { return __float2half_rn(fminf(fmaxf(x, -kHalfMax), kHalfMax)); }

__device__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

__device__ float score_part(const AppendChunkParams& p, const float* key, const float* v_row, int head, int lane) {
  float part = 0.0f;
  if (p.delta == nullptr) {
    for (int d = lane; d < p.head_dim; d += kWarp) part += key[d] * key[d];
    return part;
  }
  const int width = p.n_kv_heads * p.head_dim;
  for (int c = lane; c < width; c += kWarp) part += p.delta[size_t(head) * width + c] * v_row[c];
  return part;
}

__global__ void __launch_bounds__(kThreads) store_tokens_kernel(AppendChunkParams p) {
  begin_kernel();
  const int t = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (t >= p.n_tokens) return;
  const int head = blockIdx.y;
  const int lane = threadIdx.x % kWarp;
  const int own = p.own_start + t;
  const int token = own % kBlockTokens;
  const size_t row = size_t(t) * p.n_kv_heads * p.head_dim;
  const float* key = p.k + row + size_t(head) * p.head_dim;
  const float* v_row = p.v + row;

  auto* extent = reinterpret_cast<__half*>(extent_at(p.pool, 0, head, p.indices[own / kBlockTokens]));
  for (int d = lane; d < p.head_dim; d += kWarp) {
    extent[token * p.head_dim + d] = to_half(key[d]);
    extent[(kBlockTokens + token) * p.head_dim + d] = to_half(v_row[size_t(head) * p.head_dim + d]);
  }
  const float sum = warp_sum(score_part(p, key, v_row, head, lane));
  if (lane != 0) return;
  float score = -sqrtf(sum);
  if (p.delta != nullptr) score = p.a[head] * softplus(sum + (p.delta_bias != nullptr ? p.delta_bias[head] : 0.0f));
  const size_t page = size_t(head) * p.side_car.n_pages + p.pages[own / kBlockTokens];
  p.side_car.token_scores[page * kBlockTokens + token] = score;
}

__global__ void __launch_bounds__(kThreads) compress_windows_kernel(AppendChunkParams p, int first_window, int n_windows) {
  begin_kernel();
  const int i = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (i >= n_windows) return;
  const int head = blockIdx.y;
  const int lane = threadIdx.x % kWarp;
  const int window = first_window + i;
  const int first_token = window * kWindowStride;
  const size_t head_pages = size_t(head) * p.side_car.n_pages;
  const size_t place = (head_pages + p.pages[window / kBlockWindows]) * kBlockWindows + window % kBlockWindows;

  for (int d = lane; d < p.head_dim; d += kWarp) {
    float sum = 0.0f;
    for (int half = 0; half < 2; ++half) {  // A half of a window never straddles two blocks.
      const int token = first_token + half * kWindowStride;
      const auto* keys =
          reinterpret_cast<const __half*>(extent_at(p.pool, 0, head, p.indices[token / kBlockTokens]));
#pragma unroll
      for (int k = 0; k < kWindowStride; ++k) sum += __half2float(keys[(token % kBlockTokens + k) * p.head_dim + d]);
    }
    p.side_car.compressed[place * p.head_dim + d] = __float2half_rn(sum / kWindowTokens);
  }
  const int token = first_token + lane;
  const size_t page = head_pages + p.pages[token / kBlockTokens];
  const float sum = warp_sum(p.side_car.token_scores[page * kBlockTokens + token % kBlockTokens]);
  if (lane == 0) p.side_car.window_scores[place] = sum / kWindowTokens;
}

bool valid(const AppendChunkParams& p) {
  return p.n_tokens >= 0 && p.own_start >= 0 && p.n_kv_heads >= 1 && p.n_kv_heads <= 65535 && p.head_dim >= 8 &&
         p.head_dim % 8 == 0 && (p.delta == nullptr || p.a != nullptr);
}

}  // namespace

cudaError_t append_chunk(const AppendChunkParams& p, cudaStream_t stream) {
  if (!valid(p)) return cudaErrorInvalidValue;
  if (p.n_tokens == 0) return cudaSuccess;
  const auto grid = [&](int n) { return dim3(unsigned((n + kWarps - 1) / kWarps), unsigned(p.n_kv_heads)); };
  if (const cudaError_t error = launch(store_tokens_kernel, grid(p.n_tokens), dim3(kThreads), 0, stream, p);
      error != cudaSuccess) {
    return error;
  }
  const int first_window = windows_in(p.own_start);
  const int n_windows = windows_in(p.own_start + p.n_tokens) - first_window;
  if (n_windows == 0) return cudaSuccess;
  return launch(compress_windows_kernel, grid(n_windows), dim3(kThreads), 0, stream, p, first_window, n_windows);
}

}  // namespace nosa::cuda
