// One thread block a stream: sequence and KV head. Everything is small (2,048 scores at 128 k
// tokens), so the cost is the number of barriers: forced and open blocks become bitmaps by ballots,
// the query's picks fall out of one histogram (top_blocks.cuh), the eviction picks out of a scan,
// and slots are in the order of their last use before anything is chosen. What does not depend on the
// scores is looked up while the kernel before still runs.
#include <algorithm>

#include "common/eviction_pool.cuh"
#include "common/launch.cuh"
#include "common/top_blocks.cuh"
#include "select_blocks.h"

namespace nosa::cuda {
namespace {

constexpr int kWords = kBlocksMax / 32;
static_assert(kWords <= kSelectThreads, "a thread a word");

struct Shared {
  uint32_t open[kWords];    // not masked
  uint32_t taken[kWords];   // chosen by the row at hand
  uint32_t wanted[kWords];  // chosen by any row of the stream
  TopScratch top;
  int scan[kSelectThreads / kWarp];
  unsigned free_entries[kSelectThreads / kWarp];
  unsigned missing[kSelectThreads / kWarp];
  unsigned available[kSelectThreads / kWarp];
  int n_open;
  int n_forced;
  int list[kSlotsMax];        // blocks, ascending
  uint32_t ages[kSlotsMax];   // of slots
  int block_of[kSlotsMax];    // of slots
  bool in_use[kSlotsMax];     // of slots: chosen again
  int16_t by_age[kSlotsMax];  // slots, longest unused first
  int victims[kSlotsMax];
};

/// What is known of the stream's blocks before they are scored, each [n_blocks_max]: a copy in shared memory where there is
/// room, else the stream's own.
struct Known {
  const int32_t* pages;
  const uint32_t* info;  // BlockInfo
  const int16_t* slots;  // with slots

