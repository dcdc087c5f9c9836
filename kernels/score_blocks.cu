// The softmax is over all windows, so every part of the machine must know the whole before it can
// finish its own: thread blocks score their windows, publish maximum and sum per head, wait for
// each other, and then turn the logits they kept into scores. One launch instead of three; the
// keys, which are the bulk of the bytes, are read once.
//
// A unit is 32 blocks, 128 windows: 8 blocks for each of four warps, whose 4 tiles of 8 windows are
// loaded whole while the unit before is multiplied. Maxima and sums are joined in a fixed order.
// Waiting is safe because the launcher never starts more thread blocks than the machine holds.
#include <algorithm>

#include "common/launch.cuh"
#include "common/mma.cuh"
#include "common/rows.cuh"
#include "common/streaming.cuh"
#include "score_blocks.h"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kWarpTiles = 4;
constexpr int kTileWindows = 8;
constexpr int kTileBlocks = kTileWindows / kBlockWindows;
constexpr int kWarpBlocks = kWarpTiles * kTileBlocks;
constexpr int kUnitBlocks = kWarps * kWarpBlocks;
/// Units of a thread block whose logits stay in shared memory; those of others go through scratch.
constexpr int kept_units(int n_head_tiles) { return 4 / n_head_tiles; }
constexpr float kLog2E = 1.4426950408889634f;
constexpr int kCounterBytes = 16;
/// Counters of so many rows come first in the scratch, whatever a launch has: launches of different
/// sizes share it, and none may find another's sums where its counters are.
constexpr int kRowsMax = 512;
constexpr int kSplitsMax = 128;  // thread blocks of a (row, KV head)

__host__ __device__ int units_for(int n_blocks) {
  return (n_blocks + kUnitBlocks - 1) / kUnitBlocks;
}

/// Maximum and sum of 2^(logit - maximum) of some windows.
struct Partial {
  float peak;
  float sum;
};

__device__ Partial join(const Partial& a, const Partial& b) {
  const float peak = fmaxf(a.peak, b.peak);
  if (peak == -INFINITY) return {-INFINITY, 0.0f};
  return {peak, a.sum * exp2f(a.peak - peak) + b.sum * exp2f(b.peak - peak)};
}

__device__ Partial join_lanes(Partial x, int step) {
  // Ordered by lane, so that both lanes of a pair get the same bits.
  const Partial other = {__shfl_xor_sync(kAllLanes, x.peak, step),
                         __shfl_xor_sync(kAllLanes, x.sum, step)};
  return (threadIdx.x & step) == 0 ? join(x, other) : join(other, x);
}

/// Where a (row, KV head) keeps what its thread blocks share.
struct Shared {
  int* arrived;       // back at 0 afterwards
  int* left;          // likewise
  Partial* partials;  // [kSplitsMax, n_head_tiles, 16]
  float4* logits;     // [n_units, kWarps, n_head_tiles, kWarpTiles, 32]
};

__host__ __device__ size_t partial_bytes(int n_head_tiles) {
  return size_t(kSplitsMax) * n_head_tiles * kTileHeads * sizeof(Partial);
}
__host__ __device__ size_t logit_bytes(int n_units, int n_head_tiles) {
  return size_t(n_units) * kWarps * n_head_tiles * kWarpTiles * kWarp * sizeof(float4);
}

__device__ Shared shared_of(const ScoreBlocksParams& p, int row, int head, int n_head_tiles) {
  const int n_units = units_for(p.blocks.n_blocks_max);
  const size_t group = size_t(row) * p.n_kv_heads + head;
  const size_t n_groups = size_t(p.rows.n_seqs) * p.rows.n_queries * p.n_kv_heads;
  std::byte* partials = p.scratch + size_t(kRowsMax) * p.n_kv_heads * kCounterBytes;
  std::byte* logits = partials + n_groups * partial_bytes(n_head_tiles);
  int* counters = reinterpret_cast<int*>(p.scratch + group * kCounterBytes);
  return {counters, counters + 1,
          reinterpret_cast<Partial*>(partials + group * partial_bytes(n_head_tiles)),
          reinterpret_cast<float4*>(logits + group * logit_bytes(n_units, n_head_tiles))};
}

