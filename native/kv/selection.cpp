#include "kv/selection.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/block_tokens.h"
#include "core/check.h"

namespace nosa {
namespace {

constexpr int kWindowsPerBlock = kBlockTokens / kWindowStride;

/// The order of every ranking here: higher score first, then higher block index.
bool ranks_before(float score_a, int32_t block_a, float score_b, int32_t block_b) {
  return score_a != score_b ? score_a > score_b : block_a > block_b;
}

/// Marks the `n_picks` best of the blocks that are neither taken nor masked.
void take_best(const SelectionInput& input, int n_picks, SelectionScratch& scratch) {
  if (n_picks <= 0) return;
  auto& best = scratch.picks;  // Best first, never longer than n_picks.
  best.clear();
  const auto offer = [&](int32_t b) {
    if (scratch.taken[b] != 0) return;
    const float score = input.scores[b];
    const bool full = int(best.size()) == n_picks;
    if (full && !ranks_before(score, b, best.back().score, best.back().block_idx)) return;
    if (full) best.pop_back();
    const auto place = std::find_if(best.begin(), best.end(), [&](const auto& pick) {
      return ranks_before(score, b, pick.score, pick.block_idx);
    });
    best.insert(place, {score, b});
  };
  // Most blocks are far from the best, and are passed over many at a time.
  constexpr int32_t n_at_once = 16;
  int32_t b = 0;
  for (; b + n_at_once <= input.n_blocks; b += n_at_once) {
    if (int(best.size()) == n_picks) {
      const float least = best.back().score;
      int reach = 0;
      for (int32_t i = 0; i < n_at_once; ++i) reach |= int(input.scores[b + i] >= least);
      if (reach == 0) continue;
    }
    for (int32_t i = 0; i < n_at_once; ++i) offer(b + i);
  }
  for (; b < input.n_blocks; ++b) offer(b);
  for (const auto& pick : best) scratch.taken[pick.block_idx] = 1;
}

/// Marks the first `n_picks` of the eviction order that are neither taken nor masked.
void take_by_eviction(const EvictionOrder& order, int n_picks, SelectionScratch& scratch) {
  for (int rank = 0; rank < order.size() && n_picks > 0; ++rank) {
    uint8_t& taken = scratch.taken[order.block(rank)];
    if (taken != 0) continue;
    taken = 1;
    n_picks -= 1;
  }
}

/// Appends the blocks that are marked with 1.
void append_taken(std::span<const uint8_t> taken, std::vector<int32_t>& out) {
  // Few are, so eight are looked at together.
  constexpr size_t n_at_once = sizeof(uint64_t);
  constexpr uint64_t ones = 0x0101010101010101;
  for (size_t first = 0; first < taken.size(); first += n_at_once) {
    const size_t n = std::min(n_at_once, taken.size() - first);
    uint64_t marks = 0;
    std::memcpy(&marks, taken.data() + first, n);
    if ((marks & ones) == 0) continue;
    for (size_t b = first; b < first + n; ++b) {
      if (taken[b] == 1) out.push_back(int32_t(b));
    }
  }
}

}  // namespace

Status validate(const SelectionBudget& budget) {
  if (budget.sink_blocks < 0 || budget.query_blocks < 0 || budget.window_blocks < 1) {
    return Status::invalid_argument(
        "Sink and query blocks must not be negative, and the window needs at least one block.");
  }
  if (budget.sink_blocks + budget.window_blocks + budget.query_picks() > budget.total_blocks) {
    return Status::invalid_argument("Sink, window and query blocks are more than the total of " +
                                    std::to_string(budget.total_blocks) + " blocks.");
  }
  return {};
}

void EvictionOrder::insert(int32_t block_idx, float score) {
  const auto before = [&](const Entry& entry) {
    return ranks_before(score, block_idx, entry.score, entry.block_idx);
  };
  const bool full = int(entries_.size()) == capacity_;
  if (full && !before(entries_.back())) return;
  if (full) entries_.pop_back();
  entries_.insert(std::find_if(entries_.begin(), entries_.end(), before), {score, block_idx});
}

void select_blocks(const SelectionInput& input, Policy policy, const SelectionBudget& budget,
                   SelectionScratch& scratch, std::vector<int32_t>& out) {
  // `taken` is 1 for a chosen block and 2 for a masked one.
  scratch.taken.assign(input.n_blocks, 0);
  int n_open = input.n_blocks;
  for (size_t b = 0; b < input.masked.size(); ++b) {
    if (input.masked[b] == 0) continue;
    scratch.taken[b] = 2;
    n_open -= 1;
  }
  out.clear();
  if (policy == Policy::kFull || n_open <= budget.total_blocks) {
    for (int32_t b = 0; b < input.n_blocks; ++b) {
      if (scratch.taken[b] == 0) out.push_back(b);
    }
    return;
  }

  CHECK(input.scores.size() == size_t(input.n_blocks));
  int n_left = budget.total_blocks;
  for (const int32_t b : input.forced) {
    if (scratch.taken[b] != 0) continue;
    scratch.taken[b] = 1;
    n_left -= 1;
  }
  const int n_query = policy == Policy::kNosa ? std::min(budget.query_picks(), n_left) : n_left;
  take_best(input, n_query, scratch);
  if (policy == Policy::kNosa) take_by_eviction(*input.eviction, n_left - n_query, scratch);
  append_taken(scratch.taken, out);
}

void pool_windows(std::span<const float> windows, std::span<float> out) {
  const int n_windows = int(windows.size());
  const int n_blocks = int(out.size());
  const auto pool = [&](int b) {
    const int first = std::max(0, kWindowsPerBlock * b - 1);
    const int end = std::min(n_windows, kWindowsPerBlock * (b + 1));
    float best = -std::numeric_limits<float>::infinity();
    for (int m = first; m < end; ++m) best = std::max(best, windows[m]);
    out[b] = best;
  };
  // All blocks but the first and the last have five windows.
  const int n_whole = std::min(n_blocks, n_windows / kWindowsPerBlock);
  if (n_blocks > 0) pool(0);
  for (int b = 1; b < n_whole; ++b) {
    const float* m = windows.data() + kWindowsPerBlock * b - 1;
    out[b] = std::max(std::max(std::max(m[0], m[1]), std::max(m[2], m[3])), m[4]);
  }
  for (int b = std::max(1, n_whole); b < n_blocks; ++b) pool(b);
}

}  // namespace nosa
