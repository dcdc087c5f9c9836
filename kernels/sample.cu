// Three launches. `scan`: many blocks a row find the best scores and the sum of all exponentials, part by part.
// `gather`: with the best score known, the same blocks list what can be drawn at all: weights are fixed point, 2^40 for
// the best score, so what is far enough below it weighs nothing and is left out. `draw`: one block a row cuts and
// draws.
//
// Cuts and draw are one operation, weighted selection: of numbers in a fixed order, the first at which the running sum
// of weights reaches a target. It goes by the digits of a 64-bit key, a histogram of weights a digit. Integer sums make
// the result independent of the order in which threads come.
#include "sample.h"

#include "common/launch.cuh"
#include "common/reduce.cuh"

namespace nosa::cuda {
namespace {

constexpr int kParts = 64;  // of a row
constexpr int kScanThreads = 256;
constexpr int kDrawThreads = 1024;
constexpr int kPartIdsMax = 8192;
constexpr float kWeightOne = 1099511627776.0f;  // 2^40
constexpr float kWeightSpan = 27.8f;            // below exp(-span) a weight is less than 2^-40
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;

struct Best {
  float score;
  int id;
};

/// What `scan` leaves of each part.
struct PartStats {
  Best adjusted;  // after penalty and bans
  Best plain;
  float sum;  // of exp(score - plain.score)
  int n_candidates;
};

struct Candidate {
  float score;
  int id;
};

struct Scratch {
  PartStats* parts;       // [n_rows, kParts]
  Candidate* candidates;  // [n_rows, kParts, part_ids]
};

__host__ __device__ inline int part_ids(int n_vocab) { return (n_vocab + kParts - 1) / kParts; }

__device__ inline Best better(Best a, Best b) {
  return b.score > a.score || (b.score == a.score && b.id < a.id) ? b : a;
}

template <int kThreads>
__device__ Best block_best(Best best) {
  __shared__ Best warps[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    best = better(best, {__shfl_xor_sync(kAllLanes, best.score, step), __shfl_xor_sync(kAllLanes, best.id, step)});
  }
  __syncthreads();  // An earlier use of `warps` is over.
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = best;
  __syncthreads();  // Every warp's best is there.
  best = warps[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) best = better(best, warps[warp]);
  return best;
}

/// Which ids of a part are banned or recent.
struct Marks {
  uint32_t banned[kPartIdsMax / 32];
  uint32_t recent[kPartIdsMax / 32];

  __device__ void read(const SampleParams& p, int row, int first, int n) {
    const RowSampling& options = p.options[row];
    for (int i = threadIdx.x; i < (n + 31) / 32; i += kScanThreads) banned[i] = recent[i] = 0;
    __syncthreads();  // All marks are clear.
    const auto mark = [&](uint32_t* bits, const int32_t* ids, int n_ids) {
      for (int i = threadIdx.x; i < n_ids; i += kScanThreads) {
        const int at = ids[i] - first;
        if (at >= 0 && at < n) atomicOr(&bits[at / 32], 1u << at % 32);
      }
    };
    mark(banned, p.banned + size_t(row) * p.n_banned_max, options.n_banned);
    if (options.repetition_penalty != 1.0f) mark(recent, p.recent + size_t(row) * p.n_recent_max, options.n_recent);
    __syncthreads();  // All marks are set.
  }

