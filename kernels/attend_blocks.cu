// Every n-th entry of the list for each of n thread blocks. The unit of work is 16 keys for a warp:
// their 16 x head_dim values of K and of V go straight from memory to registers in the layout that
// the tensor cores want, because neither the order of dimensions in q . k nor the order of keys in
// the weighted sum matters (mma.cuh; for V see weigh()). A warp takes the same quarter of every
// second block of its part, looks all those blocks up at once, a block a lane, and starts the next
// unit's loads as soon as the registers are free. Query heads fill the 16 rows of a product; the
// others are zero.
#include <algorithm>

#include "attend_blocks.h"
#include "common/attention_parts.cuh"
#include "common/launch.cuh"
#include "common/mma.cuh"
#include "common/rows.cuh"
#include "common/streaming.cuh"

namespace nosa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kUnitKeys = 16;
constexpr int kBlockUnits = kBlockTokens / kUnitKeys;
constexpr int kBlocksAtOnce = kWarps / kBlockUnits;
constexpr float kLog2E = 1.4426950408889634f;

/// A warp's running softmax over the keys it has seen, for heads lane / 4 (low) and lane / 4 + 8
/// (high).
template <int kHeadDim>
struct State {
  float4
      sums[kHeadDim / 8];  // weighted values; .x, .y low, .z, .w high; dimensions as weigh() says
  float peak_low;
  float peak_high;
  float total_low;  // of this lane's keys alone until the end
  float total_high;
};

/// One unit of keys and values on its way.
template <int kHeadDim>
struct Unit {
  uint4 keys[2][kHeadDim / 32];  // two tiles of 8 keys, see mma.cuh
  uint4 values[4][kHeadDim /
                  64];  // keys 2c, 2c + 1, 2c + 8, 2c + 9 with c = lane mod 4; 8 dimensions each
  float2 bias[2];       // of keys 2c, 2c + 1 of each tile; -inf for keys that are not there
};

struct Row {
  int idx;
  RowPlace place;
  int head;  // KV head
};

/// One entry of the list: where it is, and how many of its tokens count; 0 leaves it out.
struct Entry {
  int index;
  int page;
  int n_tokens;
  bool fetch;  // from the host's page into the slot
};

/// Entry i, one that counts for nothing beyond the last. What is listed is read before it is known
/// how much there is.
__device__ Entry entry_at(const AttendBlocksParams& p, const Row& row, int i) {
  if (p.selected != nullptr) {
    const size_t list = size_t(row.idx) * p.n_kv_heads + row.head;
    const int4 of = reinterpret_cast<const int4*>(
        p.selected)[list * p.n_selected_max + min(i, p.n_selected_max - 1)];
    const bool counts = i < p.n_selected[list] && of.y >= 0;
    const bool fetch = counts && of.w >= kToFetch;
    return {counts ? of.y : 0, counts ? of.z : 0, counts ? of.w % kToFetch : 0,
            fetch && p.pages.base != nullptr};
  }
  if (row.place.lane < 0 || i >= row.place.n_blocks) return {0, 0, 0, false};
  const size_t of_lane = size_t(row.place.lane) * p.blocks.n_blocks_max + i;
  const int page = p.blocks.pages[of_lane];
  const BlockInfo info = p.blocks.info[of_lane];
  const int n_own = row.place.own + 1 - (i - row.place.n_attended) * kBlockTokens;
  const int n_tokens = i < row.place.n_attended ? int(info.n_tokens) : min(n_own, kBlockTokens);
  return {page, page, info.masked != 0 ? 0 : n_tokens, false};
}

__device__ Entry broadcast(const Entry& entry, int lane) {
  return {__shfl_sync(kAllLanes, entry.index, lane), __shfl_sync(kAllLanes, entry.page, lane),
          __shfl_sync(kAllLanes, entry.n_tokens, lane),
          __shfl_sync(kAllLanes, int(entry.fetch), lane) != 0};
}

/// Where one warp's unit lies.
struct UnitPlace {
  const __half* keys;
  __half* slot;         // to be filled with what is read, or null
  const float* biases;  // or null
  int first;            // of its keys within the block
  int n_tokens;         // of the block that count
};

