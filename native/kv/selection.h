#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"

namespace nosa {

/// Which blocks a query attends to.
enum class Policy {
  kFull,      ///< Every block that is not masked.
  kInfLlmV2,  ///< Forced blocks, then the best by the query.
  kNosa,      ///< Forced blocks, some by the query, the rest by the eviction ranking.
};

/// How many blocks, of what kind. The defaults are the published constants of NOSA
/// (arXiv 2510.13602): 64 blocks of 64 tokens, of which 1 sink, 17 in the window (the current one
/// and the 16 before it), 15 free picks by the query and 31 by the eviction ranking.
struct SelectionBudget {
  int total_blocks = 64;
  /// The first pass takes sink_blocks + (window_blocks - 1) + query_blocks blocks by score, forced
  /// ones included; so with the defaults 15 of its 33 are free picks.
  int query_blocks = 16;
  int sink_blocks = 1;
  int window_blocks = 17;

  /// Blocks that the query chooses beside the forced ones.
  int query_picks() const { return query_blocks > 0 ? query_blocks - 1 : 0; }

  bool operator==(const SelectionBudget&) const = default;
};

/// Fails with kInvalidArgument when a count is negative, when there is no window, or when forced
/// blocks and query picks exceed the total.
Status validate(const SelectionBudget& budget);

/// The ranking that no query changes: the best blocks by eviction score, in order.
///
/// Only the first `capacity` entries can ever be taken, because at most total_blocks are.
/// Ties go to the higher block index.
class EvictionOrder {
 public:
  explicit EvictionOrder(int capacity) : capacity_(capacity) { entries_.reserve(capacity + 1); }

  void clear() { entries_.clear(); }

  /// REQUIRES: `block_idx` is not in the order yet.
  void insert(int32_t block_idx, float score);

  int size() const { return int(entries_.size()); }
  /// Whether a block may have found no place: it is then no better than the last.
  bool is_full() const { return int(entries_.size()) == capacity_; }
  int32_t block(int rank) const { return entries_[rank].block_idx; }
  float score(int rank) const { return entries_[rank].score; }

 private:
  struct Entry {
    float score;
    int32_t block_idx;
  };

  int capacity_;
  std::vector<Entry> entries_;  // Best first.
};

/// What one query of one KV head chooses from. Blocks are numbered in one global order: those of
/// the attended sequences, one sequence after the other, then the sequence's own.
struct SelectionInput {
  int n_blocks = 0;
  std::span<const float> scores;    ///< [n_blocks] by the query; -inf where no window touches the block.
  const EvictionOrder* eviction = nullptr;  ///< kNosa alone. May hold forced blocks, no masked ones.
  std::span<const int32_t> forced;  ///< Ascending: sink and window.
  std::span<const uint8_t> masked;  ///< [n_blocks], non-zero is left out; or empty for none.
};

/// Scratch of select_blocks, kept between calls so that none of them allocates.
struct SelectionScratch {
  struct Pick {
    float score;
    int32_t block_idx;
  };
  std::vector<Pick> picks;
  std::vector<uint8_t> taken;  // [n_blocks]
};

/// The blocks to attend to, ascending, into `out`.
///
/// The ordered union of hard sets: forced blocks, then the query's best among the others, then
/// (kNosa) the first of the eviction order that are not in yet. When all unmasked blocks fit the
/// total, all are taken. Ties go to the higher score, then to the higher block index.
/// Equal to the two top-k passes of the released code, without their unspecified ties.
void select_blocks(const SelectionInput& input, Policy policy, const SelectionBudget& budget,
                   SelectionScratch& scratch, std::vector<int32_t>& out);

/// Tokens that one compressed key averages, and the distance between two of them.
inline constexpr int kWindowTokens = 32;
inline constexpr int kWindowStride = 16;

/// Complete windows in the first `n_tokens` tokens of a sequence: the compressed keys that a query
/// at index n_tokens - 1 may use.
constexpr int windows_in(int n_tokens) {
  return n_tokens < kWindowTokens ? 0 : (n_tokens - kWindowTokens) / kWindowStride + 1;
}

/// out[b] = the highest of the windows 4b-1 .. 4b+3 there are, those that overlap block b;
/// -inf when there are none. `out` holds n_blocks values.
void pool_windows(std::span<const float> windows, std::span<float> out);

}  // namespace nosa
