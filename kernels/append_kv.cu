// One thread block for each KV head and sequence; it takes its new tokens one after the other,
// because a token may complete a window that begins in an earlier one. The work is small: what
// counts is the number of dependent steps, so the slot is looked up by one warp while the others
// rotate queries.
#include "append_kv.h"
#include "common/launch.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

namespace nosa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeadDimMax = 256;
constexpr float kHalfMax = 65504.0f;

__device__ __half to_half(float x) { return __float2half_rn(fminf(fmaxf(x, -kHalfMax), kHalfMax)); }

/// log(1 + e^x); beyond 20 what it loses is below a float's last bit.
__device__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

struct Stream {
  int lane;
  int head;
  int16_t* slot_of_block;  // [n_blocks_max]
  int32_t* block_of_slot;  // [n_slots]
  uint32_t* last_step;     // [n_slots]
};

__device__ Stream stream_of(const AppendKvParams& p, int lane, int head) {
  const size_t at = size_t(lane) * p.n_kv_heads + head;
  return {lane, head, p.slots.slot_of_block + at * p.blocks.n_blocks_max,
          p.slots.block_of_slot + at * p.slots.n_slots, p.slots.last_step + at * p.slots.n_slots};
}

/// The slot of `block`, by one warp. A block without one takes an empty slot, else the one longest
/// unused.
__device__ int take_slot(const AppendKvParams& p, const Stream& stream, int block) {
  const int known = stream.slot_of_block[block];
  if (known >= 0) return known;
  unsigned long long best = ~0ull;
  for (int slot = threadIdx.x % kWarp; slot < p.slots.n_slots; slot += kWarp) {
    const unsigned long long age =
        stream.block_of_slot[slot] < 0 ? 0ull : 1ull + stream.last_step[slot];
    best = min(best, (age << 32) | unsigned(slot));
  }
  for (int step = kWarp / 2; step > 0; step /= 2)
    best = min(best, __shfl_xor_sync(kAllLanes, best, step));
  const int slot = int(best & 0xffffffffu);
  if (threadIdx.x % kWarp == 0) {
    const int previous = stream.block_of_slot[slot];
    if (previous >= 0) stream.slot_of_block[previous] = -1;
    stream.slot_of_block[block] = int16_t(slot);
    stream.block_of_slot[slot] = block;
    stream.last_step[slot] = *p.step;
  }
  return slot;
}

__device__ int index_of(const AppendKvParams& p, const Stream& stream, int block) {
  if (p.slots.n_slots > 0) return stream.slot_of_block[block];
  return p.blocks.pages[size_t(stream.lane) * p.blocks.n_blocks_max + block];
}

/// Rotates pair `pair` of the head at `x`.
__device__ float2 rotated(const AppendKvParams& p, const float* x, int pair, float2 turn,
                          int& first, int& second) {
  const bool adjacent = p.pairing == RopePairing::kAdjacent;
  first = adjacent ? 2 * pair : pair;
  second = adjacent ? first + 1 : first + p.n_rotated / 2;
  const float a = x[first];
  const float b = x[second];
  return {a * turn.x - b * turn.y, b * turn.x + a * turn.y};
}

/// Writes nothing unless it `counts`.
__device__ void rotate_queries(const AppendKvParams& p, int row, int head, bool counts) {
  const int n_group = p.n_heads / p.n_kv_heads;
  const int n_pairs = p.n_rotated / 2;
  float* q = p.q + row * p.q_stride + size_t(head) * n_group * p.head_dim;
  for (int i = threadIdx.x; i < n_group * n_pairs; i += kThreads) {
    const int pair = i % n_pairs;
    float* x = q + i / n_pairs * p.head_dim;
    int first, second;
    const float2 turned =
        rotated(p, x, pair, p.rotation[size_t(row) * n_pairs + pair], first, second);
    if (!counts) continue;
    x[first] = turned.x;
    x[second] = turned.y;
  }
}

/// This thread's part of the sum that the eviction score is a function of.
__device__ float score_part(const AppendKvParams& p, const float* v_row, const float* key,
                            int head) {
  float part = 0.0f;
  if (p.delta == nullptr) {
    for (int d = threadIdx.x; d < p.head_dim; d += kThreads) part += key[d] * key[d];
    return part;
  }
  const int width = p.n_kv_heads * p.head_dim;
  for (int c = threadIdx.x; c < width; c += kThreads)
    part += p.delta[size_t(head) * width + c] * v_row[c];
  return part;
}

__device__ float score_of(const AppendKvParams& p, float sum, int head) {
  if (p.delta == nullptr) return -sqrtf(sum);
  return p.a[head] * softplus(sum + (p.delta_bias != nullptr ? p.delta_bias[head] : 0.0f));
}

