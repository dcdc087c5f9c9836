// A part of the list for each thread block; the last of a (row, KV head) to finish joins the parts in order.
//
// The unit of work is 16 keys for a warp: their 16 x head_dim values of K and of V go straight from memory to registers
// in the layout that the tensor cores want, because neither the order of dimensions in q . k nor the order of keys in
// the weighted sum matters (mma.cuh; for V see weigh()). All loads of a unit are out before its first product, and
// those of the next one before this one's products. Query heads fill the 16 rows of a product; the others are zero.
#include "attend_blocks.h"

#include <algorithm>

#include "common/launch.cuh"
#include "common/mma.cuh"
#include "common/rows.cuh"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kUnitKeys = 16;
constexpr int kBlockUnits = kBlockTokens / kUnitKeys;
constexpr int kPartsMax = 32;
constexpr int kCounterBytes = 16;
constexpr float kLog2E = 1.4426950408889634f;

/// A warp's running softmax over the keys it has seen, for heads lane / 4 (low) and lane / 4 + 8 (high).
template <int kHeadDim>
struct State {
  float4 sums[kHeadDim / 8];  // weighted values; .x, .y low, .z, .w high; dimensions as weigh() says
  float peak_low;
  float peak_high;
  float total_low;   // of this lane's keys alone until the end
  float total_high;
};

/// One unit of keys and values on its way.
template <int kHeadDim>
struct Unit {
  uint4 keys[2][kHeadDim / 32];    // two tiles of 8 keys, see mma.cuh
  uint4 values[4][kHeadDim / 64];  // keys 2c, 2c + 1, 2c + 8, 2c + 9 with c = lane mod 4; 8 dimensions each
  float2 bias[2];                  // of keys 2c, 2c + 1 of each tile, in units of exp2; -inf for keys that are not there
};

struct Row {
  int idx;
  int lane;
  int head;        // KV head
  int n_attended;
  int own;
  int n_blocks;
};

/// One entry of the list: where its extent is and how many of its tokens count.
struct Entry {
  const std::byte* extent;
  const float* bias;
  int n_tokens;  // 0: skip it
};

__device__ Entry entry_at(const AttendBlocksParams& p, const Row& row, int i, int n_entries) {
  if (i >= n_entries) return {nullptr, nullptr, 0};
  const size_t lane_blocks = size_t(row.lane) * p.blocks.n_blocks_max;
  const size_t list = (size_t(row.idx) * p.n_kv_heads + row.head) * p.n_selected_max;
  const int block = p.chosen != nullptr ? p.chosen[list + i] : i;
  const int page = p.blocks.pages[lane_blocks + block];
  const int index = p.chosen != nullptr ? p.indices[list + i] : page;
  const BlockInfo info = p.blocks.info[lane_blocks + block];
  Entry entry;
  entry.extent = extent_at(p.pool, row.lane, row.head, max(index, 0));
  entry.bias = p.token_bias != nullptr
                   ? p.token_bias + (size_t(row.head) * p.n_pages + page) * kBlockTokens : nullptr;
  const int n_own = row.own + 1 - (block - row.n_attended) * kBlockTokens;
  entry.n_tokens = block < row.n_attended ? info.n_tokens : min(n_own, kBlockTokens);
  if (index < 0 || (p.chosen == nullptr && info.masked != 0)) entry.n_tokens = 0;
  return entry;
}

/// Starts all loads of keys first .. first + 15 of an entry. Keys that are not there count as zeros.
template <int kHeadDim>
__device__ void load_unit(const Entry& entry, int first, Unit<kHeadDim>& unit) {
  const int lane = threadIdx.x % kWarp;
  const auto* keys = reinterpret_cast<const __half*>(entry.extent);
  const __half* values = keys + kBlockTokens * kHeadDim;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const int key = first + tile * 8 + lane / 4;
    const auto* at = reinterpret_cast<const uint4*>(keys + size_t(key) * kHeadDim) + lane % 4;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) unit.keys[tile][j] = key < entry.n_tokens ? at[j * 4] : uint4{0, 0, 0, 0};
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int key = first + 2 * (lane % 4) + i % 2 + i / 2 * 8;
    const auto* at = reinterpret_cast<const uint4*>(values + size_t(key) * kHeadDim) + lane / 4;
