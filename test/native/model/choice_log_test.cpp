#include "model/choice_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace nosa {
namespace {

/// Scores of blocks that are all of different worth, with a sink, a window and a masked block.
struct Case {
  SelectionBudget budget{.total_blocks = 0, .query_blocks = 5, .sink_blocks = 1, .window_blocks = 3};
  int n_blocks = 0;
  std::vector<float> scores;    // Positive, as the sums of shares that queries give are.
  std::vector<float> eviction;  // Of any sign.
  std::vector<int32_t> forced;
  std::vector<uint8_t> masked;

  int ranked_blocks = 0;  // How far the eviction order reaches.

  explicit Case(std::mt19937& rng) {
    const auto draw = [&](double low, double high) { return float(std::uniform_real_distribution<double>(low, high)(rng)); };
    budget.total_blocks = 12 + int(draw(0, 10));
    ranked_blocks = 2 * budget.total_blocks;  // Beyond what is taken, so that its border is none of the choice.
    n_blocks = 2 * budget.total_blocks + int(draw(0, 60));
    for (int b = 0; b < n_blocks; ++b) {
      scores.push_back(std::exp(draw(-6, 0)));
      eviction.push_back(draw(-5, 5));
    }
    forced = {0, n_blocks - 3, n_blocks - 2, n_blocks - 1};
    masked.assign(size_t(n_blocks), 0);
    masked[1 + size_t(draw(0, 4))] = 1;
  }

  /// An order as long as a sequence keeps it, of which every block is chosen: it holds the forced ones and the query's, too.
  void rank_to_the_end() {
    ranked_blocks = budget.total_blocks;
    for (size_t b = 0; b < eviction.size(); ++b) eviction[b] = 7 + std::log(scores[b]);
    for (const int32_t b : forced) eviction[size_t(b)] = 8;
  }

  bool open(int32_t b) const { return masked[size_t(b)] == 0; }

  EvictionOrder order() const {
    EvictionOrder order(ranked_blocks);
    for (int32_t b = 0; b < n_blocks; ++b) {
      if (open(b)) order.insert(b, eviction[size_t(b)]);
    }
    return order;
  }

  std::vector<int32_t> chosen(Policy policy) const {
    const EvictionOrder ranked = order();
    SelectionScratch scratch;
    std::vector<int32_t> out;
    select_blocks({n_blocks, scores, &ranked, forced, masked}, policy, budget, scratch, out);
    return out;
  }

  double regret(Policy policy, const std::vector<int32_t>& others) const {
    const EvictionOrder ranked = order();
    return choice_regret({n_blocks, scores, &ranked, forced, masked}, policy, budget, others);
  }
};

TEST(ChoiceLog, ItsOwnChoiceIsRegrettedByNobody) {
  std::mt19937 rng(std::random_device{}());
  for (int round = 0; round < 200; ++round) {
    const Case c(rng);
    for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2}) EXPECT_LE(c.regret(policy, c.chosen(policy)), 1e-6);
  }
}

/// `is_cut`: blocks at the very end of the eviction order may be in one and not in the other.
void expect_no_more_regret_than_scores_are_off(bool is_cut) {
  std::mt19937 rng(std::random_device{}());
  constexpr double off = 0.02;
  int n_other = 0;
  for (int round = 0; round < 300; ++round) {
    Case c(rng);
    if (is_cut) c.rank_to_the_end();
    Case theirs = c;
    const auto blur = [&](float& score) { score *= float(std::uniform_real_distribution<double>(1 - off, 1 + off)(rng)); };
    std::ranges::for_each(theirs.scores, blur);
    std::ranges::for_each(theirs.eviction, blur);
    for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2}) {
      const std::vector<int32_t> others = theirs.chosen(policy);
      const double regret = c.regret(policy, others);
      EXPECT_GE(regret, 0.0);
      EXPECT_LE(regret, 2.1 * off);  // Both of two scores may be off.
      n_other += others != c.chosen(policy) ? 1 : 0;
    }
  }
  EXPECT_GT(n_other, 0);
}

TEST(ChoiceLog, AChoiceByScoresThatAreOffIsRegrettedByNoMoreThanThat) { expect_no_more_regret_than_scores_are_off(false); }

