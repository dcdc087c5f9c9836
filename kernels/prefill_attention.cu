// A block of 4 warps takes 64 rows of one KV head, a row being one query head of one token: the heads of a group lie
// together, so that few tokens are in a block, what is causal ends early and lists of blocks have much in common. A
// warp has 16 rows; their queries, sums and running maxima stay in its registers. The keys and values of one cache
// block at a time come into shared memory, the next one's on their way meanwhile.
//
// A list of blocks per token (`chosen`) becomes the union over the rows, in shared memory; each row then leaves out the
// blocks that its own list, walked along with the union, does not have.
//
// Runs of kSplitBlocks blocks are summed apart, in parallel, and joined in order: where the runs begin depends on the
// blocks alone, so that a token's result has the same bits in any chunk. A block that a row does not see adds exactly
// nothing to it.
#include "prefill_attention.h"

#include <algorithm>

#include "common/async_copy.cuh"
#include "common/launch.cuh"
#include "common/matrix_units.cuh"
#include "common/operand.cuh"
#include "common/reduce.cuh"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpRows = 16;
constexpr int kRows = kWarps * kWarpRows;
constexpr int kSplitBlocks = 128;
constexpr int kStages = 2;
constexpr int kTogether = 4;       // tiles of keys whose products are interleaved
constexpr int kBlocksMax = 65536;  // of the union's bits
constexpr float kLog2e = 1.4426950408889634f;

struct Work {
  PrefillAttentionParams p;
  int first_token;  // of this part of the chunk
  int n_tokens;     // of this part
  int n_blocks;     // that its last token sees
  int n_splits;
  float* sums;     // [n_splits, n_tokens, n_heads, head_dim], or null: one split, straight to the output
  float2* states;  // [n_splits, n_tokens, n_heads] (maximum, total); total 0 where nothing was seen
};

/// Where a key's or value's 16 bytes `chunk` lie: two neighbours' same chunks 64 bytes apart, eight's in all banks.
template <int kHeadDim>
__device__ inline int chunk_place(int token, int chunk) {
  return token * (kHeadDim / 8) + (chunk ^ ((token & 1) << 2 | (token >> 1 & 3)));
}

__device__ inline void load_transposed(uint32_t (&v)[4], const void* shared) {
  const unsigned at = unsigned(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(at)
               : "memory");
}

/// 2^x, to some 2 units in the last place; what would be subnormal is 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Tokens that exist in a block, 0 when it is masked.
__device__ inline int tokens_in(const Work& w, int block) {
  const PrefillAttentionParams& p = w.p;
  if (block < p.n_attended) {
    if (p.info == nullptr) return kBlockTokens;
    const BlockInfo info = p.info[block];
    return info.masked != 0 ? 0 : info.n_tokens;
  }
  const int own_tokens = p.own_start + w.first_token + w.n_tokens;
  return min(kBlockTokens, own_tokens - (block - p.n_attended) * kBlockTokens);
}

/// The blocks that any of the rows' lists has, one bit each, in `bits` [kBlocksMax / 32 at most].
__device__ void collect_union(const Work& w, int kv_head, int first_token, int last_token, uint32_t* bits) {
  const PrefillAttentionParams& p = w.p;
  for (int i = threadIdx.x; i <= (w.n_blocks - 1) / 32; i += kThreads) bits[i] = 0;
  __syncthreads();  // All bits are zero.
  for (int token = first_token + int(threadIdx.x) / 32; token <= last_token; token += kWarps) {
    const size_t list = size_t(token) * p.n_kv_heads + kv_head;
    for (int i = threadIdx.x % 32; i < p.n_chosen[list]; i += 32) {
      const int block = p.chosen[list * p.n_selected_max + i];
      if (block >= 0 && block < w.n_blocks) atomicOr(&bits[block / 32], 1u << block % 32);
    }
  }
  __syncthreads();  // All lists are in.
}

/// The first block from `block` on that has its bit, or `end`.
__device__ int next_of(const uint32_t* bits, int block, int end) {
  while (block < end) {
    const uint32_t rest = bits[block / 32] >> block % 32;
    if (rest != 0) return min(end, block + __ffs(int(rest)) - 1);
    block = (block / 32 + 1) * 32;
  }
  return end;
}