#pragma unroll
    for (int j = 0; j < kHeadDim / 64; ++j) unit.values[i][j] = key < entry.n_tokens ? at[j * 8] : uint4{0, 0, 0, 0};
  }
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const int key = first + tile * 8 + 2 * (lane % 4);
    float2 bias = {0.0f, 0.0f};
    if (entry.bias != nullptr && key < entry.n_tokens) bias = *reinterpret_cast<const float2*>(entry.bias + key);
    unit.bias[tile].x = key < entry.n_tokens ? bias.x * kLog2E : -INFINITY;
    unit.bias[tile].y = key + 1 < entry.n_tokens ? bias.y * kLog2E : -INFINITY;
  }
}

__device__ uint32_t halves(float low, float high) { return pack(__float2half_rn(low), __float2half_rn(high)); }

/// Adds weights x values. A product takes keys in pairs: the low or the high halves of two keys' registers make the
/// right operand for dimension 8 (lane / 4) + d of 64, so that product d has dimensions d, d + 8, d + 16, ...
template <int kHeadDim>
__device__ void weigh(const uint4& weights, const Unit<kHeadDim>& unit, State<kHeadDim>& state) {
#pragma unroll
  for (int j = 0; j < kHeadDim / 64; ++j) {
    const uint32_t v[4][4] = {
        {unit.values[0][j].x, unit.values[0][j].y, unit.values[0][j].z, unit.values[0][j].w},
        {unit.values[1][j].x, unit.values[1][j].y, unit.values[1][j].z, unit.values[1][j].w},
        {unit.values[2][j].x, unit.values[2][j].y, unit.values[2][j].z, unit.values[2][j].w},
        {unit.values[3][j].x, unit.values[3][j].y, unit.values[3][j].z, unit.values[3][j].w}};
#pragma unroll
    for (int d = 0; d < 8; ++d) {
      constexpr uint32_t kLow = 0x5410, kHigh = 0x7632;  // halves of two registers, for __byte_perm
      const uint32_t part = d % 2 == 0 ? kLow : kHigh;
      mma(state.sums[j * 8 + d], weights, __byte_perm(v[0][d / 2], v[1][d / 2], part),
          __byte_perm(v[2][d / 2], v[3][d / 2], part));
    }
  }
}

template <int kHeadDim>
__device__ void rescale(State<kHeadDim>& state, float low, float high) {
  state.total_low *= low;
  state.total_high *= high;
#pragma unroll
  for (float4& sum : state.sums) {
    sum.x *= low;
    sum.y *= low;
    sum.z *= high;
    sum.w *= high;
  }
}

__device__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

template <int kHeadDim>
__device__ void attend_unit(const QueryTile<kHeadDim>& queries, const Unit<kHeadDim>& unit, float scale,
                            State<kHeadDim>& state) {
  float4 logits[2] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
  multiply<kHeadDim, 2>(queries, unit.keys, logits);
  float peak_low = state.peak_low;
  float peak_high = state.peak_high;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    logits[tile].x = fmaf(logits[tile].x, scale, unit.bias[tile].x);
    logits[tile].y = fmaf(logits[tile].y, scale, unit.bias[tile].y);
    logits[tile].z = fmaf(logits[tile].z, scale, unit.bias[tile].x);
    logits[tile].w = fmaf(logits[tile].w, scale, unit.bias[tile].y);
    peak_low = fmaxf(peak_low, fmaxf(logits[tile].x, logits[tile].y));
    peak_high = fmaxf(peak_high, fmaxf(logits[tile].z, logits[tile].w));
  }
  peak_low = quad_max(peak_low);
  peak_high = quad_max(peak_high);
  // Before the first key both are -inf: weigh nothing rather than form -inf minus -inf.
  const float from_low = peak_low == -INFINITY ? 0.0f : peak_low;
  const float from_high = peak_high == -INFINITY ? 0.0f : peak_high;
  rescale(state, exp2f(state.peak_low - from_low), exp2f(state.peak_high - from_high));
  state.peak_low = peak_low;
  state.peak_high = peak_high;
