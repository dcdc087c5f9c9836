#include "model/choice_log.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace nosa {

void ChoiceVerdict::follow(const std::vector<int32_t>* others, const SelectionInput& input, Policy policy,
                           const SelectionBudget& budget, std::vector<int32_t>& chosen) {
  if (others == nullptr) {
    n_own += 1;
    return;
  }
  n_followed += 1;
  if (*others == chosen) return;
  const double found = others->size() == chosen.size() ? choice_regret(input, policy, budget, *others) : -1.0;
  if (found < 0.0) {
    n_invalid += 1;
    return;
  }
  regrets.push_back(found);
  chosen = *others;
}

double choice_regret(const SelectionInput& input, Policy policy, const SelectionBudget& budget,
                     std::span<const int32_t> chosen) {
  constexpr double none = -std::numeric_limits<double>::infinity();
  struct Candidate {
    double query;     // The logarithm of the score, so that a difference is a share.
    double eviction;  // Of one that found no place in a full order the most it can be, that of the last; else none.
    bool taken;
  };
  std::vector<Candidate> candidates;
  const bool by_eviction = policy == Policy::kNosa;
  const bool is_cut = by_eviction && input.eviction->is_full() && input.eviction->size() > 0;
  const double beyond = is_cut ? double(input.eviction->score(input.eviction->size() - 1)) : none;
  std::vector<double> eviction(size_t(input.n_blocks), beyond);
  for (int rank = 0; by_eviction && rank < input.eviction->size(); ++rank) {
    eviction[size_t(input.eviction->block(rank))] = double(input.eviction->score(rank));
  }
  size_t n_taken = 0;
  for (int32_t b = 0; b < input.n_blocks; ++b) {
    const bool taken = std::ranges::binary_search(chosen, b);
    if (!input.masked.empty() && input.masked[size_t(b)] != 0) {
      if (taken) return -1.0;
      continue;
    }
    if (std::ranges::binary_search(input.forced, b)) {
      if (!taken) return -1.0;
      continue;
    }
    const float score = input.scores[size_t(b)];
    candidates.push_back({score > 0.0f ? std::log(double(score)) : none, eviction[size_t(b)], taken});
    n_taken += taken ? 1 : 0;
  }
  const size_t n_query = by_eviction ? std::min(n_taken, size_t(budget.query_picks())) : n_taken;
  // Better by more than a share of t.
  const auto better_score = [](double a, double b, double t) { return a > b + t; };
  const auto better_eviction = [](double a, double b, double t) {
    return a != none && (b == none || a - b > t * std::max(std::fabs(a), std::fabs(b)));
  };
  std::vector<double> free;
  const auto explains = [&](double t) {
    double best_left = none;
    for (const Candidate& c : candidates) {
      if (!c.taken) best_left = std::max(best_left, c.eviction);
    }
    size_t n_must = 0;
    double worst_pick = std::numeric_limits<double>::infinity();
    double best_other = none;
    free.clear();
    for (const Candidate& c : candidates) {
      if (!c.taken) {
        best_other = std::max(best_other, c.query);
      } else if (!by_eviction || better_eviction(best_left, c.eviction, t)) {
        n_must += 1;
        worst_pick = std::min(worst_pick, c.query);
      } else {
        free.push_back(c.query);
      }
    }
    if (n_must > n_query) return false;
    std::ranges::sort(free, std::ranges::greater());
    for (size_t i = 0; i < free.size(); ++i) {
      if (n_must + i < n_query) {
        worst_pick = std::min(worst_pick, free[i]);
      } else {
        best_other = std::max(best_other, free[i]);
      }
    }
    return n_query == 0 || !better_score(best_other, worst_pick, t);
  };
  constexpr double most = 1e6;
  if (!explains(most)) return most;
  double low = 0.0;
  double high = most;
  for (int i = 0; i < 60 && high - low > 1e-9; ++i) {
    const double middle = low + (high - low) / 2;
    (explains(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace nosa