/// Waits until all `n` thread blocks of the group are here; what they wrote before is visible
/// after.
__device__ void meet(const Shared& shared, int n) {
  __syncthreads();  // Everybody's writes are done before one thread says so.
  if (n == 1) return;
  if (threadIdx.x == 0) {
    int arrived;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(arrived)
                 : "l"(shared.arrived)
                 : "memory");
    arrived += 1;
    while (arrived < n) {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(shared.arrived)
                   : "memory");
    }
  }
  __syncthreads();  // Nobody reads before all have arrived.
}

/// The last thread block to leave, which knows that all have met, prepares the next launch.
__device__ void leave(const Shared& shared, int n) {
  if (n == 1 || threadIdx.x != 0) return;
  if (atomicAdd(shared.left, 1) != n - 1) return;
  *shared.left = 0;
  *shared.arrived = 0;
}

template <int kHeadDim>
struct Tiles {
  uint4 keys[kWarpTiles][kHeadDim / 32];
  unsigned valid;  // bits 2 tile, 2 tile + 1: this lane's two windows of a tile take part
};

struct Row {
  RowPlace place;
  int head;
  int n_own_windows;
};

__device__ int windows_of(const LaneBlocks& blocks, const Row& row, int block) {
  if (block < row.place.n_attended)
    return blocks.info[size_t(row.place.lane) * blocks.n_blocks_max + block].n_windows;
  return min(max(row.n_own_windows - kBlockWindows * (block - row.place.n_attended), 0),
             kBlockWindows);
}

/// One block of this warp's 8 of a unit, looked up by lanes 0 to 7.
struct Lookup {
  int page;
  int n_windows;
};

__device__ Lookup look_up(const ScoreBlocksParams& p, const Row& row, int unit) {
  const int lane = threadIdx.x % kWarp;
  const int block = unit * kUnitBlocks + int(threadIdx.x) / kWarp * kWarpBlocks + lane;
  if (lane >= kWarpBlocks || block >= row.place.n_blocks) return {0, 0};
  return {p.blocks.pages[size_t(row.place.lane) * p.blocks.n_blocks_max + block],
          windows_of(p.blocks, row, block)};
}

/// Loads the windows of this warp's 8 blocks, 16 bytes at a time, all before any is used.
template <int kHeadDim>
__device__ Tiles<kHeadDim> load_tiles(const ScoreBlocksParams& p, const Row& row,
                                      const Lookup& mine) {
  const int lane = threadIdx.x % kWarp;
  Tiles<kHeadDim> tiles;
  tiles.valid = 0;
  const uint64_t policy = streaming_policy();
  const int key_window = lane / 4;
  const __half* base =
      p.side_car.compressed + size_t(row.head) * p.side_car.n_pages * kBlockWindows * kHeadDim;
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
    const int from = i * kTileBlocks + key_window / kBlockWindows;
    const int key_page = __shfl_sync(kAllLanes, mine.page, from);
    const bool has_key = key_window % kBlockWindows < __shfl_sync(kAllLanes, mine.n_windows, from);
    const auto* key = reinterpret_cast<const uint4*>(
        base + (size_t(key_page) * kBlockWindows + key_window % kBlockWindows) * kHeadDim);
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      tiles.keys[i][j] = {0, 0, 0, 0};
      if (has_key) tiles.keys[i][j] = load_streaming(key + j * 4 + lane % 4, policy);
    }
    const int column = 2 * (lane % 4);
    const int n = __shfl_sync(kAllLanes, mine.n_windows, i * kTileBlocks + column / kBlockWindows);
    tiles.valid |= unsigned(column % kBlockWindows < n) << (2 * i);
    tiles.valid |= unsigned(column % kBlockWindows + 1 < n) << (2 * i + 1);
  }
  return tiles;
}

/// Logits of a warp's tiles, in the units of exp2, -inf for windows that take no part.
template <int kHeadDim>
__device__ void warp_logits(const QueryTile<kHeadDim>& queries, const Tiles<kHeadDim>& tiles,
                            float scale, float4 (&logits)[kWarpTiles]) {
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) logits[i] = {0.0f, 0.0f, 0.0f, 0.0f};
  multiply<kHeadDim, kWarpTiles>(queries, tiles.keys, logits);
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
    const bool first = (tiles.valid >> (2 * i) & 1) != 0;
    const bool second = (tiles.valid >> (2 * i + 1) & 1) != 0;
    logits[i].x = first ? logits[i].x * scale : -INFINITY;
    logits[i].y = second ? logits[i].y * scale : -INFINITY;
    logits[i].z = first ? logits[i].z * scale : -INFINITY;
    logits[i].w = second ? logits[i].w * scale : -INFINITY;
  }
}