/// One row's list of blocks, walked upwards.
struct ListWalk {
  const int32_t* at = nullptr;
  const int32_t* end = nullptr;

  __device__ bool has(int block) {
    while (at < end && *at < block) ++at;
    return at < end && *at == block;
  }
};

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, kHeadDim == 64 ? 3 : 2)
    prefill_attention_kernel(const __grid_constant__ Work w) {
  begin_kernel();
  constexpr int kRowChunks = kHeadDim / 8;
  constexpr int kTileBytes = kBlockTokens * kHeadDim * 2;  // keys or values of a block
  constexpr int kKeyTiles = kBlockTokens / 8;
  constexpr int kDimTiles = kHeadDim / 8;
  constexpr int kDimBlocks = kHeadDim / 32;
  extern __shared__ __align__(128) std::byte shared[];  // [kStages, keys then values], [kStages, 64] biases, union
  float* biases = reinterpret_cast<float*>(shared + kStages * 2 * kTileBytes);
  uint32_t* bits = reinterpret_cast<uint32_t*>(biases + kStages * kBlockTokens);

  const PrefillAttentionParams& p = w.p;
  const int group = p.n_heads / p.n_kv_heads;
  const int kv_head = blockIdx.y;
  const int split = blockIdx.z;
  // Late tokens see most, so they start first.
  const int first_row = int(gridDim.x - 1 - blockIdx.x) * kRows;
  const int n_rows = w.n_tokens * group;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;

  // Two rows of this lane: their token within the part, clamped for rows behind the last one.
  int row[2], token[2];
  for (int i = 0; i < 2; ++i) {
    row[i] = first_row + int(threadIdx.x) / 32 * kWarpRows + g + 8 * i;
    token[i] = min(row[i], n_rows - 1) / group;
  }
  const int first_token = w.first_token + first_row / group;
  const int last_token = w.first_token + min(first_row + kRows - 1, n_rows - 1) / group;

  // Queries as A fragments, times what makes exp into exp2: block d of 32 dimensions, step s: dimensions
  // 8 t + 4 s + 0 .. 3, the order in which 16 bytes of a key serve two products.
  uint32_t queries[kDimBlocks][2][4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const size_t head =
        size_t(w.first_token + token[i]) * p.n_heads + kv_head * group + min(row[i], n_rows - 1) % group;
    const float4* q = reinterpret_cast<const float4*>(p.q + head * kHeadDim);
    const float factor = p.scale * kLog2e;
#pragma unroll
    for (int d = 0; d < kDimBlocks; ++d) {
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const float4 v = q[d * 8 + 2 * t + s];
        queries[d][s][i] = pack_f16(v.x * factor, v.y * factor);
        queries[d][s][2 + i] = pack_f16(v.z * factor, v.w * factor);
      }
    }
  }

  const bool listed = p.chosen != nullptr;
  ListWalk walks[2];
  if (listed) {
    collect_union(w, kv_head, first_token, last_token, bits);
    for (int i = 0; i < 2; ++i) {
      const size_t list = size_t(w.first_token + token[i]) * p.n_kv_heads + kv_head;
      walks[i].at = p.chosen + list * p.n_selected_max;
      walks[i].end = walks[i].at + p.n_chosen[list];
    }
  }
  const int seen = p.n_attended + (p.own_start + last_token) / kBlockTokens + 1;
  const int from = split * kSplitBlocks;
  const int to = w.n_splits == 1 ? seen : min(from + kSplitBlocks, seen);
  const auto next_block = [&](int block) {
    for (; block < to; ++block) {
      if (listed) block = next_of(bits, block, to);
      if (block < to && tokens_in(w, block) > 0) break;
    }
    return min(block, to);
  };
  const auto fetch = [&](int block, int stage) {
    if (block < to) {
      const std::byte* extent =
          p.pool.base + size_t(kv_head) * p.pool.head_stride + size_t(p.indices[block]) * p.pool.index_stride;
      const int n_valid = tokens_in(w, block);
      std::byte* keys = shared + stage * 2 * kTileBytes;
#pragma unroll
      for (int i = 0; i < 2 * kTileBytes / kCopyBytes / kThreads; ++i) {
        const int at = i * kThreads + threadIdx.x;
        const int key = at / kRowChunks % kBlockTokens;
        const int half = at / kRowChunks / kBlockTokens;  // keys, values
        // What is not there must be zero: its probability is, and zero times whatever lies there might not be.
        copy_async(keys + half * kTileBytes + chunk_place<kHeadDim>(key, at % kRowChunks) * kCopyBytes,
                   extent + size_t(at) * kCopyBytes, key < n_valid);
      }
      if (p.token_bias != nullptr && threadIdx.x < kBlockTokens) {
        const float* bias = p.token_bias + (size_t(kv_head) * p.n_pages + p.pages[block]) * kBlockTokens;
        biases[stage * kBlockTokens + threadIdx.x] = bias[threadIdx.x] * kLog2e;
      }
    }
    commit_copies();
  };

  float sums[kDimTiles][4] = {};
  float peak[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};  // of this lane's keys

  int block = next_block(from);
  fetch(block, 0);
  for (int stage = 0; block < to; stage ^= 1) {
    const int following = next_block(block + 1);
    fetch(following, stage ^ 1);
    wait_copies<1>();
    __syncthreads();  // The block's keys, values and biases are there for all.
    const std::byte* keys = shared + stage * 2 * kTileBytes;

    float logits[kKeyTiles][4] = {};
#pragma unroll
    for (int d = 0; d < kDimBlocks; ++d) {
      // Products of one sum lie some instructions apart, since each waits for the one before.
#pragma unroll
      for (int first = 0; first < kKeyTiles; first += kTogether) {
        uint4 k[kTogether];
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
          const int place = chunk_place<kHeadDim>((first + n) * 8 + g, d * 4 + t);
          k[n] = reinterpret_cast<const uint4*>(keys)[place];
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t(&q)[4] = queries[d][half];
#pragma unroll
          for (int n = 0; n < kTogether; ++n) {
            mma_16bit<__half>(logits[first + n], q[0], q[1], q[2], q[3], half == 0 ? k[n].x : k[n].z,
                              half == 0 ? k[n].y : k[n].w);
          }
        }
      }
    }
    if (p.token_bias != nullptr) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        const float2 bias = reinterpret_cast<const float2*>(biases + stage * kBlockTokens)[n * 4 + t];
        logits[n][0] += bias.x;
        logits[n][1] += bias.y;
        logits[n][2] += bias.x;
        logits[n][3] += bias.y;
      }
    }

    // How many of the block's tokens each row sees.
    int limit[2];
    for (int i = 0; i < 2; ++i) {
      limit[i] = tokens_in(w, block);
      if (block >= p.n_attended) {
        const int own_first = (block - p.n_attended) * kBlockTokens;
        limit[i] = min(limit[i], p.own_start + w.first_token + token[i] + 1 - own_first);
      }
      if (listed && !walks[i].has(block)) limit[i] = 0;
    }
    if (limit[0] < kBlockTokens || limit[1] < kBlockTokens) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (n * 8 + 2 * t + i % 2 >= limit[i / 2]) logits[n][i] = -INFINITY;
        }
      }
    }

    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float highest = peak[i];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) highest = fmaxf(highest, fmaxf(logits[n][2 * i], logits[n][2 * i + 1]));
      // A row's keys are spread over four lanes.
      highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 2));
      // A row that has seen nothing: any finite number will do.
      const float base = highest == -INFINITY ? 0.0f : highest;
      factor[i] = exp2_fast(peak[i] - base);
      peak[i] = highest;
      float added = 0.0f;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        logits[n][2 * i] = exp2_fast(logits[n][2 * i] - base);
        logits[n][2 * i + 1] = exp2_fast(logits[n][2 * i + 1] - base);
        added += logits[n][2 * i] + logits[n][2 * i + 1];
      }
      total[i] = total[i] * factor[i] + added;
    }
    // The maximum seldom moves once some blocks are in.
    if (__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n][i] *= factor[i / 2];
      }
    }

    const std::byte* values = keys + kTileBytes;