__device__ UnitPlace place_of_unit(const AttendBlocksParams& p, const Row& row, const Entry& entry,
                                   int first) {
  auto* extent =
      reinterpret_cast<__half*>(extent_at(p.pool, row.place.lane, row.head, entry.index));
  const auto* page = reinterpret_cast<const __half*>(extent_at(p.pages, 0, row.head, entry.page));
  return {entry.fetch ? page : extent, entry.fetch ? extent : nullptr,
          p.token_bias != nullptr
              ? p.token_bias + (size_t(row.head) * p.n_pages + entry.page) * kBlockTokens
              : nullptr,
          first, entry.n_tokens};
}

/// Where this lane's 16 bytes of a unit lie within the block, in units of 16 bytes: of its key of
/// tile `tile`, and of the value of its i-th key. One key more is kHeadDim / 8 further.
template <int kHeadDim>
__device__ int key_offset(int first, int tile, int j) {
  const int lane = threadIdx.x % kWarp;
  return (first + tile * 8 + lane / 4) * (kHeadDim / 8) + lane % 4 + j * 4;
}
template <int kHeadDim>
__device__ int value_offset(int first, int i, int j) {
  const int lane = threadIdx.x % kWarp;
  return (kBlockTokens + first + 2 * (lane % 4) + i % 2 + i / 2 * 8) * (kHeadDim / 8) + lane / 4 +
         j * 8;
}

/// A load that bypasses the caches: host memory may have changed since they were filled.
__device__ uint4 load_host(const uint4* at) {
  uint4 value;
  asm volatile("ld.global.cv.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(at));
  return value;
}

/// Starts the loads of a unit's keys. Keys that are not there count as zeros.
template <int kHeadDim, bool kFromHost>
__device__ void start_keys(const UnitPlace& at, Unit<kHeadDim>& unit) {
  const int lane = threadIdx.x % kWarp;
  const auto* from = reinterpret_cast<const uint4*>(at.keys);
  const uint64_t policy = streaming_policy();
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const bool there = at.first + tile * 8 + lane / 4 < at.n_tokens;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      unit.keys[tile][j] = {0, 0, 0, 0};
      const uint4* piece = from + key_offset<kHeadDim>(at.first, tile, j);
      if (there) unit.keys[tile][j] = kFromHost ? load_host(piece) : load_streaming(piece, policy);
    }
  }
}

template <int kHeadDim, bool kFromHost>
__device__ void start_values(const UnitPlace& at, Unit<kHeadDim>& unit) {
  const int lane = threadIdx.x % kWarp;
  const auto* from = reinterpret_cast<const uint4*>(at.keys);
  const uint64_t policy = streaming_policy();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool there = at.first + 2 * (lane % 4) + i % 2 + i / 2 * 8 < at.n_tokens;
#pragma unroll
    for (int j = 0; j < kHeadDim / 64; ++j) {
      unit.values[i][j] = {0, 0, 0, 0};
      const uint4* piece = from + value_offset<kHeadDim>(at.first, i, j);
      if (there) unit.values[i][j] = kFromHost ? load_host(piece) : load_streaming(piece, policy);
    }
  }
}

/// Starts the loads of a unit's keys and biases.
template <int kHeadDim, bool kFetches>
__device__ void load_keys(const UnitPlace& at, Unit<kHeadDim>& unit) {
  // One branch of the whole warp, not one a load.
  if (kFetches && at.slot != nullptr) {
    start_keys<kHeadDim, true>(at, unit);
  } else {
    start_keys<kHeadDim, false>(at, unit);
  }
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const int key = at.first + tile * 8 + 2 * (lane % 4);
    float2 bias = {0.0f, 0.0f};
    if (at.biases != nullptr && key < at.n_tokens)
      bias = *reinterpret_cast<const float2*>(at.biases + key);
    unit.bias[tile].x = key < at.n_tokens ? bias.x : -INFINITY;
    unit.bias[tile].y = key + 1 < at.n_tokens ? bias.y : -INFINITY;
  }
}

template <int kHeadDim, bool kFetches>
__device__ void load_values(const UnitPlace& at, Unit<kHeadDim>& unit) {
  if (kFetches && at.slot != nullptr) {
    start_values<kHeadDim, true>(at, unit);
  } else {
    start_values<kHeadDim, false>(at, unit);
  }
}