  __device__ BlockInfo info_of(int block) const {
    const uint32_t word = info[block];
    return {uint8_t(word), uint8_t(word >> 8), uint8_t(word >> 16), uint8_t(word >> 24)};
  }
};
static_assert(sizeof(BlockInfo) == sizeof(uint32_t));
constexpr size_t kKnownBytes = sizeof(int32_t) + sizeof(uint32_t) + sizeof(int16_t);

/// The stream, and what this thread will need of its state: loaded before anything is decided,
/// because what counts is how many loads wait for one another.
struct Stream {
  int lane;
  int seq;
  int head;
  int n_attended;
  size_t idx;  // of the lane's streams
  uint32_t step;
  int n_own_ranked;
  int n_ranked;
  int ranked_block;    // entry threadIdx.x of the ranking
  int block_of_slot;   // of slot threadIdx.x
  uint32_t last_step;  // likewise
};

/// What one row chooses from.
struct RowView {
  int idx;
  int own;
  int window_begin;  // own blocks from here on are forced
  int n_blocks;
};
static_assert(kSlotsMax <= kSelectThreads && kSelectedMax <= kSelectThreads,
              "a thread a slot, a thread an entry");

__device__ bool has(const uint32_t* words, int block) {
  return (words[block / 32] >> (block % 32) & 1) != 0;
}
__device__ void add(uint32_t* words, int block) {
  atomicOr(&words[block / 32], 1u << (block % 32));
}

/// Puts the own block next in line into the ranking, whose entries rank by score, then by index.
__device__ void rank_own_block(const SelectBlocksParams& p, Stream& stream, int own_block,
                               int n_own_tokens) {
  int32_t* blocks = p.ranking.blocks + stream.idx * p.ranking.capacity;
  float* scores = p.ranking.scores + stream.idx * p.ranking.capacity;
  const int block = stream.n_attended + own_block;
  const float score = pooled_score(p.blocks, p.side_car, stream.lane, stream.head,
                                   stream.n_attended, n_own_tokens, block);
  const uint64_t key = ranked_key(ordered(score), block);
  const int n = stream.n_ranked;
  const int i = threadIdx.x;
  const int moved_block = stream.ranked_block;
  float moved_score = 0.0f;
  bool after = false;
  if (i < n) {
    moved_score = scores[i];
    after = ranked_key(ordered(moved_score), moved_block) < key;
  }
  const int place =
      __syncthreads_count(i < n && !after);  // Everybody has read before anybody writes.
  if (after && i + 1 < p.ranking.capacity) {
    blocks[i + 1] = moved_block;
    scores[i + 1] = moved_score;
  }
  stream.n_ranked = min(n + 1, p.ranking.capacity);
  stream.n_own_ranked = own_block + 1;
  if (i == 0) {
    if (place < p.ranking.capacity) {
      blocks[place] = block;
      scores[place] = score;
    }
    p.ranking.n_entries[stream.idx] = stream.n_ranked;
    p.ranking.n_own[stream.idx] = stream.n_own_ranked;
  }
  __syncthreads();  // The ranking is whole again.
  if (i < stream.n_ranked) stream.ranked_block = blocks[i];
}

constexpr int kAtOnce = 4;  // blocks of a thread whose loads wait together

/// Copies what is known of the first `n` blocks to `copy`. To be synchronised.
__device__ Known look_up(const Known& known, int n, int n_max, bool has_slots, uint32_t* copy) {
  auto* copied_pages = reinterpret_cast<int32_t*>(copy);
  uint32_t* copied_info = copy + n_max;
  auto* copied_slots = reinterpret_cast<int16_t*>(copied_info + n_max);
  for (int first = threadIdx.x; first < n; first += kAtOnce * kSelectThreads) {
    int32_t pages[kAtOnce];
    uint32_t infos[kAtOnce];
    int16_t slots[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int b = min(first + i * kSelectThreads, n - 1);
      // Past the first-level cache, which may hold what a step before left.
      pages[i] = __ldcg(known.pages + b);
      infos[i] = __ldcg(known.info + b);
      slots[i] = has_slots ? __ldcg(known.slots + b) : int16_t(-1);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int b = first + i * kSelectThreads;
      if (b >= n) break;
      copied_pages[b] = pages[i];
      copied_info[b] = infos[i];
      copied_slots[b] = slots[i];
    }
  }
  return {copied_pages, copied_info, copied_slots};
}

/// Slots in the order of their last use: into s.by_age. To be synchronised.
__device__ void order_slots(const SelectBlocksParams& p, const Stream& stream, Shared& s) {
  constexpr uint32_t kInUse =
      0xffffffffu;  // as an age; 0 is an empty slot, else one more than the step of the last use
  const int i = threadIdx.x;
  if (i < p.slots.n_slots) {
    s.ages[i] = stream.block_of_slot < 0          ? 0
                : stream.last_step == stream.step ? kInUse
                                                  : stream.last_step + 1;
    s.in_use[i] = s.ages[i] == kInUse;
    s.block_of[i] = stream.block_of_slot;
    s.victims[i] = -1;
  }
  __syncthreads();  // All ages are there.
  if (i >= p.slots.n_slots) return;
  const uint32_t age = s.ages[i];
  int rank = 0;
  for (int k = 0; k < p.slots.n_slots; ++k)
    rank += s.ages[k] < age || (s.ages[k] == age && k < i) ? 1 : 0;
  s.by_age[rank] = int16_t(i);
}

/// Open and forced blocks into s.open and s.taken, scores of the others into `keys`, counted.
__device__ void look_at_blocks(const SelectBlocksParams& p, const Stream& stream,
                               const RowView& row, Shared& s, uint32_t* keys, const Known& known) {
  const float2* best =
      p.best + (size_t(row.idx) * p.n_kv_heads + stream.head) * p.blocks.n_blocks_max;
  const int window = stream.n_attended + row.window_begin;
  const int n_sink = min(p.sink_blocks, window);
  const bool scored = row.n_blocks > p.total_blocks;
  const int lane = threadIdx.x % kWarp;
  for (int first = 0; first < row.n_blocks; first += kAtOnce * kSelectThreads) {
    BlockInfo infos[kAtOnce];
    float2 scores[kAtOnce];
    float last_before[kAtOnce];  // lane 0's neighbour below is another warp's
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int b = first + i * kSelectThreads + int(threadIdx.x);
      const bool there = b < row.n_blocks;
      infos[i] = there ? known.info_of(b) : BlockInfo{0, 0, 1, 0};
      scores[i] = there && scored ? best[b] : float2{-INFINITY, -INFINITY};
      last_before[i] = there && scored && lane == 0 && b > 0 ? best[b - 1].y : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int b = first + i * kSelectThreads + int(threadIdx.x);
      if (b - lane >= row.n_blocks) break;  // the whole warp
      const bool there = b < row.n_blocks;
      const bool open = there && infos[i].masked == 0;
      const bool forced = open && (b < n_sink || b >= window || infos[i].pinned != 0);
      const unsigned open_word = __ballot_sync(kAllLanes, open);
      const unsigned forced_word = __ballot_sync(kAllLanes, forced);
      const float below = __shfl_up_sync(kAllLanes, scores[i].y, 1);
      if (lane == 0) {
        s.open[b / 32] = open_word;
        s.taken[b / 32] = forced_word;
        atomicAdd(&s.n_open, __popc(open_word));
        if (forced_word != 0) atomicAdd(&s.n_forced, __popc(forced_word));
      }
      if (!there || !scored) continue;
      const bool candidate = open && !forced;
      keys[b] = candidate ? ordered(fmaxf(scores[i].x, lane == 0 ? last_before[i] : below)) : 0;
      if (candidate) count_key(keys[b], s.top);
    }
  }
}

__device__ void take_best(const RowView& row, int n_picks, int n_candidates, Shared& s,
                          const uint32_t* keys) {
  if (n_picks <= 0 || n_candidates <= 0) return;
  const uint64_t border =
      n_picks < n_candidates ? border_key(keys, row.n_blocks, n_picks, s.top) : 0;
  for (int b = threadIdx.x; b < row.n_blocks; b += kSelectThreads) {
    if (keys[b] != 0 && ranked_key(keys[b], b) >= border) add(s.taken, b);
  }
}

__device__ void take_by_eviction(const SelectBlocksParams& p, const Stream& stream, int n_picks,
                                 Shared& s) {
  if (n_picks <= 0) return;
  const bool is_free = int(threadIdx.x) < stream.n_ranked && !has(s.taken, stream.ranked_block);
  int total;
  const int before = exclusive_count<kSelectThreads>(is_free, s.free_entries, total);
  if (is_free && before < n_picks) add(s.taken, stream.ranked_block);
}

/// The set bits of `words` in order, into `list`, which holds `room`; returns how many there are.
__device__ int list_bits(const uint32_t* words, int n_blocks, int* list, int room, int* scan) {
  const int n_words = (n_blocks + 31) / 32;
  uint32_t word = int(threadIdx.x) < n_words ? words[threadIdx.x] : 0;
  int total;
  int at = exclusive_scan<kSelectThreads>(__popc(word), scan, total);
  for (; word != 0; word &= word - 1, ++at) {
    if (at < room) list[at] = int(threadIdx.x) * 32 + __ffs(int(word)) - 1;
  }
  __syncthreads();  // The list is whole.
  return total;
}

/// To be synchronised before a row is chosen for.
__device__ void clear(Shared& s) {
  clear_counts(s.top);
  if (threadIdx.x == 0) s.n_open = s.n_forced = 0;
}

/// Chooses for one row, into s.taken. REQUIRES: counts are clear.
__device__ void choose(const SelectBlocksParams& p, Stream& stream, const RowView& row, Shared& s,
                       uint32_t* keys, const Known& known) {
  look_at_blocks(p, stream, row, s, keys, known);
  __syncthreads();  // Bitmaps and keys are there.
  if (s.n_open <= p.total_blocks) {
    for (int w = threadIdx.x; w < (row.n_blocks + 31) / 32; w += kSelectThreads)
      s.taken[w] = s.open[w];
    __syncthreads();  // All open blocks are taken.
    return;
  }
  if (p.by_eviction) {
    for (int b = stream.n_own_ranked; b < row.window_begin; ++b)
      rank_own_block(p, stream, b, row.own + 1);
  }
  const int n_left = max(p.total_blocks - s.n_forced, 0);
  const int n_query = p.by_eviction ? min(p.query_picks, n_left) : n_left;
  take_best(row, n_query, s.n_open - s.n_forced, s, keys);
  __syncthreads();  // The query's picks are taken.
  if (p.by_eviction) take_by_eviction(p, stream, n_left - n_query, s);
  __syncthreads();  // The choice is made.
}

/// Tokens of `block` that a query at own token `own` sees.
__device__ int tokens_seen(const Stream& stream, int own, int block, const Known& known) {
  if (block < stream.n_attended) return known.info_of(block).n_tokens;
  return min(kBlockTokens, own + 1 - (block - stream.n_attended) * kBlockTokens);
}

/// Gives every block of s.list[0 .. n) a slot and lists what must be loaded. When the list is one
/// row's, whose token is `own`, writes it to `selected` as well. REQUIRES: slots are in order.
__device__ void place(const SelectBlocksParams& p, const Stream& stream, int n, int own,
                      int4* selected, Shared& s, const Known& known) {
  int16_t* slot_of_block = p.slots.slot_of_block + stream.idx * p.blocks.n_blocks_max;
  int32_t* block_of_slot = p.slots.block_of_slot + stream.idx * p.slots.n_slots;
  uint32_t* last_step = p.slots.last_step + stream.idx * p.slots.n_slots;

  const int i = threadIdx.x;
  const int block = i < n ? s.list[i] : 0;
  int slot = i < n ? known.slots[block] : 0;
  const int page = i < n ? known.pages[block] : 0;
  const int n_seen = i < n ? tokens_seen(stream, own, block, known) : 0;
  if (i < n && slot >= 0) {
    last_step[slot] = stream.step;
    s.in_use[slot] = true;
  }
  int n_missing;
  const bool fetch = slot < 0;
  const int missing = exclusive_count<kSelectThreads>(fetch, s.missing, n_missing);
  const size_t loads = size_t(stream.seq) * p.n_kv_heads + stream.head;
  if (i == 0) {
    p.n_loads[loads] = n_missing;
    if (n_missing > 0)
      atomicAdd(&p.n_loads_total[stream.lane], static_cast<unsigned long long>(n_missing));
  }
  if (n_missing > 0) {
    // The count's barrier came after the last block that stays.
    const int oldest = i < p.slots.n_slots ? s.by_age[i] : 0;
    const bool available = i < p.slots.n_slots && !s.in_use[oldest];
    int n_available;
    const int rank = exclusive_count<kSelectThreads>(available, s.available, n_available);
    if (available && rank < n_missing) {
      s.victims[rank] = oldest;
      if (s.block_of[oldest] >= 0) slot_of_block[s.block_of[oldest]] = -1;
    }
    __syncthreads();  // The victims are known.
    if (fetch) {
      slot = missing < p.slots.n_slots ? s.victims[missing] : -1;
      if (slot >= 0) {
        block_of_slot[slot] = block;
        slot_of_block[block] = int16_t(slot);
        last_step[slot] = stream.step;
        p.load_pages[loads * p.slots.n_slots + missing] = page;
        p.load_slots[loads * p.slots.n_slots + missing] = slot;
      } else {
        *p.failed = 1;
      }
    }
  }
  if (selected != nullptr && i < min(n, p.n_selected_max))
    selected[i] = {block, slot, page, n_seen + (fetch ? kToFetch : 0)};
}

/// Writes entry `i` of a row's list; its slot follows when it is known.
__device__ void put_selected(const SelectBlocksParams& p, const Stream& stream, const RowView& row,
                             int4* selected, int i, int block, const Known& known) {
  const int page = known.pages[block];
  selected[i] = {block, p.slots.n_slots > 0 ? -1 : page, page,
                 tokens_seen(stream, row.own, block, known)};
}

__device__ int4* selected_of(const SelectBlocksParams& p, int row, int head) {
  return reinterpret_cast<int4*>(p.selected) +
         (size_t(row) * p.n_kv_heads + head) * p.n_selected_max;
}

__device__ Stream load_stream(const SelectBlocksParams& p, int seq, int head,
                              const RowPlace& first) {
  Stream stream = {};
  stream.lane = first.lane;
  stream.seq = seq;
  stream.head = head;
  stream.n_attended = first.n_attended;
  stream.idx = size_t(first.lane) * p.n_kv_heads + head;
  stream.step = __ldcg(p.step);
  const int i = threadIdx.x;
  // All past the first-level cache, which may hold what a step before left.
  if (p.by_eviction) {
    stream.n_own_ranked = __ldcg(p.ranking.n_own + stream.idx);
    stream.n_ranked = __ldcg(p.ranking.n_entries + stream.idx);
    if (i < p.ranking.capacity)
      stream.ranked_block = __ldcg(p.ranking.blocks + stream.idx * p.ranking.capacity + i);
  }
  if (i < p.slots.n_slots) {
    stream.block_of_slot = __ldcg(p.slots.block_of_slot + stream.idx * p.slots.n_slots + i);
    stream.last_step = __ldcg(p.slots.last_step + stream.idx * p.slots.n_slots + i);
  }
  return stream;
}

__global__ void __launch_bounds__(kSelectThreads) select_blocks_kernel(SelectBlocksParams p, bool copies) {
  extern __shared__ uint32_t dynamic[];
  auto& s = *reinterpret_cast<Shared*>(dynamic);
  uint32_t* keys = dynamic + sizeof(Shared) / sizeof(uint32_t);  // [n_blocks_max]
  const int seq = blockIdx.y;
  const int head = blockIdx.x;
  const int n_max = p.blocks.n_blocks_max;
  const RowPlace first = read_place(p.rows, seq * p.rows.n_queries);
  Stream stream = {};
  Known known = {};
  if (first.lane >= 0) {
    stream = load_stream(p, seq, head, first);
    const size_t of_lane = size_t(first.lane) * n_max;
    known = {p.blocks.pages + of_lane, reinterpret_cast<const uint32_t*>(p.blocks.info + of_lane),
             p.slots.slot_of_block + stream.idx * n_max};
    // Rows behind the first one may see one block more.
    if (copies) known = look_up(known, min(n_max, first.n_blocks + 1), n_max, p.slots.n_slots > 0, keys + n_max);
    if (p.slots.n_slots > 0) order_slots(p, stream, s);
    clear(s);
    __syncthreads();  // What is known is there, and the counts are zero.
  }
  begin_kernel();
  if (first.lane < 0) {
    if (threadIdx.x == 0 && p.slots.n_slots > 0) p.n_loads[seq * p.n_kv_heads + head] = 0;
    return;
  }
  for (int w = threadIdx.x; w < kWords; w += kSelectThreads) s.wanted[w] = 0;

  RowView row = {};
  int n_rows = 0;
  int n_wanted = 0;
  for (; n_rows < p.rows.n_queries; ++n_rows) {
    const RowPlace at = read_place(p.rows, seq * p.rows.n_queries + n_rows);
    if (at.lane < 0) break;
    row = {seq * p.rows.n_queries + n_rows, at.own,
           max(0, at.own / kBlockTokens + 1 - p.window_blocks), at.n_blocks};
    if (n_rows > 0) {
      clear(s);
      __syncthreads();  // The row before is done with keys and bitmaps.
    }
    choose(p, stream, row, s, keys, known);
    const int n = n_wanted = list_bits(s.taken, row.n_blocks, s.list, kSlotsMax, s.scan);
    const int n_kept =
        min(n, p.slots.n_slots > 0 ? min(p.n_selected_max, p.slots.n_slots) : p.n_selected_max);
    const size_t list = size_t(row.idx) * p.n_kv_heads + head;
    if (threadIdx.x == 0) {
      p.n_selected[list] = n_kept;
      if (n > n_kept) *p.failed = 1;
    }
    // One row that takes slots: its list is the stream's, and is written when they are known.
    if (p.slots.n_slots == 0 || p.rows.n_queries > 1) {
      int4* selected = selected_of(p, row.idx, head);
      for (int i = threadIdx.x; i < n_kept; i += kSelectThreads)
        put_selected(p, stream, row, selected, i, s.list[i], known);
    }
    for (int w = threadIdx.x; w < (row.n_blocks + 31) / 32; w += kSelectThreads)
      s.wanted[w] |= s.taken[w];
  }
  if (p.slots.n_slots == 0) return;

  if (p.rows.n_queries > 1) {
    __syncthreads();  // `wanted` is whole.
    n_wanted = list_bits(s.wanted, row.n_blocks, s.list, kSlotsMax, s.scan);
  }
  if (n_wanted > p.slots.n_slots && threadIdx.x == 0) *p.failed = 1;
  const int n_placed = min(n_wanted, p.slots.n_slots);
  if (p.rows.n_queries == 1) {
    place(p, stream, n_placed, row.own, selected_of(p, row.idx, head), s, known);
    return;
  }
  place(p, stream, n_placed, row.own, nullptr, s, known);
  __syncthreads();  // Every block has its slot.
  const int16_t* slot_of_block = p.slots.slot_of_block + stream.idx * p.blocks.n_blocks_max;
  for (int t = 0; t < n_rows; ++t) {
    const int row_idx = seq * p.rows.n_queries + t;
    int4* selected = selected_of(p, row_idx, head);
    const int n = p.n_selected[size_t(row_idx) * p.n_kv_heads + head];
    for (int i = threadIdx.x; i < n; i += kSelectThreads)
      selected[i].y = slot_of_block[selected[i].x];
  }
}

constexpr size_t kCopiesMax = 96 * 1024;  // what every GPU of ours has for a thread block
constexpr size_t least_shared_bytes(int n_blocks_max) { return sizeof(Shared) + size_t(n_blocks_max) * sizeof(uint32_t); }
constexpr size_t kSharedBytesMax = std::max(kCopiesMax, least_shared_bytes(kBlocksMax));
static_assert(kSharedBytesMax <= 99 * 1024, "what every target has");

bool valid(const SelectBlocksParams& p) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax) return false;
  if (p.n_kv_heads < 1 || p.blocks.n_blocks_max < 1 || p.blocks.n_blocks_max > kBlocksMax)
    return false;
  if (p.n_selected_max < 1 || p.n_selected_max > kSelectedMax) return false;
  if (p.total_blocks < 1 || p.total_blocks > p.n_selected_max) return false;
  if (p.sink_blocks < 0 || p.window_blocks < 1 || p.query_picks < 0) return false;
  if (p.by_eviction && (p.ranking.capacity < 1 || p.ranking.capacity > kSelectedMax)) return false;
  return p.slots.n_slots >= 0 && p.slots.n_slots <= kSlotsMax;
}

}  // namespace

cudaError_t select_blocks(const SelectBlocksParams& p, cudaStream_t stream) {
  if (!valid(p)) return cudaErrorInvalidValue;
  if (p.rows.n_seqs == 0) return cudaSuccess;
  const size_t least = least_shared_bytes(p.blocks.n_blocks_max);
  const size_t with_copies = least + size_t(p.blocks.n_blocks_max) * kKnownBytes;
  const bool copies = with_copies <= kCopiesMax;
  const size_t shared_bytes = copies ? with_copies : least;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(select_blocks_kernel, kSharedBytesMax); error != cudaSuccess) return error;
  return launch(select_blocks_kernel, dim3(p.n_kv_heads, p.rows.n_seqs), kSelectThreads,
                shared_bytes, stream, p, copies);
}

}  // namespace nosa::cuda