TEST(ChoiceLog, ABlockThatFoundNoPlaceInAFullOrderMayBeAsGoodAsItsLast) { expect_no_more_regret_than_scores_are_off(true); }

TEST(ChoiceLog, AWorseBlockIsRegrettedByWhatItsScoreLacks) {
  std::mt19937 rng(std::random_device{}());
  for (int round = 0; round < 200; ++round) {
    const Case c(rng);
    std::vector<int32_t> others = c.chosen(Policy::kInfLlmV2);
    int32_t best = -1;
    int32_t worst = -1;
    for (int32_t b = 0; b < c.n_blocks; ++b) {
      if (!c.open(b) || std::ranges::binary_search(c.forced, b)) continue;
      const bool taken = std::ranges::binary_search(others, b);
      if (taken && (best < 0 || c.scores[size_t(b)] > c.scores[size_t(best)])) best = b;
      if (!taken && (worst < 0 || c.scores[size_t(b)] < c.scores[size_t(worst)])) worst = b;
    }
    std::ranges::replace(others, best, worst);
    std::ranges::sort(others);
    const double lacking = std::log(double(c.scores[size_t(best)])) - std::log(double(c.scores[size_t(worst)]));
    EXPECT_NEAR(c.regret(Policy::kInfLlmV2, others), lacking, 1e-6);
  }
}

TEST(ChoiceLog, NoScoresExplainAForcedBlockLeftOutOrAMaskedOneTaken) {
  std::mt19937 rng(std::random_device{}());
  const Case c(rng);
  const auto without = [&](int32_t left_out, int32_t taken) {
    std::vector<int32_t> others = c.chosen(Policy::kNosa);
    std::ranges::replace(others, left_out, taken);
    std::ranges::sort(others);
    return others;
  };
  const std::vector<int32_t> chosen = c.chosen(Policy::kNosa);
  int32_t other = 0;
  while (std::ranges::binary_search(chosen, other) || !c.open(other)) other += 1;
  EXPECT_LT(c.regret(Policy::kNosa, without(0, other)), 0.0);
  const auto masked = int32_t(std::ranges::find(c.masked, uint8_t{1}) - c.masked.begin());
  const auto is_free = [&](int32_t b) { return !std::ranges::binary_search(c.forced, b); };
  EXPECT_LT(c.regret(Policy::kNosa, without(*std::ranges::find_if(chosen, is_free), masked)), 0.0);
}

TEST(ChoiceLog, AVerdictTakesWhatOthersChoseUnlessNothingExplainsIt) {
  std::mt19937 rng(std::random_device{}());
  const Case c(rng);
  const EvictionOrder ranked = c.order();
  const SelectionInput input{c.n_blocks, c.scores, &ranked, c.forced, c.masked};
  const std::vector<int32_t> own = c.chosen(Policy::kInfLlmV2);
  ChoiceVerdict verdict;
  std::vector<int32_t> chosen = own;
  const auto follow = [&](const std::vector<int32_t>* others) {
    chosen = own;
    verdict.follow(others, input, Policy::kInfLlmV2, c.budget, chosen);
  };

  ChoiceLog log;
  follow(log.find(7, 1, 0));
  EXPECT_EQ(verdict.n_own, 1);
  EXPECT_EQ(chosen, own);

  log.put(7, 1, 0, own);
  follow(log.find(7, 1, 0));
  EXPECT_EQ(verdict.n_followed, 1);
  EXPECT_TRUE(verdict.regrets.empty());
  EXPECT_EQ(log.find(7, 0, 1), nullptr);

  std::vector<int32_t> others = own;
  for (int32_t& b : others) {
    if (std::ranges::binary_search(c.forced, b)) continue;
    int32_t other = 0;
    while (std::ranges::binary_search(own, other) || !c.open(other)) other += 1;
    b = other;
    break;
  }
  std::ranges::sort(others);
  follow(&others);
  EXPECT_EQ(chosen, others);
  ASSERT_EQ(verdict.regrets.size(), 1u);
  EXPECT_GT(verdict.regrets[0], 0.0);

  others.pop_back();
  follow(&others);
  EXPECT_EQ(verdict.n_invalid, 1);
  EXPECT_EQ(chosen, own);
  EXPECT_EQ(verdict.n_followed, 3);
}

}  // namespace
}  // namespace nosa
