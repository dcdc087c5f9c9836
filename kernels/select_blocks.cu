// One thread block a stream: sequence and KV head. Everything is small (2,048 scores at 128 k tokens), so the cost is
// the number of barriers: forced and open blocks become bitmaps by ballots, the query's picks fall out of one
// histogram (top_blocks.cuh), the eviction picks out of a scan, and victims get their rank by counting.
#include "select_blocks.h"

#include "common/eviction_pool.cuh"
#include "common/launch.cuh"
#include "common/top_blocks.cuh"

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
  int n_open;
  int n_forced;
  int list[kSlotsMax];          // blocks, ascending
  int list_slots[kSlotsMax];    // their slots
  uint32_t slot_ages[kSlotsMax];
  int victims[kSlotsMax];
};

struct Stream {
  SeqStep seq;
  int seq_idx;
  int head;
  int n_attended;
  size_t idx;  // of the lane's streams
};

/// What one row chooses from.
struct RowView {
  int own;
  int window_begin;  // own blocks from here on are forced
  int n_blocks;
};

__device__ bool has(const uint32_t* words, int block) { return (words[block / 32] >> (block % 32) & 1) != 0; }
__device__ void add(uint32_t* words, int block) { atomicOr(&words[block / 32], 1u << (block % 32)); }

/// Puts the own block next in line into the ranking, whose entries rank by score, then by index.
__device__ void rank_own_block(const SelectBlocksParams& p, const Stream& stream, int own_block, int n_own_tokens) {
  int32_t* blocks = p.ranking.blocks + stream.idx * p.ranking.capacity;
  float* scores = p.ranking.scores + stream.idx * p.ranking.capacity;
  const int block = stream.n_attended + own_block;
  const float score = pooled_score(p.blocks, p.side_car, stream.seq.lane, stream.head, stream.n_attended, n_own_tokens, block);
  const uint64_t key = ranked_key(ordered(score), block);
  const int n = p.ranking.n_entries[stream.idx];
  const int i = threadIdx.x;
  int moved_block = 0;
  float moved_score = 0.0f;
  bool after = false;
  if (i < n) {
    moved_block = blocks[i];
    moved_score = scores[i];
    after = ranked_key(ordered(moved_score), moved_block) < key;
  }
  const int place = __syncthreads_count(i < n && !after);  // Everybody has read before anybody writes.
  if (after && i + 1 < p.ranking.capacity) {
    blocks[i + 1] = moved_block;
    scores[i + 1] = moved_score;
  }
  if (i == 0) {
    if (place < p.ranking.capacity) {
      blocks[place] = block;
      scores[place] = score;
    }
    p.ranking.n_entries[stream.idx] = min(n + 1, p.ranking.capacity);
    p.ranking.n_own[stream.idx] = own_block + 1;
  }
  __syncthreads();  // The ranking is whole again.
}

/// Open and forced blocks into s.open and s.taken, scores of the others into `keys`.
__device__ void look_at_blocks(const SelectBlocksParams& p, const Stream& stream, const RowView& row, int row_idx,
                               Shared& s, uint32_t* keys) {
  const BlockInfo* info = p.blocks.info + size_t(stream.seq.lane) * p.blocks.n_blocks_max;
  const float2* best = p.best + (size_t(row_idx) * p.n_kv_heads + stream.head) * p.blocks.n_blocks_max;
  const int window = stream.n_attended + row.window_begin;
  const int n_sink = min(p.sink_blocks, window);
  const bool scored = row.n_blocks > p.total_blocks;
  for (int first = 0; first < row.n_blocks; first += kSelectThreads) {
    const int b = first + threadIdx.x;
    const bool there = b < row.n_blocks;
    const BlockInfo of = there ? info[b] : BlockInfo{0, 0, 1, 0};
    const bool open = there && of.masked == 0;
    const bool forced = open && (b < n_sink || b >= window || of.pinned != 0);
    const unsigned open_word = __ballot_sync(kAllLanes, open);
    const unsigned forced_word = __ballot_sync(kAllLanes, forced);
    if (threadIdx.x % kWarp == 0 && there) {
      s.open[b / 32] = open_word;
      s.taken[b / 32] = forced_word;
      atomicAdd(&s.n_open, __popc(open_word));
      atomicAdd(&s.n_forced, __popc(forced_word));
    }
    if (!there || !scored) continue;
    const float score = b > 0 ? fmaxf(best[b].x, best[b - 1].y) : best[b].x;
    keys[b] = open && !forced ? ordered(score) : 0;
  }
}

__device__ void take_best(const RowView& row, int n_picks, int n_candidates, Shared& s, const uint32_t* keys) {
  if (n_picks <= 0 || n_candidates <= 0) return;
  const uint64_t border = n_picks < n_candidates ? border_key(keys, row.n_blocks, n_picks, s.top) : 0;
  for (int b = threadIdx.x; b < row.n_blocks; b += kSelectThreads) {
    if (keys[b] != 0 && ranked_key(keys[b], b) >= border) add(s.taken, b);
  }
}

