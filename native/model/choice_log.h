#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "kv/selection.h"

namespace nosa {

/// Which blocks the queries of one sequence chose, by own token, layer and KV head. For tests: choosing is a step, so two
/// networks that differ by rounding choose otherwise now and then, and with other blocks go other ways. One that follows
/// what another chose, and says by how little its own choice was better, can be held to the same numbers.
class ChoiceLog {
 public:
  /// `blocks` ascending, in the order of BlockSelector. Takes the place of what was there.
  void put(int own_idx, int layer, int kv_head, std::span<const int32_t> blocks) {
    choices_[{own_idx, layer, kv_head}].assign(blocks.begin(), blocks.end());
  }

  /// Null when nothing is known.
  const std::vector<int32_t>* find(int own_idx, int layer, int kv_head) const {
    const auto found = choices_.find({own_idx, layer, kv_head});
    return found == choices_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::array<int, 3>, std::vector<int32_t>> choices_;
};

/// What followed choices were like beside one's own.
struct ChoiceVerdict {
  int64_t n_followed = 0;  ///< Lists of one query, layer and KV head.
  int64_t n_own = 0;       ///< Of which nothing was known.
  int64_t n_invalid = 0;   ///< That no scores could explain: a forced block left out, or another number of blocks.
  /// Of each that differs, the least change that explains it: the share by which scores of the query and of the eviction
  /// order would have to change for it to be the best choice.
  std::vector<double> regrets;

  /// Puts `others`, null where nothing is known, in the place of `chosen`, one's own choice from `input`, unless no scores
  /// explain it; counts what it was.
  void follow(const std::vector<int32_t>* others, const SelectionInput& input, Policy policy, const SelectionBudget& budget,
              std::vector<int32_t>& chosen);
};

/// The least t such that `chosen`, ascending, is what is chosen from `input` when every score may be off by a share of t;
/// negative when there is none. Which of its blocks are the query's picks and which the eviction order's is not known: those
/// that the order would not give must be the query's, and of the others the query has the best.
double choice_regret(const SelectionInput& input, Policy policy, const SelectionBudget& budget,
                     std::span<const int32_t> chosen);

}  // namespace nosa
