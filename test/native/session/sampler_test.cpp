#include "session/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "support/random.h"

namespace nosa::test {
namespace {

double exact_log_sum_exp(const std::vector<float>& logits) {
  const double peak = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(double(logit) - peak);
  return peak + std::log(total);
}

/// How often each id comes in `n` draws.
std::map<uint32_t, int> histogram(const std::vector<float>& logits, const SamplingOptions& options,
                                  int n, std::vector<uint32_t> recent = {},
                                  std::vector<uint32_t> banned = {}) {
  Sampler sampler;
  sampler.set_logits(logits);
  std::map<uint32_t, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.draw(options, recent, banned, uint64_t(i))];
  return counts;
}

TEST(Sampler, LogprobsAreThoseOfTheSoftmax) {
  Random random;
  for (const int n : {1, 7, 100, 49'153, 151'936}) {
    std::vector<float> logits = random.normals(n, 6.0f);
    if (n > 3) logits[2] = -std::numeric_limits<float>::infinity();
    const double expected = exact_log_sum_exp(logits);
    EXPECT_NEAR(log_sum_exp(logits), expected, 2e-6 * std::max(1.0, std::abs(expected))) << n;
    Sampler sampler;
    sampler.set_logits(logits);
    EXPECT_NEAR(sampler.logprob(uint32_t(n - 1)), double(logits.back()) - expected, 1e-5);
  }
}

TEST(Sampler, TheBestAreSortedAndTiesGoToTheLowerId) {
  const std::vector<float> logits = {1, 3, 2, 3, -1, 3};
  Sampler sampler;
  sampler.set_logits(logits);
  const std::vector<ScoredToken> top = sampler.top(4);
  ASSERT_EQ(top.size(), 4u);
  EXPECT_EQ(top[0].id, 1u);
  EXPECT_EQ(top[1].id, 3u);
  EXPECT_EQ(top[2].id, 5u);
  EXPECT_EQ(top[3].id, 2u);
  EXPECT_EQ(sampler.top(100).size(), 6u);
  EXPECT_TRUE(sampler.top(0).empty());
  EXPECT_EQ(sampler.draw({}, {}, {}, 0), 1u);
}

TEST(Sampler, DrawsFollowTheDistribution) {
  Random random;
  const std::vector<float> logits = random.normals(20);
  SamplingOptions options;
  options.temperature = 0.7f;
  options.seed = random.bits();
  constexpr int n = 200'000;
  const auto counts = histogram(logits, options, n);
  std::vector<float> scaled = logits;
  for (float& logit : scaled) logit /= options.temperature;
  const double total = exact_log_sum_exp(scaled);
  for (uint32_t id = 0; id < 20; ++id) {
    const double p = std::exp(double(scaled[id]) - total);
    const double sigma = std::sqrt(n * p * (1 - p));
    EXPECT_NEAR(counts.contains(id) ? counts.at(id) : 0, n * p, 5 * sigma + 1) << id;
  }
}

TEST(Sampler, CutsKeepWhatTheyPromise) {
  // Probabilities 0.4, 0.3, 0.2, 0.1, in another order.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};
  const auto kept = [&](SamplingOptions options) {
    options.temperature = 1;
    std::vector<uint32_t> ids;
    for (const auto& [id, count] : histogram(logits, options, 4000)) ids.push_back(id);
    return ids;
  };
  using Ids = std::vector<uint32_t>;
  EXPECT_EQ(kept({.top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(kept({.top_k = 10}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 0.65f}), (Ids{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.0f}), (Ids{1}));
  EXPECT_EQ(kept({.min_p = 0.4f}), (Ids{0, 1, 3}));
  EXPECT_EQ(kept({.min_p = 1.0f}), (Ids{1}));
  // Of the three that top-k keeps (0.9 in all), two reach 0.7 of it.
  EXPECT_EQ(kept({.top_k = 3, .top_p = 0.7f}), (Ids{1, 3}));
}

TEST(Sampler, TopPSortsAsMuchAsItNeeds) {
  Random random;
  std::vector<float> logits = random.normals(5000, 0.01f);  // Nearly flat: thousands are kept.
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 0.9f;
  options.seed = 3;
  std::vector<uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, [&](uint32_t a, uint32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  double sum = 0;
  const double total = exact_log_sum_exp(logits);
  size_t n_kept = 0;
  while (sum < 0.9) sum += std::exp(double(logits[order[n_kept++]]) - total);
  for (const auto& [id, count] : histogram(logits, options, 3000)) {
    const auto rank = std::ranges::find(order, id) - order.begin();
    EXPECT_LE(rank, ptrdiff_t(n_kept));
  }
}

TEST(Sampler, BansAndPenaltyChangeTheChoiceButNotTheLogprob) {
  const std::vector<float> logits = {2.0f, 1.9f, -1.0f, -1.05f};
  Sampler sampler;
  sampler.set_logits(logits);
  EXPECT_EQ(sampler.draw({}, {}, std::vector<uint32_t>{0}, 0), 1u);
  EXPECT_EQ(sampler.draw({}, {}, std::vector<uint32_t>{0, 1, 2, 3}, 0), 0u);  // All: the best.
  EXPECT_EQ(sampler.draw({}, {}, std::vector<uint32_t>{99}, 0), 0u);
  SamplingOptions penalty;
  penalty.repetition_penalty = 1.2f;
  EXPECT_EQ(sampler.draw(penalty, std::vector<uint32_t>{0, 0}, {}, 0), 1u);
  // A negative score moves away from zero.
  EXPECT_EQ(sampler.draw(penalty, std::vector<uint32_t>{2}, std::vector<uint32_t>{0, 1}, 0), 3u);
  // Only the last 256 tokens count.
  std::vector<uint32_t> recent(Sampler::penalty_window, 3u);
  recent.insert(recent.begin(), 0u);
  EXPECT_EQ(sampler.draw(penalty, recent, {}, 0), 0u);
  EXPECT_NEAR(sampler.logprob(0), 2.0 - exact_log_sum_exp(logits), 1e-6);
}

TEST(Sampler, TheDrawDependsOnSeedAndPositionAlone) {
  std::map<double, int> seen;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (uint64_t position = 0; position < 50; ++position) {
      const double u = uniform_at(seed, position);
      EXPECT_EQ(u, uniform_at(seed, position));
      EXPECT_GE(u, 0.0);
      EXPECT_LT(u, 1.0);
      ++seen[u];
    }
  }
  EXPECT_EQ(seen.size(), 2500u);
}

}  // namespace
}  // namespace nosa::test