/// Takes two heads' logits of one more unit into this lane's maximum and sum of each.
__device__ void add_logits(const float4 (&logits)[kWarpTiles], Partial& low, Partial& high) {
  Partial of_low = {-INFINITY, 0.0f};
  Partial of_high = {-INFINITY, 0.0f};
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
    of_low.peak = fmaxf(of_low.peak, fmaxf(logits[i].x, logits[i].y));
    of_high.peak = fmaxf(of_high.peak, fmaxf(logits[i].z, logits[i].w));
  }
  // With no window at all, 0 stands in for the maximum and every power is 0.
  const float low_peak = of_low.peak == -INFINITY ? 0.0f : of_low.peak;
  const float high_peak = of_high.peak == -INFINITY ? 0.0f : of_high.peak;
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
    of_low.sum += exp2f(logits[i].x - low_peak) + exp2f(logits[i].y - low_peak);
    of_high.sum += exp2f(logits[i].z - high_peak) + exp2f(logits[i].w - high_peak);
  }
  low = join(low, of_low);
  high = join(high, of_high);
}

/// Adds this lane's share of the scores of a tile's windows: over the heads it holds, then over the
/// warp.
__device__ float2 tile_scores(const float4& logits, float low_total, float high_total) {
  float2 score = {exp2f(logits.x - low_total) + exp2f(logits.z - high_total),
                  exp2f(logits.y - low_total) + exp2f(logits.w - high_total)};
  for (int step = 4; step < kWarp; step *= 2) {
    score.x += __shfl_xor_sync(kAllLanes, score.x, step);
    score.y += __shfl_xor_sync(kAllLanes, score.y, step);
  }
  return score;
}

template <int kHeadDim, int kHeadTiles>
__global__ void __launch_bounds__(kThreads) score_blocks_kernel(ScoreBlocksParams p) {
  extern __shared__ float4 dynamic[];
  auto* queries = reinterpret_cast<QueryTile<kHeadDim>*>(dynamic);  // [kHeadTiles]
  auto* kept = reinterpret_cast<float4*>(queries + kHeadTiles);     // [kept_units, kWarps, ..]
  __shared__ Partial of_warp[kWarps][kHeadTiles * kTileHeads];
  __shared__ float log_total[kHeadTiles * kTileHeads];  // log2 of the softmax's denominator
  const int row_idx = blockIdx.z;
  Row row;
  row.place = read_place(p.rows, row_idx);
  row.head = blockIdx.y;
  row.n_own_windows = windows_in(row.place.own + 1);
  if (row.place.lane < 0 || row.place.n_blocks <= p.total_blocks) {
    begin_kernel();
    return;
  }

  const Shared shared = shared_of(p, row_idx, row.head, kHeadTiles);
  const int n_units = units_for(row.place.n_blocks);
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  constexpr int kUnitLogits = kWarps * kHeadTiles * kWarpTiles * kWarp;
  const auto logits_at = [&](int unit, int nth, int head_tile) {
    float4* base = nth < kept_units(kHeadTiles) ? kept + nth * kUnitLogits
                                                : shared.logits + size_t(unit) * kUnitLogits;
    return base + (warp * kHeadTiles + head_tile) * kWarpTiles * kWarp + lane;
  };

  // A thread block beyond the units has nothing to load, and says so with empty sums. The keys of
  // attended blocks are as they were; of own ones the kernel before may be writing a window of the
  // last two.
  const int pitch = gridDim.x;
  Lookup ahead = look_up(p, row, blockIdx.x);
  Tiles<kHeadDim> tiles;
  const bool settled =
      (int(blockIdx.x) + 1) * kUnitBlocks <= max(row.place.n_attended, row.place.n_blocks - 2);
  if (settled) tiles = load_tiles<kHeadDim>(p, row, ahead);
  begin_kernel();
  if (!settled) tiles = load_tiles<kHeadDim>(p, row, ahead);
  if (int(blockIdx.x) + pitch < n_units) ahead = look_up(p, row, int(blockIdx.x) + pitch);
  const int n_group = p.n_heads / p.n_kv_heads;
  const float* q = p.q + row_idx * p.q_stride + size_t(row.head) * n_group * kHeadDim;
  for (int h = 0; h < kHeadTiles; ++h) {
    load_queries<kHeadDim, kThreads>(queries[h], q + h * kTileHeads * kHeadDim,
                                     n_group - h * kTileHeads);
  }
  __syncthreads();  // The queries are in place.

  Partial low[kHeadTiles], high[kHeadTiles];
#pragma unroll
  for (int h = 0; h < kHeadTiles; ++h) low[h] = high[h] = {-INFINITY, 0.0f};
  int nth = 0;
  for (int unit = blockIdx.x; unit < n_units; unit += pitch, ++nth) {
    // The next unit's keys, and where those of the one after it are.
    Tiles<kHeadDim> next;
    if (unit + pitch < n_units) next = load_tiles<kHeadDim>(p, row, ahead);
    if (unit + 2 * pitch < n_units) ahead = look_up(p, row, unit + 2 * pitch);
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      float4 logits[kWarpTiles];
      warp_logits<kHeadDim>(queries[h], tiles, p.scale * kLog2E, logits);
      float4* at = logits_at(unit, nth, h);
#pragma unroll
      for (int i = 0; i < kWarpTiles; ++i) at[i * kWarp] = logits[i];
      add_logits(logits, low[h], high[h]);
    }
    tiles = next;
  }