  __device__ float adjusted(float score, int at, float penalty) const {
    if (banned[at / 32] >> at % 32 & 1) return -INFINITY;
    if (recent[at / 32] >> at % 32 & 1) return score > 0.0f ? score / penalty : score * penalty;
    return score;
  }
};

__global__ void __launch_bounds__(kScanThreads) scan_kernel(SampleParams p, Scratch scratch) {
  begin_kernel();
  __shared__ Marks marks;
  __shared__ float sums[kScanThreads / kWarp];
  const int row = blockIdx.y;
  const int first = blockIdx.x * part_ids(p.n_vocab);
  const int n = min(part_ids(p.n_vocab), p.n_vocab - first);
  marks.read(p, row, first, n);
  const float* logits = p.logits + size_t(row) * p.n_vocab + first;
  const float penalty = p.options[row].repetition_penalty;
  Best adjusted = {-INFINITY, p.n_vocab};
  Best plain = {-INFINITY, p.n_vocab};
  for (int i = threadIdx.x; i < n; i += kScanThreads) {
    plain = better(plain, {logits[i], first + i});
    adjusted = better(adjusted, {marks.adjusted(logits[i], i, penalty), first + i});
  }
  plain = block_best<kScanThreads>(plain);
  adjusted = block_best<kScanThreads>(adjusted);
  float sum = 0.0f;
  if (plain.score > -INFINITY) {
    for (int i = threadIdx.x; i < n; i += kScanThreads) sum += __expf(logits[i] - plain.score);
  }
  sum = block_sum<kScanThreads>(sum, sums);
  if (threadIdx.x == 0) scratch.parts[row * kParts + blockIdx.x] = {adjusted, plain, sum, 0};
}

/// The row's best score after penalty and bans; every thread of the block gets it.
__device__ Best best_adjusted(const PartStats* parts) {
  Best best = parts[0].adjusted;
  for (int i = 1; i < kParts; ++i) best = better(best, parts[i].adjusted);
  return best;
}

__global__ void __launch_bounds__(kScanThreads) gather_kernel(SampleParams p, Scratch scratch) {
  begin_kernel();
  const int row = blockIdx.y;
  const RowSampling& options = p.options[row];
  if (!(options.temperature > 0.0f)) return;
  __shared__ Marks marks;
  __shared__ int scan_scratch[kScanThreads / kWarp];
  PartStats* parts = scratch.parts + row * kParts;
  const int first = blockIdx.x * part_ids(p.n_vocab);
  const int n = min(part_ids(p.n_vocab), p.n_vocab - first);
  marks.read(p, row, first, n);
  const float* logits = p.logits + size_t(row) * p.n_vocab + first;
  // Two weights are taken: at temperature 1 for the cut, and at the row's own for the draw.
  const float lowest = best_adjusted(parts).score - kWeightSpan * fmaxf(1.0f, options.temperature);
  Candidate* out = scratch.candidates + size_t(row * kParts + blockIdx.x) * part_ids(p.n_vocab);
  int n_out = 0;
  for (int from = 0; from < n; from += kScanThreads) {
    const int i = from + int(threadIdx.x);
    const float score = i < n ? marks.adjusted(logits[i], i, options.repetition_penalty) : -INFINITY;
    const bool kept = score > -INFINITY && score >= lowest;
    int n_round;
    const int at = n_out + exclusive_scan<kScanThreads>(kept ? 1 : 0, scan_scratch, n_round);
    if (kept) out[at] = {score, first + i};
    n_out += n_round;
  }
  if (threadIdx.x == 0) parts[blockIdx.x].n_candidates = n_out;
}

/// Larger is better: the score's bits in an order of integers, then the lower id.
__device__ inline uint64_t key_of(const Candidate& c) {
  const uint32_t bits = __float_as_uint(c.score);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t(ordered) << 32 | uint32_t(~c.id);
}

__device__ inline uint64_t weight_of(float score, float best, float temperature) {
  return uint64_t(__expf((score - best) / temperature) * kWeightOne);
}

/// Sums of weights by digit, in shared memory. A sum is kept in parts of a few bits, each in a counter that the
/// hardware adds to: 2^18 additions do not overflow one.
struct DigitSums {
  static constexpr int kPartBits = 13;
  static constexpr int kSumParts = 4;
  uint32_t parts[kSumParts][kDigits];

  __device__ void clear() {
    for (int i = threadIdx.x; i < kSumParts * kDigits; i += kDrawThreads) parts[i / kDigits][i % kDigits] = 0;
  }

  __device__ void add(int digit, uint64_t weight) {
#pragma unroll
    for (int part = 0; part < kSumParts; ++part) {
      const uint64_t rest = weight >> (part * kPartBits);
      const uint32_t bits = uint32_t(part == kSumParts - 1 ? rest : rest & ((1u << kPartBits) - 1));
      if (bits != 0) atomicAdd(&parts[part][digit], bits);
    }
  }

  __device__ uint64_t sum(int digit) const {
    uint64_t sum = 0;
    for (int part = 0; part < kSumParts; ++part) sum += uint64_t(parts[part][digit]) << (part * kPartBits);
    return sum;
  }