__device__ void take_by_eviction(const SelectBlocksParams& p, const Stream& stream, int n_picks, Shared& s) {
  if (n_picks <= 0) return;
  const int n = p.ranking.n_entries[stream.idx];
  const int rank = threadIdx.x;
  const int block = rank < n ? p.ranking.blocks[stream.idx * p.ranking.capacity + rank] : 0;
  const bool is_free = rank < n && !has(s.taken, block);
  int total;
  const int before = exclusive_scan<kSelectThreads>(is_free ? 1 : 0, s.scan, total);
  if (is_free && before < n_picks) add(s.taken, block);
}

/// The set bits of `words` in order, into `list`, which holds `room`; returns how many there are.
__device__ int list_bits(const uint32_t* words, int n_blocks, int* list, int room, int* scan) {
  const int n_words = (n_blocks + 31) / 32;
  uint32_t word = int(threadIdx.x) < n_words ? words[threadIdx.x] : 0;
  int total;
  int at = exclusive_scan<kSelectThreads>(__popc(word), scan, total);
  for (; word != 0; word &= word - 1, ++at) {
    if (at < room) list[at] = int(threadIdx.x) * 32 + __ffs(word) - 1;
  }
  __syncthreads();  // The list is whole.
  return total;
}

/// Chooses for one row, into s.taken.
__device__ void choose(const SelectBlocksParams& p, const Stream& stream, const RowView& row, int row_idx, Shared& s,
                       uint32_t* keys) {
  if (threadIdx.x == 0) s.n_open = s.n_forced = 0;
  __syncthreads();  // The counts are zero, and the row before is done with keys and bitmaps.
  look_at_blocks(p, stream, row, row_idx, s, keys);
  __syncthreads();  // Bitmaps and keys are there.
  if (s.n_open <= p.total_blocks) {
    for (int w = threadIdx.x; w < (row.n_blocks + 31) / 32; w += kSelectThreads) s.taken[w] = s.open[w];
    __syncthreads();  // All open blocks are taken.
    return;
  }
  if (p.by_eviction) {
    for (int b = p.ranking.n_own[stream.idx]; b < row.window_begin; ++b) rank_own_block(p, stream, b, row.own + 1);
  }
  const int n_left = max(p.total_blocks - s.n_forced, 0);
  const int n_query = p.by_eviction ? min(p.query_picks, n_left) : n_left;
  take_best(row, n_query, s.n_open - s.n_forced, s, keys);
  __syncthreads();  // The query's picks are taken.
  if (p.by_eviction) take_by_eviction(p, stream, n_left - n_query, s);
  __syncthreads();  // The choice is made.
}

/// Gives every block of s.list[0 .. n) a slot, into s.list_slots, and lists what must be loaded.
__device__ void place(const SelectBlocksParams& p, const Stream& stream, int n, Shared& s) {
  int16_t* slot_of_block = p.slots.slot_of_block + stream.idx * p.blocks.n_blocks_max;
  int32_t* block_of_slot = p.slots.block_of_slot + stream.idx * p.slots.n_slots;
  uint32_t* last_step = p.slots.last_step + stream.idx * p.slots.n_slots;
  const uint32_t step = *p.step;

  const int i = threadIdx.x;
  const int block = i < n ? s.list[i] : -1;
  int slot = i < n ? slot_of_block[block] : 0;
  if (slot >= 0 && i < n) last_step[slot] = step;
  int n_missing;
  const int missing = exclusive_scan<kSelectThreads>(slot < 0 ? 1 : 0, s.scan, n_missing);
  const size_t loads = size_t(stream.seq_idx) * p.n_kv_heads + stream.head;
  if (i == 0) {
    p.n_loads[loads] = n_missing;
    if (n_missing > 0) atomicAdd(&p.n_loads_total[stream.seq.lane], static_cast<unsigned long long>(n_missing));
  }
  if (n_missing > 0) {
    // Ages: 0 for an empty slot, the highest for one that this step uses. exclusive_scan's barriers came after the stamps.
    for (int j = i; j < p.slots.n_slots; j += kSelectThreads) {
      const uint32_t used = last_step[j];
      s.slot_ages[j] = block_of_slot[j] < 0 ? 0 : used == step ? 0xffffffffu : used + 1;
      s.victims[j] = -1;
    }
    __syncthreads();  // All ages are there.
    for (int j = i; j < p.slots.n_slots; j += kSelectThreads) {
      const uint32_t age = s.slot_ages[j];
      if (age == 0xffffffffu) continue;
      int rank = 0;
      for (int k = 0; k < p.slots.n_slots; ++k) {
        rank += s.slot_ages[k] < age || (s.slot_ages[k] == age && k < j) ? 1 : 0;
      }
      if (rank < n_missing) s.victims[rank] = j;
    }
    __syncthreads();  // The victims are known.
    if (slot < 0) {
      slot = missing < p.slots.n_slots ? s.victims[missing] : -1;
      if (slot >= 0) {
        const int previous = block_of_slot[slot];
        if (previous >= 0) slot_of_block[previous] = -1;
        block_of_slot[slot] = block;
        slot_of_block[block] = int16_t(slot);
        last_step[slot] = step;
        const size_t at = loads * p.slots.n_slots + missing;
        p.load_pages[at] = p.blocks.pages[size_t(stream.seq.lane) * p.blocks.n_blocks_max + block];
        p.load_slots[at] = slot;
      } else {
        *p.failed = 1;
      }
    }
  }
  if (i < n) s.list_slots[i] = slot;
  __syncthreads();  // Every block of the list has its slot, in shared memory and in slot_of_block.
}