#pragma unroll
  for (int h = 0; h < kHeadTiles; ++h) {
    for (int step = 1; step < 4; step *= 2) {
      low[h] = join_lanes(low[h], step);
      high[h] = join_lanes(high[h], step);
    }
    if (lane % 4 == 0) {
      of_warp[warp][h * kTileHeads + lane / 4] = low[h];
      of_warp[warp][h * kTileHeads + lane / 4 + 8] = high[h];
    }
  }
  __syncthreads();  // All four warps' sums are there.
  if (threadIdx.x < kHeadTiles * kTileHeads) {
    Partial total = of_warp[0][threadIdx.x];
    for (int w = 1; w < kWarps; ++w) total = join(total, of_warp[w][threadIdx.x]);
    shared.partials[size_t(blockIdx.x) * kHeadTiles * kTileHeads + threadIdx.x] = total;
  }
  meet(shared, gridDim.x);

  // Every thread block joins all sums: 8 threads a head, each a run of thread blocks, then the runs
  // in order.
  constexpr int kRuns = kThreads / kTileHeads;
  constexpr int kRunMax = kSplitsMax / kRuns;
  const int n_splits = gridDim.x;
  const int per_run = (n_splits + kRuns - 1) / kRuns;
  for (int h = 0; h < kHeadTiles; ++h) {
    const int head = threadIdx.x / kRuns;
    const int run = threadIdx.x % kRuns;
    float2 values[kRunMax];
#pragma unroll
    for (int i = 0; i < kRunMax; ++i) {
      const int split = run * per_run + i;
      // Past the first-level cache, which may hold an older launch's.
      const auto* at = reinterpret_cast<const float2*>(shared.partials) +
                       (size_t(split) * kHeadTiles + h) * kTileHeads + head;
      values[i] = i < per_run && split < n_splits ? __ldcg(at) : float2{-INFINITY, 0.0f};
    }
    Partial total = {-INFINITY, 0.0f};
#pragma unroll
    for (int i = 0; i < kRunMax; ++i) total.peak = fmaxf(total.peak, values[i].x);
    const float peak = total.peak == -INFINITY ? 0.0f : total.peak;
#pragma unroll
    for (int i = 0; i < kRunMax; ++i) total.sum += values[i].y * exp2f(values[i].x - peak);
    for (int step = 1; step < kRuns; step *= 2) total = join_lanes(total, step);
    // A head that does not exist, or sees nothing, weighs nothing.
    const bool counts = h * kTileHeads + head < n_group && total.peak > -INFINITY;
    if (run == 0)
      log_total[h * kTileHeads + head] = counts ? total.peak + log2f(total.sum) : INFINITY;
  }
  __syncthreads();  // The denominators are known.

  float2* best = p.best + (size_t(row_idx) * p.n_kv_heads + row.head) * p.blocks.n_blocks_max;
  nth = 0;
  for (int unit = blockIdx.x; unit < n_units; unit += pitch, ++nth) {
#pragma unroll
    for (int i = 0; i < kWarpTiles; ++i) {
      float2 score = {0.0f, 0.0f};
      bool first = false, second = false;  // Windows that take no part have -inf for every head.
#pragma unroll
      for (int h = 0; h < kHeadTiles; ++h) {
        const float4 logits = logits_at(unit, nth, h)[i * kWarp];
        first = first || logits.x != -INFINITY;
        second = second || logits.y != -INFINITY;
        const float2 part = tile_scores(logits, log_total[h * kTileHeads + lane / 4],
                                        log_total[h * kTileHeads + lane / 4 + 8]);
        score.x += part.x;
        score.y += part.y;
      }
      if (!first) score.x = -INFINITY;
      if (!second) score.y = -INFINITY;
      // Lanes 0 and 1 hold the four windows of the tile's first block, 2 and 3 those of its second.
      const float own_best = fmaxf(score.x, score.y);
      const float pair_best = fmaxf(own_best, __shfl_xor_sync(kAllLanes, own_best, 1));
      const int block = unit * kUnitBlocks + warp * kWarpBlocks + i * kTileBlocks + lane / 2;
      if ((lane == 1 || lane == 3) && block < row.place.n_blocks)
        best[block] = {pair_best, score.y};
    }
  }
  leave(shared, gridDim.x);
}