#pragma unroll
    for (int k = 0; k < kBlockTokens / 16; ++k) {
      const uint32_t a[4] = {pack_f16(logits[2 * k][0], logits[2 * k][1]), pack_f16(logits[2 * k][2], logits[2 * k][3]),
                             pack_f16(logits[2 * k + 1][0], logits[2 * k + 1][1]),
                             pack_f16(logits[2 * k + 1][2], logits[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < kDimTiles; n += 2) {
        // Four 8 x 8 matrices: tokens 16 k .. + 7 and + 8 .. + 15, of dimensions 8 n .. + 7, then 8 n + 8 .. + 15.
        const int value = k * 16 + lane % 16;
        uint32_t v[4];
        load_transposed(v, values + chunk_place<kHeadDim>(value, n + lane / 16) * kCopyBytes);
        mma_16bit<__half>(sums[n], a[0], a[1], a[2], a[3], v[0], v[1]);
        mma_16bit<__half>(sums[n + 1], a[0], a[1], a[2], a[3], v[2], v[3]);
      }
    }
    __syncthreads();  // Nobody reads this stage any more.
    block = following;
  }
  wait_copies<0>();

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    total[i] += __shfl_xor_sync(kAllLanes, total[i], 1);
    total[i] += __shfl_xor_sync(kAllLanes, total[i], 2);
    if (row[i] >= n_rows) continue;
    const int head = kv_head * group + row[i] % group;
    if (w.sums != nullptr) {
      const size_t at = (size_t(split) * w.n_tokens + token[i]) * p.n_heads + head;
      if (t == 0) w.states[at] = make_float2(peak[i], total[i]);
      if (total[i] == 0.0f) continue;
      float2* out = reinterpret_cast<float2*>(w.sums + at * kHeadDim);
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) out[n * 4 + t] = make_float2(sums[n][2 * i], sums[n][2 * i + 1]);
      continue;
    }
    const float share = total[i] > 0.0f ? 1.0f / total[i] : 0.0f;
    uint32_t* out =
        static_cast<uint32_t*>(p.out.data) + (size_t(w.first_token + token[i]) * p.n_heads + head) * (kHeadDim / 2);
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n) {
      const int quad = n % 4 * 2 + t / 2;  // of the 32 dimensions that dimension 8 n + 2 t belongs to
      const float a = sums[n][2 * i] * share;
      const float b = sums[n][2 * i + 1] * share;
      out[n / 4 * 16 + 2 * place_of(quad) + t % 2] = p.out.type == OperandType::kF16 ? pack_f16(a, b) : pack_bf16(a, b);
    }
  }
}