__global__ void __launch_bounds__(kSelectThreads) select_blocks_kernel(SelectBlocksParams p) {
  extern __shared__ uint32_t dynamic[];
  auto& s = *reinterpret_cast<Shared*>(dynamic);
  uint32_t* keys = dynamic + sizeof(Shared) / sizeof(uint32_t);  // [n_blocks_max]
  begin_kernel();
  Stream stream;
  stream.seq_idx = blockIdx.y;
  stream.head = blockIdx.x;
  stream.seq = read_seq(p.rows, stream.seq_idx);
  if (stream.seq.n_new <= 0) {
    if (threadIdx.x == 0 && p.slots.n_slots > 0) p.n_loads[stream.seq_idx * p.n_kv_heads + stream.head] = 0;
    return;
  }
  stream.n_attended = p.blocks.n_attended[stream.seq.lane];
  stream.idx = size_t(stream.seq.lane) * p.n_kv_heads + stream.head;
  const int32_t* pages = p.blocks.pages + size_t(stream.seq.lane) * p.blocks.n_blocks_max;
  for (int w = threadIdx.x; w < kWords; w += kSelectThreads) s.wanted[w] = 0;

  int n_blocks = 0;
  for (int t = 0; t < stream.seq.n_new; ++t) {
    const int row_idx = stream.seq_idx * p.rows.n_queries + t;
    RowView row;
    row.own = stream.seq.first_own + t;
    row.window_begin = max(0, row.own / kBlockTokens + 1 - p.window_blocks);
    row.n_blocks = n_blocks = stream.n_attended + row.own / kBlockTokens + 1;
    choose(p, stream, row, row_idx, s, keys);

    const size_t list = size_t(row_idx) * p.n_kv_heads + stream.head;
    const int n = list_bits(s.taken, row.n_blocks, s.list, kSlotsMax, s.scan);
    const int n_kept = min(n, p.n_selected_max);
    if (threadIdx.x == 0) {
      p.n_chosen[list] = n_kept;
      if (n > n_kept) *p.failed = 1;
    }
    for (int i = threadIdx.x; i < n_kept; i += kSelectThreads) {
      p.chosen[list * p.n_selected_max + i] = s.list[i];
      if (p.slots.n_slots == 0) p.indices[list * p.n_selected_max + i] = pages[s.list[i]];
    }
    for (int w = threadIdx.x; w < (row.n_blocks + 31) / 32; w += kSelectThreads) s.wanted[w] |= s.taken[w];
  }
  if (p.slots.n_slots == 0) return;

  __syncthreads();  // `wanted` is whole.
  const int n_wanted = list_bits(s.wanted, n_blocks, s.list, p.slots.n_slots, s.scan);
  if (n_wanted > p.slots.n_slots && threadIdx.x == 0) *p.failed = 1;
  place(p, stream, min(n_wanted, p.slots.n_slots), s);
  const int16_t* slot_of_block = p.slots.slot_of_block + stream.idx * p.blocks.n_blocks_max;
  for (int t = 0; t < stream.seq.n_new; ++t) {
    const size_t list = (size_t(stream.seq_idx) * p.rows.n_queries + t) * p.n_kv_heads + stream.head;
    const int n = p.n_chosen[list];
    for (int i = threadIdx.x; i < n; i += kSelectThreads) {
      const size_t at = list * p.n_selected_max + i;
      p.indices[at] = stream.seq.n_new == 1 ? s.list_slots[i] : slot_of_block[p.chosen[at]];
    }
  }
}

bool valid(const SelectBlocksParams& p) {
  if (p.rows.n_seqs < 0 || p.rows.n_queries < 1 || p.rows.n_queries > kQueriesMax) return false;
  if (p.n_kv_heads < 1 || p.blocks.n_blocks_max < 1 || p.blocks.n_blocks_max > kBlocksMax) return false;
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
  constexpr size_t most = sizeof(Shared) + kBlocksMax * sizeof(uint32_t);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(select_blocks_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(most));
  if (allowed != cudaSuccess) return allowed;
  const size_t shared_bytes = sizeof(Shared) + size_t(p.blocks.n_blocks_max) * sizeof(uint32_t);
  return launch(select_blocks_kernel, dim3(p.n_kv_heads, p.rows.n_seqs), kSelectThreads, shared_bytes, stream, p);
}

}  // namespace nosa::cuda
