#include "session/draft.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/random.h"

namespace nosa::test {
namespace {

using Tokens = std::vector<uint32_t>;

Tokens draft(const Tokens& own, const std::vector<Tokens>& others, int n_max) {
  const std::vector<std::span<const uint32_t>> spans(others.begin(), others.end());
  return Drafter().draft(own, spans, n_max);
}

TEST(Drafter, GoesOnAsTheLongestRunDid) {
  const Tokens others = {9, 1, 2, 3, 50, 51, 8, 7, 1, 2, 3, 60, 61, 62};
  EXPECT_EQ(draft({7, 1, 2, 3}, {others}, 3), (Tokens{60, 61, 62}));
  EXPECT_EQ(draft({9, 1, 2, 3}, {others}, 2), (Tokens{50, 51}));
}

TEST(Drafter, PrefersTheLatestOfEqualRuns) {
  EXPECT_EQ(draft({4, 1, 2, 3}, {{1, 2, 3, 5}, {1, 2, 3, 6}}, 1), (Tokens{6}));
  EXPECT_EQ(draft({4, 1, 2, 3}, {{8, 1, 2, 3, 5, 1, 2, 3, 6, 0}}, 1), (Tokens{6}));
  EXPECT_EQ(draft({1, 2, 3, 7, 9, 1, 2, 3}, {{1, 2, 3, 6}}, 4), (Tokens{7, 9, 1, 2}));
}

TEST(Drafter, GuessesNothingWithoutARun) {
  EXPECT_TRUE(draft({}, {{1, 2, 3}}, 4).empty());
  EXPECT_TRUE(draft({2, 3}, {{1, 2, 3, 4}}, 4).empty());
  EXPECT_TRUE(draft({5, 2, 3}, {{1, 2, 3, 4}}, 4).empty());
  EXPECT_TRUE(draft({1, 2, 3}, {{1, 2, 3}, {}}, 4).empty());
  EXPECT_TRUE(draft({1, 2, 3}, {{1, 2, 3, 4}}, 0).empty());
}

// By brute force: the longest run anywhere, of those the last in (others..., own) order.
TEST(Drafter, FindsTheLongestRunInRandomTokens) {
  Random random;
  for (int round = 0; round < 300; ++round) {
    const auto some = [&](int n) {
      Tokens tokens(static_cast<size_t>(n));
      for (uint32_t& token : tokens) token = uint32_t(random.between(0, 2));
      return tokens;
    };
    const Tokens own = some(int(random.between(0, 39)));
    const std::vector<Tokens> others = {some(int(random.between(0, 59))), some(int(random.between(0, 59)))};
    size_t longest = 0;
    Tokens expected;
    const auto consider = [&](const Tokens& tokens) {
      for (size_t end = 1; end < tokens.size(); ++end) {
        size_t length = 0;
        while (length < end && length < own.size() && length < size_t(Drafter::match_max) &&
               tokens[end - 1 - length] == own[own.size() - 1 - length]) {
          ++length;
        }
        if (length < longest || length < size_t(Drafter::match_min)) continue;
        longest = length;
        expected.assign(tokens.begin() + std::ptrdiff_t(end),
                        tokens.begin() + std::ptrdiff_t(std::min(tokens.size(), end + 5)));
      }
    };
    for (const Tokens& other : others) consider(other);
    consider(own);
    EXPECT_EQ(draft(own, others, 5), expected);
  }
}

TEST(DraftLength, GrowsWhileRightAndShrinksWhenWrong) {
  DraftLength length;
  for (int i = 0; i < 5; ++i) length.judged(length.get(), length.get());
  EXPECT_EQ(length.get(), DraftLength::length_max);
  length.judged(8, 3);
  EXPECT_EQ(length.get(), 4);
  for (int i = 0; i < 4; ++i) length.judged(length.get(), 0);
  EXPECT_EQ(length.get(), 1);
  length.judged(0, 0);
  EXPECT_EQ(length.get(), 1);
}

}  // namespace
}  // namespace nosa::test