/// Window `window` of the sequence's own tokens, complete now.
__device__ void compress_window(const AppendKvParams& p, const Stream& stream, int window,
                                int n_attended) {
  const int32_t* pages = p.blocks.pages + size_t(stream.lane) * p.blocks.n_blocks_max + n_attended;
  const size_t head_pages = size_t(stream.head) * p.side_car.n_pages;
  const int first_token = window * kWindowStride;
  const int block = window / kBlockWindows;
  const size_t place = (head_pages + pages[block]) * kBlockWindows + window % kBlockWindows;

  for (int d = threadIdx.x; d < p.head_dim; d += kThreads) {
    float sum = 0.0f;
    for (int half = 0; half < 2; ++half) {  // A half of a window never straddles two blocks.
      const int token = first_token + half * kWindowStride;
      const auto* keys = reinterpret_cast<const __half*>(
          extent_at(p.pool, stream.lane, stream.head,
                    index_of(p, stream, n_attended + token / kBlockTokens)));
#pragma unroll
      for (int i = 0; i < kWindowStride; ++i) {
        sum += __half2float(keys[(token % kBlockTokens + i) * p.head_dim + d]);
      }
    }
    p.side_car.compressed[place * p.head_dim + d] = __float2half_rn(sum / kWindowTokens);
  }
  if (threadIdx.x < kWindowTokens) {
    const int token = first_token + threadIdx.x;
    const size_t page = head_pages + pages[token / kBlockTokens];
    const float sum = warp_sum(p.side_car.token_scores[page * kBlockTokens + token % kBlockTokens]);
    if (threadIdx.x == 0) p.side_car.window_scores[place] = sum / kWindowTokens;
  }
}

__global__ void __launch_bounds__(kThreads) append_kv_kernel(AppendKvParams p) {
  __shared__ float key[kHeadDimMax];
  __shared__ float scratch[kThreads / kWarp];
  __shared__ int tail_index;
  const int head = blockIdx.x;
  const int n_pairs = p.n_rotated / 2;
  const RowPlace first = read_place(p.rows, blockIdx.y * p.rows.n_queries);
  // The first round is a rehearsal over what the layer before left, and writes nothing: it runs while the kernel before
  // still does, and the instructions are at hand when it counts.
#pragma unroll 1
  for (int t = first.lane >= 0 ? -1 : 0; t < p.rows.n_queries; ++t) {
    const bool counts = t >= 0;
    if (t == 0) begin_kernel();
    const int row = blockIdx.y * p.rows.n_queries + max(t, 0);
    const RowPlace place = t > 0 ? read_place(p.rows, row) : first;
    if (place.lane < 0) return;
    const Stream stream = stream_of(p, place.lane, head);
    const int own = place.own;
    const int block = place.n_attended + own / kBlockTokens;
    const float* k = p.k + row * p.k_stride + size_t(head) * p.head_dim;
    const float* v_row = p.v + row * p.v_stride;

    if (p.slots.n_slots > 0 && threadIdx.x >= kThreads - kWarp) {
      const int slot = counts ? take_slot(p, stream, block) : 0;
      if (threadIdx.x == kThreads - 1) tail_index = slot;
    } else if (p.slots.n_slots == 0 && threadIdx.x == kThreads - 1) {
      tail_index = index_of(p, stream, block);
    }
    for (int pair = threadIdx.x; pair < p.head_dim - n_pairs; pair += kThreads) {
      if (pair >= n_pairs) {  // Beyond the pairs: the dimensions that stay as they are.
        key[pair + n_pairs] = k[pair + n_pairs];
        continue;
      }
      int one, other;
      const float2 turned = rotated(p, k, pair, p.rotation[size_t(row) * n_pairs + pair], one, other);
      key[one] = turned.x;
      key[other] = turned.y;
    }
    __syncthreads();  // The key and its place are known.

    auto* extent = reinterpret_cast<__half*>(extent_at(p.pool, place.lane, head, tail_index));
    const int token = own % kBlockTokens;
    for (int d = threadIdx.x; d < p.head_dim; d += kThreads) {
      const __half k_value = to_half(key[d]);
      const __half v_value = to_half(v_row[size_t(head) * p.head_dim + d]);
      if (!counts) continue;
      extent[token * p.head_dim + d] = k_value;
      extent[(kBlockTokens + token) * p.head_dim + d] = v_value;
    }
    rotate_queries(p, row, head, counts);
    const float sum = block_sum<kThreads>(score_part(p, v_row, key, head), scratch);
    if (threadIdx.x == 0) {
      const int page = p.blocks.pages[size_t(place.lane) * p.blocks.n_blocks_max + block];
      const size_t at = (size_t(head) * p.side_car.n_pages + page) * kBlockTokens + token;
      const float score = score_of(p, sum, head);
      if (counts) p.side_car.token_scores[at] = score;
    }
    __syncthreads();  // Key and score are stored before a window reads them, and `key` is free
                      // again.
    if (counts && own + 1 >= kWindowTokens && (own + 1) % kWindowStride == 0) {
      compress_window(p, stream, windows_in(own + 1) - 1, place.n_attended);
    }
  }
}

bool valid(const AppendKvParams& p) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax) return false;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0) return false;
  if (p.head_dim < 8 || p.head_dim > kHeadDimMax || p.head_dim % 8 != 0) return false;
  if (p.n_rotated < 2 || p.n_rotated % 2 != 0 || p.n_rotated > p.head_dim) return false;
  return p.delta == nullptr || p.a != nullptr;
}

}  // namespace

cudaError_t append_kv(const AppendKvParams& p, cudaStream_t stream) {
  if (!valid(p)) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  return launch(append_kv_kernel, dim3(p.n_kv_heads, p.rows.n_seqs), kThreads, 0, stream, p);
}

}  // namespace nosa::cuda