  /// By one warp: the digit, from the top, at which the sums reach `left`, and what is left for it; kDigits when none.
  __device__ void choose(uint64_t left, uint64_t& chosen, uint64_t& rest) const {
    constexpr int kLaneDigits = kDigits / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int top = kDigits - 1 - lane * kLaneDigits;
    unsigned long long own = 0;
    for (int i = 0; i < kLaneDigits; ++i) own += sum(top - i);
    unsigned long long until = own;  // of this lane and all before it
    for (int step = 1; step < kWarp; step *= 2) {
      const unsigned long long before = __shfl_up_sync(kAllLanes, until, step);
      if (lane >= step) until += before;
    }
    const unsigned reached = __ballot_sync(kAllLanes, until >= left);
    if (reached == 0) {
      if (lane == 0) chosen = kDigits;
      return;
    }
    if (lane != __ffs(int(reached)) - 1) return;
    left -= until - own;
    int digit = top;
    while (sum(digit) < left) left -= sum(digit--);
    chosen = uint64_t(digit);
    rest = left;
  }
};

/// A row's candidates, part after part, and the shared memory to select among them.
struct Selection {
  const Candidate* candidates;
  const PartStats* parts;
  int n_part_ids;

  template <typename F>
  __device__ void each(F&& f) const {
    for (int part = threadIdx.x / kWarp; part < kParts; part += kDrawThreads / kWarp) {
      const Candidate* list = candidates + size_t(part) * n_part_ids;
      for (int i = threadIdx.x % kWarp; i < parts[part].n_candidates; i += kWarp) f(list[i]);
    }
  }

  /// The largest key at which the sum of the weights of this and all larger keys reaches `target`; 0 when none does.
  /// `key` and `weight` take a candidate; those of key 0 do not take part.
  template <typename Key, typename Weight>
  __device__ uint64_t reach(uint64_t target, Key&& key, Weight&& weight) const {
    __shared__ DigitSums sums;
    __shared__ uint64_t chosen, rest;
    uint64_t prefix = 0;
    uint64_t left = target;
    for (int shift = 64 - kDigitBits; shift >= 0; shift -= kDigitBits) {
      sums.clear();
      __syncthreads();  // The histogram is empty, and nobody reads the last digit's results any more.
      // Neighbours often share a digit, so a thread adds up what comes before the digit changes.
      int held = -1;
      uint64_t held_sum = 0;
      each([&](const Candidate& c) {
        const uint64_t k = key(c);
        if (k == 0 || (shift < 64 - kDigitBits && k >> (shift + kDigitBits) != prefix)) return;
        const int digit = int(k >> shift & (kDigits - 1));
        if (digit != held) {
          if (held >= 0) sums.add(held, held_sum);
          held = digit;
          held_sum = 0;
        }
        held_sum += weight(c);
      });
      if (held >= 0) sums.add(held, held_sum);
      __syncthreads();  // All weights are in.
      if (threadIdx.x < kWarp) sums.choose(left, chosen, rest);
      __syncthreads();  // The digit is chosen.
      if (chosen == kDigits) return 0;
      prefix = prefix << kDigitBits | chosen;
      left = rest;
    }
    return prefix;
  }