template <int kHeadDim, int kHeadTiles>
cudaError_t launch_score(const ScoreBlocksParams& p, cudaStream_t stream) {
  constexpr size_t shared_bytes =
      kHeadTiles * sizeof(QueryTile<kHeadDim>) +
      size_t(kept_units(kHeadTiles)) * kWarps * kHeadTiles * kWarpTiles * kWarp * sizeof(float4);
  const auto kernel = score_blocks_kernel<kHeadDim, kHeadTiles>;
  // Asked once: how many thread blocks the machine holds at a time.
  struct Room {
    cudaError_t error;
    int n_thread_blocks;
  };
  static const Room room = [kernel] {
    int device = 0, n_processors = 0, n_each = 0;
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             int(shared_bytes));
    if (error == cudaSuccess) error = cudaGetDevice(&device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess) {
      error =
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n_each, kernel, kThreads, shared_bytes);
    }
    return Room{error, n_processors * n_each};
  }();
  if (room.error != cudaSuccess) return room.error;
  const int n_rows = p.rows.n_seqs * p.rows.n_queries;
  const int n_groups = n_rows * p.n_kv_heads;
  const int n_splits = std::max(
      1, std::min({units_for(p.blocks.n_blocks_max), room.n_thread_blocks / n_groups, kSplitsMax}));
  return launch(kernel, dim3(n_splits, p.n_kv_heads, n_rows), kThreads, shared_bytes, stream, p);
}

template <int kHeadDim>
cudaError_t launch_for_group(const ScoreBlocksParams& p, cudaStream_t stream) {
  const int n_group = p.n_heads / p.n_kv_heads;
  if (n_group <= kTileHeads) return launch_score<kHeadDim, 1>(p, stream);
  if (n_group <= 2 * kTileHeads) return launch_score<kHeadDim, 2>(p, stream);
  return launch_score<kHeadDim, kGroupMax / kTileHeads>(p, stream);
}

int head_tiles(int n_group) {
  return n_group <= kTileHeads ? 1 : n_group <= 2 * kTileHeads ? 2 : kGroupMax / kTileHeads;
}

}  // namespace

size_t score_blocks_scratch_bytes(int n_rows, int n_heads, int n_kv_heads, int n_blocks_max) {
  const int n_units = units_for(n_blocks_max);
  const int n_head_tiles = head_tiles(n_heads / n_kv_heads);
  return size_t(kRowsMax) * n_kv_heads * kCounterBytes +
         size_t(n_rows) * n_kv_heads *
             (partial_bytes(n_head_tiles) + logit_bytes(n_units, n_head_tiles));
}

cudaError_t score_blocks(const ScoreBlocksParams& p, cudaStream_t stream) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax)
    return cudaErrorInvalidValue;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0 || p.n_heads / p.n_kv_heads > kGroupMax) {
    return cudaErrorInvalidValue;
  }
  if (p.q_stride % 2 != 0 || p.blocks.n_blocks_max < 1) return cudaErrorInvalidValue;
  if (p.rows.n_seqs * p.rows.n_queries > kRowsMax) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  switch (p.head_dim) {
    case 64:
      return launch_for_group<64>(p, stream);
    case 128:
      return launch_for_group<128>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nosa::cuda