#pragma unroll
  for (float4& logit : logits) {
    logit.x = exp2f(logit.x - from_low);
    logit.y = exp2f(logit.y - from_low);
    logit.z = exp2f(logit.z - from_high);
    logit.w = exp2f(logit.w - from_high);
    state.total_low += logit.x + logit.y;
    state.total_high += logit.z + logit.w;
  }
  const uint4 weights = {halves(logits[0].x, logits[0].y), halves(logits[0].z, logits[0].w),
                         halves(logits[1].x, logits[1].y), halves(logits[1].z, logits[1].w)};
  weigh<kHeadDim>(weights, unit, state);
}

/// A part of a row's attention: not yet divided by its total.
struct Totals {
  float peak;
  float total;
};

/// What the thread blocks of a (row, KV head, tile of heads) share.
struct Shared {
  int* counter;     // arrivals, back at 0 afterwards
  Totals* totals;   // [kPartsMax, 16]
  float* sums;      // [kPartsMax, 16, head_dim]
};

__host__ __device__ size_t group_bytes(int head_dim) {
  return kCounterBytes + size_t(kPartsMax) * kTileHeads * (sizeof(Totals) + size_t(head_dim) * sizeof(float));
}

__device__ Shared shared_of(const AttendBlocksParams& p, int group) {
  std::byte* base = p.scratch + size_t(group) * group_bytes(p.head_dim);
  auto* totals = reinterpret_cast<Totals*>(base + kCounterBytes);
  return {reinterpret_cast<int*>(base), totals, reinterpret_cast<float*>(totals + kPartsMax * kTileHeads)};
}

/// Joins what the four warps have, through shared memory, into the sums of one part. Thread i then has dimensions
/// 4 (i mod kHeadDim / 4) .. + 3 of heads i / (kHeadDim / 4), + kThreads / (kHeadDim / 4), ...
template <int kHeadDim>
struct WarpSums {
  static constexpr int kPitch = kHeadDim + 4;  // so that rows start in different banks
  float sums[kWarps][kTileHeads][kPitch];
  Totals totals[kWarps][kTileHeads];
};

template <int kHeadDim>
__device__ void put_state(State<kHeadDim>& state, WarpSums<kHeadDim>& all) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  for (int step = 1; step < 4; step *= 2) {
    state.total_low += __shfl_xor_sync(kAllLanes, state.total_low, step);
    state.total_high += __shfl_xor_sync(kAllLanes, state.total_high, step);
  }
  if (lane % 4 == 0) {
    all.totals[warp][lane / 4] = {state.peak_low, state.total_low};
    all.totals[warp][lane / 4 + 8] = {state.peak_high, state.total_high};
  }
#pragma unroll
  for (int i = 0; i < kHeadDim / 8; ++i) {
    // Column n of product d is dimension 8 n + d.
    const int dim = i / 8 * 64 + 2 * (lane % 4) * 8 + i % 8;
    all.sums[warp][lane / 4][dim] = state.sums[i].x;
    all.sums[warp][lane / 4][dim + 8] = state.sums[i].y;
    all.sums[warp][lane / 4 + 8][dim] = state.sums[i].z;
    all.sums[warp][lane / 4 + 8][dim + 8] = state.sums[i].w;
  }
}

