#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "core/status.h"
#include "kv/block_table.h"
#include "kv/selection.h"
#include "kv/side_car.h"
#include "model/choice_log.h"

namespace nosa {

/// Blocks [from, to) of one attended sequence.
struct BlockRange {
  int sequence = 0;
  int from = 0;
  int to = 0;

  bool operator==(const BlockRange&) const = default;
};

/// How a request attends: which blocks, and how many.
struct SelectionOptions {
  Policy policy = Policy::kFull;
  SelectionBudget budget;
  std::vector<BlockRange> masked;  ///< Never seen, under any policy: as if they were not there.
  std::vector<BlockRange> pinned;  ///< Seen by every query, unless masked. They take room from the total.
  bool exact_keys = false;  ///< Scores blocks by compressed keys as they are saved, not by packed ones: to measure.

  bool operator==(const SelectionOptions&) const = default;
};

class DeviceKv;

/// A sealed sequence whose every token may be seen.
struct AttendedKv {
  const BlockTable* blocks = nullptr;
  const SideCar* side_car = nullptr;
  int n_tokens = 0;
  DeviceKv* device = nullptr;  ///< Its copy on the GPU, or null where there is none to be had.
};

/// What queries chose, in two parts that together are each one's selection: blocks that no query of
/// theirs could do without (forced ones, and the first of the eviction order), and each one's picks.
struct BlockChoice {
  int n_common = 0;
  int n_picks = 0;               ///< Of each query.
  int n_tokens = 0;
  std::vector<int32_t> common;   ///< [n_kv_heads, n_common], each ascending
  std::vector<int32_t> picks;    ///< [n_kv_heads, n_tokens, n_picks], each ascending

  /// The whole selection of one query, ascending.
  std::vector<int32_t> selection(int kv_head, int token) const;
};

/// Scratch of all selectors of a model: scores of 64 queries for a million tokens take megabytes.
struct SelectorScratch {
  /// Of one thread, for one query and KV head.
  struct Worker {
    SelectionScratch selection;
    std::vector<int32_t> chosen;
  };
  BlockChoice choice;
  std::vector<float> block_scores;   // [n_tokens, n_kv_heads, n_blocks]
  std::vector<uint8_t> common;       // [n_kv_heads, n_blocks], whether in the common part; all zero between calls
  std::vector<Worker> workers;
  std::mutex logging;  // Held where choices are recorded or compared with another's.
};

/// Chooses blocks for the queries of one sequence, layer by layer.
///
/// Blocks are numbered in one order: those of the attended sequences, one after the other, then the
/// sequence's own. Forced are the sink, the first blocks of that order, and the window, the
/// sequence's own last blocks, and whatever is pinned. Keeps the eviction ranking of every layer and
/// KV head between queries: it changes only when an own block leaves the window.
///
/// Not thread-safe: used by the native worker thread only.
class BlockSelector {
 public:
  /// Fails with kInvalidArgument when a range lies outside `attended`, or when (but for kFull) the
  /// budget makes no sense or does not hold what is forced.
  static Status validate(const SelectionOptions& options, std::span<const AttendedKv> attended);

  /// `attended` must outlive the selector and not change. REQUIRES: the options are valid.
  BlockSelector(const KvShape& shape, const SelectionOptions& options,
                std::span<const AttendedKv> attended);

  const SelectionOptions& options() const { return options_; }

  /// Blocks of the attended sequences.
  int n_context_blocks() const { return n_context_; }

  /// The attended sequence that holds a block, or none_attended for an own one, and its number there.
  struct Place {
    int sequence;
    int block;
  };
  static constexpr int none_attended = -1;
  Place place(int32_t block_idx) const;

  /// Whether a block of the attended sequences is left out.
  bool masked(int32_t block_idx) const { return masked_[size_t(block_idx)] != 0; }
  bool masks_any() const { return n_open_ < n_context_; }

  /// Blocks of the attended sequences that are not left out.
  int n_open_blocks() const { return n_open_; }

  /// Whether every query takes a block of the attended sequences.
  bool pinned(int32_t block_idx) const { return std::binary_search(pinned_.begin(), pinned_.end(), block_idx); }