/// Joins the splits of each (token, head), one thread per 4 dimensions.
__global__ void join_kernel(const __grid_constant__ Work w) {
  begin_kernel();
  const PrefillAttentionParams& p = w.p;
  const int quads = p.head_dim / 4;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t head = at / quads;  // of all tokens
  const int64_t n_heads = int64_t(w.n_tokens) * p.n_heads;
  const bool valid = head < n_heads;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (valid) {
    float peak = -INFINITY;
    for (int split = 0; split < w.n_splits; ++split) peak = fmaxf(peak, w.states[split * n_heads + head].x);
    float total = 0.0f;
    for (int split = 0; split < w.n_splits; ++split) {
      const float2 state = w.states[split * n_heads + head];
      if (state.y == 0.0f) continue;
      const float factor = exp2_fast(state.x - peak);
      const float4 v = reinterpret_cast<const float4*>(w.sums)[(split * n_heads + head) * quads + at % quads];
      total += state.y * factor;
      sum.x += v.x * factor;
      sum.y += v.y * factor;
      sum.z += v.z * factor;
      sum.w += v.w * factor;
    }
    const float share = total > 0.0f ? 1.0f / total : 0.0f;
    sum = make_float4(sum.x * share, sum.y * share, sum.z * share, sum.w * share);
  }
  const int token = int(head / p.n_heads);
  store_quad(p.out, w.first_token + token, int(at - int64_t(token) * p.n_heads * quads), sum, valid);
}

size_t bytes_of_split(int n_tokens, int n_heads, int head_dim) {
  return size_t(n_tokens) * size_t(n_heads) * (size_t(head_dim) * sizeof(float) + sizeof(float2));
}