__device__ float weight_of(float peak, float highest) { return highest == -INFINITY ? 0.0f : exp2f(peak - highest); }

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) attend_blocks_kernel(AttendBlocksParams p) {
  __shared__ QueryTile<kHeadDim> queries;
  extern __shared__ float4 dynamic[];
  auto& all = *reinterpret_cast<WarpSums<kHeadDim>*>(dynamic);
  __shared__ bool is_last;
  begin_kernel();

  Row row;
  row.idx = blockIdx.z;
  const SeqStep seq = read_seq(p.rows, row.idx / p.rows.n_queries);
  const int t = row.idx % p.rows.n_queries;
  if (t >= seq.n_new) return;
  const int n_group = p.n_heads / p.n_kv_heads;
  const int n_tiles = (n_group + kTileHeads - 1) / kTileHeads;
  const int first_head = blockIdx.y % n_tiles * kTileHeads;
  row.head = blockIdx.y / n_tiles;
  row.lane = seq.lane;
  row.n_attended = p.blocks.n_attended[seq.lane];
  row.own = seq.first_own + t;
  row.n_blocks = row.n_attended + row.own / kBlockTokens + 1;
  const int n_heads = min(n_group - first_head, kTileHeads);
  const size_t head_offset = (size_t(row.head) * n_group + first_head) * kHeadDim;
  load_queries<kHeadDim, kThreads>(queries, p.q + row.idx * p.q_stride + head_offset, n_heads);
  const int n_entries = p.chosen != nullptr ? p.n_chosen[row.idx * p.n_kv_heads + row.head] : row.n_blocks;
  __syncthreads();  // The queries are in place.

  // Units are dealt to parts in runs, to warps in turn.
  const int n_units = n_entries * kBlockUnits;
  const int per_part = (n_units + int(gridDim.x) - 1) / int(gridDim.x);
  const int begin = blockIdx.x * per_part;
  const int end = min(begin + per_part, n_units);
  const int warp = threadIdx.x / kWarp;

  State<kHeadDim> state = {};
  state.peak_low = state.peak_high = -INFINITY;
  for (int i = begin + warp; i < end; i += kWarps) {
    const Entry entry = entry_at(p, row, i / kBlockUnits, n_entries);
    const int first = i % kBlockUnits * kUnitKeys;
    if (first >= entry.n_tokens) continue;
    Unit<kHeadDim> unit;
    load_unit<kHeadDim>(entry, first, unit);
    attend_unit<kHeadDim>(queries, unit, p.scale * kLog2E, state);
  }
  put_state<kHeadDim>(state, all);
  __syncthreads();  // All four warps' sums are there.

  // Join the warps, in order.
  constexpr int kQuads = kHeadDim / 4;
  constexpr int kHeadsAtOnce = kThreads / kQuads;
  const int n_parts = gridDim.x;
  const Shared shared = shared_of(p, row.idx * gridDim.y + blockIdx.y);
  float* out = p.out + row.idx * p.out_stride + head_offset;
  for (int h = threadIdx.x / kQuads; h < n_heads; h += kHeadsAtOnce) {
    const int quad = threadIdx.x % kQuads;
    float highest = -INFINITY;
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, all.totals[w][h].peak);
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    float total = 0.0f;
    for (int w = 0; w < kWarps; ++w) {
      const float weight = weight_of(all.totals[w][h].peak, highest);
      const float4 part = *reinterpret_cast<const float4*>(&all.sums[w][h][4 * quad]);
      sum.x += weight * part.x;
      sum.y += weight * part.y;
      sum.z += weight * part.z;
      sum.w += weight * part.w;
      total += weight * all.totals[w][h].total;
    }
    if (n_parts == 1) {
      const float scale = total > 0.0f ? 1.0f / total : 0.0f;
      reinterpret_cast<float4*>(out + h * kHeadDim)[quad] = {sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale};
      continue;
    }
    const size_t at = size_t(blockIdx.x) * kTileHeads + h;
    reinterpret_cast<float4*>(shared.sums + at * kHeadDim)[quad] = sum;
    if (quad == 0) shared.totals[at] = {highest, total};
  }
  if (n_parts == 1) return;

  __threadfence();
  __syncthreads();  // This part is out before its arrival is counted.
  if (threadIdx.x == 0) {
    is_last = atomicAdd(shared.counter, 1) == n_parts - 1;
    if (is_last) *shared.counter = 0;
    __threadfence();
  }
  __syncthreads();  // Everybody knows whether it is up to this thread block.
  if (!is_last) return;
  for (int h = threadIdx.x / kQuads; h < n_heads; h += kHeadsAtOnce) {
    const int quad = threadIdx.x % kQuads;
    float highest = -INFINITY;
    for (int part = 0; part < n_parts; ++part) {
      highest = fmaxf(highest, __ldcg(&shared.totals[part * kTileHeads + h].peak));
    }
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    float total = 0.0f;
#pragma unroll 8
    for (int part = 0; part < n_parts; ++part) {
      const size_t at = size_t(part) * kTileHeads + h;
      const float2 of = __ldcg(reinterpret_cast<const float2*>(shared.totals + at));
      const float4 value = __ldcg(reinterpret_cast<const float4*>(shared.sums + at * kHeadDim) + quad);
      const float weight = weight_of(of.x, highest);
      sum.x += weight * value.x;
      sum.y += weight * value.y;
      sum.z += weight * value.z;
      sum.w += weight * value.w;
      total += weight * of.y;
    }
    const float scale = total > 0.0f ? 1.0f / total : 0.0f;
    reinterpret_cast<float4*>(out + h * kHeadDim)[quad] = {sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale};
  }
}