/// Puts what was fetched into its slot.
template <int kHeadDim>
__device__ void store_keys(const UnitPlace& at, const Unit<kHeadDim>& unit) {
  auto* to = reinterpret_cast<uint4*>(at.slot);
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j)
      to[key_offset<kHeadDim>(at.first, tile, j)] = unit.keys[tile][j];
  }
}
template <int kHeadDim>
__device__ void store_values(const UnitPlace& at, const Unit<kHeadDim>& unit) {
  auto* to = reinterpret_cast<uint4*>(at.slot);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < kHeadDim / 64; ++j)
      to[value_offset<kHeadDim>(at.first, i, j)] = unit.values[i][j];
  }
}

__device__ uint32_t halves(float low, float high) {
  return pack(__float2half_rn(low), __float2half_rn(high));
}

/// Adds weights x values. A product takes keys in pairs: the low or the high halves of two keys'
/// registers make the right operand for dimension 8 (lane / 4) + d of 64, so that product d has
/// dimensions d, d + 8, d + 16, ...
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

/// Takes a unit's logits into the running softmax and returns the keys' weights.
template <int kHeadDim>
__device__ uint4 take_logits(float4 (&logits)[2], const Unit<kHeadDim>& unit, float scale,
                             State<kHeadDim>& state) {
  float peak_low = state.peak_low;
  float peak_high = state.peak_high;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    logits[tile].x = fmaf(logits[tile].x, scale, kLog2E * unit.bias[tile].x);
    logits[tile].y = fmaf(logits[tile].y, scale, kLog2E * unit.bias[tile].y);
    logits[tile].z = fmaf(logits[tile].z, scale, kLog2E * unit.bias[tile].x);
    logits[tile].w = fmaf(logits[tile].w, scale, kLog2E * unit.bias[tile].y);
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
  return {halves(logits[0].x, logits[0].y), halves(logits[0].z, logits[0].w),
          halves(logits[1].x, logits[1].y), halves(logits[1].z, logits[1].w)};
}

/// What the warps have, to be joined to the sums of one part.
template <int kHeadDim>
struct WarpSums {
  static constexpr int kPitch = kHeadDim + 4;  // so that rows start in different banks
  float sums[kWarps][kTileHeads][kPitch];
  PartTotal totals[kWarps][kTileHeads];
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

/// kFetches: some blocks of the list may have to come from the host.
template <int kHeadDim, bool kFetches>
__global__ void __launch_bounds__(kThreads, 1) attend_blocks_kernel(AttendBlocksParams p) {
  __shared__ QueryTile<kHeadDim> queries;
  extern __shared__ float4 dynamic[];
  auto& all = *reinterpret_cast<WarpSums<kHeadDim>*>(dynamic);
  const int n_group = p.n_heads / p.n_kv_heads;
  const int n_tiles = (n_group + kTileHeads - 1) / kTileHeads;
  const int first_head = blockIdx.y % n_tiles * kTileHeads;
  const int n_heads = min(n_group - first_head, kTileHeads);
  Row row;
  row.idx = blockIdx.z;
  row.head = blockIdx.y / n_tiles;
  row.place = read_place(p.rows, row.idx);
  begin_kernel();
  const int n_entries =
      p.selected != nullptr ? p.n_selected[row.idx * p.n_kv_heads + row.head] : row.place.n_blocks;

  // Part i has entries i, i + n_parts, ...; a warp has the same quarter of every second one of
  // those.
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int first_key = warp % kBlockUnits * kUnitKeys;
  const int pitch = kBlocksAtOnce * int(gridDim.x);
  const int base = blockIdx.x + warp / kBlockUnits * int(gridDim.x);
  Entry mine = entry_at(p, row, base + pitch * lane);
  if (row.place.lane < 0) return;  // Not before the list is on its way.
  Unit<kHeadDim> unit;
  UnitPlace at = place_of_unit(p, row, broadcast(mine, 0), first_key);
  load_keys<kHeadDim, kFetches>(at, unit);
  load_values<kHeadDim, kFetches>(at, unit);
  load_queries<kHeadDim, kThreads>(
      queries, p.q + row.idx * p.q_stride + (size_t(row.head) * n_group + first_head) * kHeadDim,
      n_heads);
  __syncthreads();  // The queries are in place.

  State<kHeadDim> state = {};
  state.peak_low = state.peak_high = -INFINITY;
  const int n_mine = max(0, (n_entries - base + pitch - 1) / pitch);
  for (int i = 0; i < n_mine; ++i) {
    float4 logits[2] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
    multiply<kHeadDim, 2>(queries, unit.keys, logits);
    const uint4 weights = take_logits<kHeadDim>(logits, unit, p.scale * kLog2E, state);
    if (kFetches && at.slot != nullptr) {
      store_keys<kHeadDim>(at, unit);
      store_values<kHeadDim>(at, unit);
    }
    // The next unit's keys come while this one's values are weighed, its values while its keys are
    // multiplied.
    const int next = i + 1;
    if (next < n_mine) {
      if (next % kWarp == 0) mine = entry_at(p, row, base + pitch * (next + lane));
      at = place_of_unit(p, row, broadcast(mine, next % kWarp), first_key);
      load_keys<kHeadDim, kFetches>(at, unit);
    }
    weigh<kHeadDim>(weights, unit, state);
    if (next < n_mine) load_values<kHeadDim, kFetches>(at, unit);
  }
  put_state<kHeadDim>(state, all);
  __syncthreads();  // All warps' sums are there.

  // Join the warps, in order.
  constexpr int kQuads = kHeadDim / 4;
  constexpr int kHeadsAtOnce = kThreads / kQuads;
  const int quad = threadIdx.x % kQuads;
  const PartsView parts(p.parts, int(gridDim.z), p.n_heads);
  for (int h = threadIdx.x / kQuads; h < n_heads; h += kHeadsAtOnce) {
    float highest = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, all.totals[w][h].peak);
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = highest == -INFINITY ? 0.0f : exp2f(all.totals[w][h].peak - highest);
      const float4 part = *reinterpret_cast<const float4*>(&all.sums[w][h][4 * quad]);
      sum.x += weight * part.x;
      sum.y += weight * part.y;
      sum.z += weight * part.z;
      sum.w += weight * part.w;
      total += weight * all.totals[w][h].total;
    }
    const size_t at =
        (size_t(row.idx) * p.n_heads + size_t(row.head) * n_group + first_head + h) * kPartsMax +
        blockIdx.x;
    reinterpret_cast<float4*>(parts.sums + at * kHeadDim)[quad] = sum;
    if (quad == 0) parts.totals[at] = {highest, total};
  }
}