  template <typename Weight>
  __device__ uint64_t total(Weight&& weight) const {
    __shared__ unsigned long long warps[kDrawThreads / kWarp];
    unsigned long long own = 0;
    each([&](const Candidate& c) { own += weight(c); });
    for (int step = kWarp / 2; step > 0; step /= 2) own += __shfl_xor_sync(kAllLanes, own, step);
    __syncthreads();  // An earlier use of `warps` is over.
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = own;
    __syncthreads();  // Every warp's sum is there.
    uint64_t sum = 0;
    for (const unsigned long long warp : warps) sum += warp;
    return sum;
  }
};

/// A number in [0, 1), as uniform_at() of native/session/sampler.h.
__device__ double uniform_at(uint64_t seed, uint64_t position) {
  const auto mix = [](uint64_t word) {
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
  };
  const uint64_t bits = mix(mix(seed + 0x9E3779B97F4A7C15u) + position * 0xD1B54A32D192ED03u);
  return double(bits >> 11) * 0x1.0p-53;
}

__device__ int draw(const RowSampling& options, const Selection& all, Best best) {
  uint64_t lowest = 1;
  const auto kept_key = [&](const Candidate& c) {
    const uint64_t key = key_of(c);
    return key >= lowest ? key : 0;
  };
  const auto chance = [&](const Candidate& c) { return kept_key(c) == 0 ? 0 : weight_of(c.score, best.score, 1.0f); };
  if (options.top_k > 0) {
    const uint64_t key = all.reach(uint64_t(options.top_k), key_of, [](const Candidate&) { return uint64_t(1); });
    lowest = max(lowest, key);
  }
  if (options.top_p < 1.0f) {
    const double target = double(options.top_p) * double(all.total(chance));
    const uint64_t key = all.reach(max(uint64_t(1), uint64_t(ceil(target))), kept_key, chance);
    lowest = max(lowest, key);
  }
  if (options.min_p > 0.0f) {
    const float score = fminf(best.score + logf(options.min_p), best.score);
    lowest = max(lowest, key_of({score, -1}) & ~uint64_t(0xffffffff));
  }
  const auto weight = [&](const Candidate& c) {
    return kept_key(c) == 0 ? 0 : weight_of(c.score, best.score, options.temperature);
  };
  const uint64_t total = all.total(weight);
  // The first whose sum exceeds u total.
  const uint64_t target = min(uint64_t(uniform_at(options.seed, options.position) * double(total)) + 1, total);
  if (options.top_k > 0 || options.top_p < 1.0f) {
    const uint64_t key = all.reach(target, kept_key, weight);
    return key == 0 ? best.id : int(~uint32_t(key));
  }
  const auto id_key = [&](const Candidate& c) { return kept_key(c) == 0 ? 0 : uint64_t(uint32_t(~c.id)); };
  const uint64_t key = all.reach(target, id_key, weight);
  return key == 0 ? best.id : int(~uint32_t(key));
}

__global__ void __launch_bounds__(kDrawThreads) draw_kernel(SampleParams p, Scratch scratch) {
  begin_kernel();
  const int row = blockIdx.x;
  const RowSampling& options = p.options[row];
  const PartStats* parts = scratch.parts + row * kParts;
  const Best best = best_adjusted(parts);
  Best plain = parts[0].plain;
  for (int i = 1; i < kParts; ++i) plain = better(plain, parts[i].plain);
  int id = best.score > -INFINITY ? best.id : plain.id;
  if (best.score > -INFINITY && options.temperature > 0.0f) {
    const int n_ids = part_ids(p.n_vocab);
    id = draw(options, {scratch.candidates + size_t(row) * kParts * n_ids, parts, n_ids}, best);
  }
  if (threadIdx.x != 0) return;
  float sum = 0.0f;
  for (int i = 0; i < kParts; ++i) {
    if (parts[i].sum > 0.0f) sum += parts[i].sum * expf(parts[i].plain.score - plain.score);
  }
  p.ids[row] = id;
  p.logprobs[row] = p.logits[size_t(row) * p.n_vocab + id] - plain.score - logf(sum);
}

constexpr size_t stats_bytes(int n_rows) { return (size_t(n_rows) * kParts * sizeof(PartStats) + 15) / 16 * 16; }

}  // namespace

size_t sample_scratch_bytes(int n_rows, int n_vocab) {
  return stats_bytes(n_rows) + size_t(n_rows) * kParts * size_t(part_ids(n_vocab)) * sizeof(Candidate);
}

cudaError_t sample(const SampleParams& p, cudaStream_t stream) {
  if (p.n_rows < 0 || p.n_vocab <= 0 || part_ids(p.n_vocab) > kPartIdsMax || p.n_recent_max < 0 || p.n_banned_max < 0) {
    return cudaErrorInvalidValue;
  }
  if (p.n_rows == 0) return cudaSuccess;
  const Scratch scratch{reinterpret_cast<PartStats*>(p.scratch),
                        reinterpret_cast<Candidate*>(p.scratch + stats_bytes(p.n_rows))};
  const dim3 grid(kParts, p.n_rows);
  if (const cudaError_t error = launch(scan_kernel, grid, kScanThreads, 0, stream, p, scratch); error != cudaSuccess) {
    return error;
  }
  if (const cudaError_t error = launch(gather_kernel, grid, kScanThreads, 0, stream, p, scratch);
      error != cudaSuccess) {
    return error;
  }
  return launch(draw_kernel, p.n_rows, kDrawThreads, 0, stream, p, scratch);
}

}  // namespace nosa::cuda