  /// Whether a query at own index `own_idx` has more blocks to choose from than it may take.
  bool chooses(int own_idx) const;

  /// The own blocks from `n_blocks` on are not what they were.
  void truncate(int n_blocks);

  /// The first own block of the window of a query at own index `own_idx`.
  int window_begin(int own_idx) const {
    return std::max(0, own_idx / kBlockTokens + 1 - options_.budget.window_blocks);
  }

  /// Consecutive tokens of one own block.
  struct Queries {
    int layer = 0;
    int own_idx = 0;              ///< Index of the first token within the sequence.
    int n_tokens = 0;
    const float* q = nullptr;     ///< [n_tokens, n_heads, head_dim], after RoPE
    int n_heads = 0;
    float scale = 0.0f;
    const SideCar* own = nullptr;  ///< With the tokens taken in.
  };

  /// The choice is that of `scratch`. REQUIRES: chooses() every one of the tokens.
  const BlockChoice& choose(const Queries& queries, Backend& backend, SelectorScratch& scratch);

  /// What any query at own index `own_idx` takes of one layer and KV head, whatever it asks: as many as
  /// it takes all of them, else forced blocks and (kNosa) the first of the eviction order; ascending.
  std::vector<int32_t> base(int layer, int kv_head, int own_idx, const SideCar& own);

  /// For tests: `log` is told what queries choose from here on, wherever they are computed; or null.
  void record(ChoiceLog* log) { recorded_ = log; }
  ChoiceLog* recorded() const { return recorded_; }

  /// For tests: queries take what `log` says where it says something, and `verdict` tells how that compares. Both outlive
  /// the selector.
  void follow(const ChoiceLog* log, ChoiceVerdict* verdict) {
    followed_ = log;
    verdict_ = verdict;
  }

 private:
  struct Ranking {
    EvictionOrder order;
    int n_own = 0;  // Own blocks that are in it.
  };

  /// Blocks of one attended sequence between two masked ones, and the windows that lie in them
  /// alone: a window that reaches into a masked block would tell of it.
  struct Stretch {
    int sequence;
    int32_t first_block;  // In the order of all blocks.
    int n_blocks;
    int first_window;     // Within the sequence.
    int n_windows;
  };

  Ranking& ranking(int layer, int kv_head) { return rankings_[size_t(layer) * shape_.n_kv_heads + kv_head]; }
  const Ranking& ranking(int layer, int kv_head) const { return rankings_[size_t(layer) * shape_.n_kv_heads + kv_head]; }
  void find_stretches();
  void force(int window_begin, int n_blocks);
  void choose_common(const EvictionOrder& order, std::span<uint8_t> taken, std::vector<int32_t>& common) const;
  void rank_context(int layer, int kv_head);
  void rank_own(int layer, int kv_head, const SideCar& own, int n_own_blocks);
  void pick(const Queries& queries, int token, int kv_head, SelectorScratch::Worker& worker,
            SelectorScratch& scratch);
  std::span<const WindowRun> runs(const Queries& queries);

  KvShape shape_;
  SelectionOptions options_;
  std::span<const AttendedKv> attended_;
  std::vector<int32_t> first_blocks_;  // Of each attended sequence.
  int n_context_ = 0;
  int n_open_ = 0;  // Of these, not masked.
  std::vector<Stretch> stretches_;
  std::vector<int32_t> pinned_;    // Ascending, not masked.
  std::vector<Ranking> rankings_;  // [n_layers, n_kv_heads]
  std::vector<bool> ranked_;       // Likewise: whether the context is in it.
  std::vector<uint8_t> masked_;    // [n_blocks]
  // [n_layers], [n_kv_heads, n_stretches + 1], the last one for the own windows; empty until a query of
  // the layer chooses. They stay the same, but looking for them takes a while.
  std::vector<std::vector<WindowRun>> runs_;

  std::vector<float> pooled_;      // [blocks of one sequence], scratch
  std::vector<int32_t> forced_;    // For the last queries

  ChoiceLog* recorded_ = nullptr;
  const ChoiceLog* followed_ = nullptr;
  ChoiceVerdict* verdict_ = nullptr;
};

}  // namespace nosa