template <int kHeadDim, bool kFetches>
cudaError_t launch_attend(const AttendBlocksParams& p, cudaStream_t stream) {
  const auto kernel = attend_blocks_kernel<kHeadDim, kFetches>;
  constexpr size_t shared_bytes = sizeof(WarpSums<kHeadDim>);
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kernel, shared_bytes); error != cudaSuccess) return error;
  const int n_tiles = (p.n_heads / p.n_kv_heads + kTileHeads - 1) / kTileHeads;
  const int n_rows = p.rows.n_seqs * p.rows.n_queries;
  int n_parts = 0;
  const cudaError_t error = part_count(n_rows * p.n_kv_heads * n_tiles, &n_parts);
  if (error != cudaSuccess) return error;
  return launch(kernel, dim3(n_parts, p.n_kv_heads * n_tiles, n_rows), kThreads, shared_bytes,
                stream, p);
}

}  // namespace

cudaError_t part_count(int n_groups, int* n_parts) {
  struct Machine {
    cudaError_t error;
    int n_processors;
  };
  static const Machine machine = [] {
    int device = 0, n_processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
    return Machine{error, n_processors};
  }();
  int n = 1;
  while (n < kPartsMax && 2 * n * n_groups <= machine.n_processors) n *= 2;
  *n_parts = n;
  return machine.error;
}

size_t attention_parts_bytes(int n_rows, int n_heads, int head_dim) {
  return size_t(n_rows) * n_heads * kPartsMax *
         (sizeof(PartTotal) + size_t(head_dim) * sizeof(float));
}

cudaError_t attend_blocks(const AttendBlocksParams& p, cudaStream_t stream) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax)
    return cudaErrorInvalidValue;
  if (p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0 || p.n_heads / p.n_kv_heads > kGroupMax) {
    return cudaErrorInvalidValue;
  }
  if (p.q_stride % 2 != 0 || (p.selected == nullptr) != (p.n_selected == nullptr))
    return cudaErrorInvalidValue;
  if (p.pages.base != nullptr && p.rows.n_queries > 1) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  const bool fetches = p.pages.base != nullptr;
  switch (p.head_dim) {
    case 64:
      return fetches ? launch_attend<64, true>(p, stream) : launch_attend<64, false>(p, stream);
    case 128:
      return fetches ? launch_attend<128, true>(p, stream) : launch_attend<128, false>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nosa::cuda