int splits_of(int n_blocks, bool listed) { return listed ? 1 : (n_blocks + kSplitBlocks - 1) / kSplitBlocks; }

template <int kHeadDim>
cudaError_t start(const Work& w, cudaStream_t stream) {
  constexpr int kTiles = kStages * 2 * kBlockTokens * kHeadDim * 2;
  constexpr int kBiases = kStages * kBlockTokens * int(sizeof(float));
  constexpr int kBytesMax = kTiles + kBiases + kBlocksMax / 8;
  const auto kernel = prefill_attention_kernel<kHeadDim>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, kBytesMax); error != cudaSuccess) return error;
  const int n_rows = w.n_tokens * (w.p.n_heads / w.p.n_kv_heads);
  const size_t union_bytes = w.p.chosen != nullptr ? size_t(w.n_blocks + 31) / 32 * 4 : 0;
  const dim3 grid((n_rows + kRows - 1) / kRows, w.p.n_kv_heads, w.n_splits);
  return launch(kernel, grid, kThreads, kTiles + kBiases + union_bytes, stream, w);
}

}  // namespace

size_t prefill_attention_scratch_bytes(int n_tokens, int n_blocks, int n_heads, int head_dim) {
  constexpr size_t kBytesMax = size_t(128) << 20;
  const int n_splits = splits_of(n_blocks, false);
  if (n_splits <= 1) return 0;
  return std::min(kBytesMax, size_t(n_splits) * bytes_of_split(n_tokens, n_heads, head_dim));
}

cudaError_t prefill_attention(const PrefillAttentionParams& p, cudaStream_t stream) {
  const bool shapes = p.n_tokens >= 0 && p.own_start >= 0 && p.n_attended >= 0 && p.n_kv_heads > 0 &&
                      p.n_heads % p.n_kv_heads == 0 && p.n_heads / p.n_kv_heads <= kGroupMax &&
                      (p.head_dim == 64 || p.head_dim == 128);
  if (!shapes || p.out.n_rows != p.n_tokens || p.out.cols != p.n_heads * p.head_dim || p.out.type == OperandType::kQ8 ||
      !operand_valid(p.out) || (p.token_bias != nullptr && p.pages == nullptr) ||
      (p.chosen != nullptr && p.n_chosen == nullptr)) {
    return cudaErrorInvalidValue;
  }
  // Parts as large as the scratch allows, of tokens that need the same number of splits for all their blocks.
  for (int first = 0; first < p.n_tokens;) {
    Work w = {.p = p, .first_token = first};
    w.n_tokens = p.n_tokens - first;
    const auto blocks = [&](int n) { return p.n_attended + (p.own_start + first + n - 1) / kBlockTokens + 1; };
    w.n_splits = splits_of(blocks(w.n_tokens), p.chosen != nullptr);
    const size_t token_bytes = size_t(w.n_splits) * bytes_of_split(1, p.n_heads, p.head_dim);
    if (w.n_splits > 1) w.n_tokens = int(std::min<size_t>(size_t(w.n_tokens), p.scratch_bytes / token_bytes));
    if (w.n_tokens == 0) return cudaErrorInvalidValue;
    w.n_blocks = blocks(w.n_tokens);
    if (w.n_blocks > kBlocksMax) return cudaErrorInvalidValue;
    if (w.n_splits > 1) {
      w.sums = reinterpret_cast<float*>(p.scratch);
      w.states = reinterpret_cast<float2*>(w.sums + size_t(w.n_splits) * w.n_tokens * p.n_heads * p.head_dim);
    }
    if (const cudaError_t error = p.head_dim == 64 ? start<64>(w, stream) : start<128>(w, stream);
        error != cudaSuccess) {
      return error;
    }
    if (w.n_splits > 1) {
      const int64_t n_threads = int64_t(w.n_tokens) * p.n_heads * (p.head_dim / 4);
      const unsigned grid = unsigned((n_threads + kThreads - 1) / kThreads);
      if (const cudaError_t error = launch(join_kernel, grid, kThreads, 0, stream, w); error != cudaSuccess)
        return error;
    }
    first += w.n_tokens;
  }
  return cudaSuccess;
}

}  // namespace nosa::cuda