/// Parts of a row's list: enough to fill the machine at one row, one when rows alone do.
int parts_for(int n_groups, int n_processors) {
  constexpr int kPerProcessor = 2;
  const int wanted = (kPerProcessor * n_processors + n_groups - 1) / n_groups;
  int n_parts = 1;
  while (n_parts < kPartsMax && 2 * n_parts <= wanted) n_parts *= 2;
  return n_parts;
}

template <int kHeadDim>
cudaError_t launch_attend(const AttendBlocksParams& p, cudaStream_t stream) {
  const auto kernel = attend_blocks_kernel<kHeadDim>;
  constexpr size_t shared_bytes = sizeof(WarpSums<kHeadDim>);
  struct Machine {
    cudaError_t error;
    int n_processors;
  };
  static const Machine machine = [kernel] {
    int device = 0, n_processors = 0;
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error == cudaSuccess) error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
    return Machine{error, n_processors};
  }();
  if (machine.error != cudaSuccess) return machine.error;
  const int n_tiles = (p.n_heads / p.n_kv_heads + kTileHeads - 1) / kTileHeads;
  const int n_rows = p.rows.n_seqs * p.rows.n_queries;
  const int n_groups = n_rows * p.n_kv_heads * n_tiles;
  const dim3 grid(parts_for(n_groups, machine.n_processors), p.n_kv_heads * n_tiles, n_rows);
  return launch(kernel, grid, kThreads, shared_bytes, stream, p);
}

}  // namespace

size_t attend_blocks_scratch_bytes(int n_rows, int n_heads, int n_kv_heads, int head_dim) {
  const int n_tiles = (n_heads / n_kv_heads + kTileHeads - 1) / kTileHeads;
  return size_t(n_rows) * n_kv_heads * n_tiles * group_bytes(head_dim);
}

cudaError_t attend_blocks(const AttendBlocksParams& p, cudaStream_t stream) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax) return cudaErrorInvalidValue;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0 || p.n_heads / p.n_kv_heads > kGroupMax) {
    return cudaErrorInvalidValue;
  }
  if (p.q_stride % 2 != 0 || p.out_stride % 4 != 0) return cudaErrorInvalidValue;
  if ((p.chosen == nullptr) != (p.indices == nullptr) || (p.chosen == nullptr) != (p.n_chosen == nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (p.rows.n_seqs == 0) return cudaSuccess;
  switch (p.head_dim) {
    case 64: return launch_attend<64>(p, stream);
    case 128: return launch_attend<128>(p, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace nosa::cuda
