#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nosa {

/// Tokens guessed ahead: those that followed, somewhere in what the sequence can see, the longest run
/// of tokens that it ends with now. Code repeats itself, so the guess is often right; what is kept of
/// it is decided by the model alone.
class Drafter {
 public:
  /// Shorter runs say too little about what follows.
  static constexpr int match_min = 3;
  /// A run of this length is not looked at any further.
  static constexpr int match_max = 16;

  /// At most `n_max` tokens, or none. `own` is what is continued; `others` what it attends to, in order.
  /// Of runs equally long the latest counts: own tokens before others, later ones before earlier.
  std::vector<uint32_t> draft(std::span<const uint32_t> own,
                              std::span<const std::span<const uint32_t>> others, int n_max) const;
};

/// How many tokens to guess, from how many of the last guesses were right: wrong ones cost time.
class DraftLength {
 public:
  static constexpr int length_max = 8;

  int get() const { return length_; }

  /// `n_right` of `n_drafted` guessed tokens were right.
  void judged(int n_drafted, int n_right);

 private:
  int length_ = 3;
  int n_misses_ = 0;  // Drafts in a row of which nothing was right.
};

}  // namespace nosa
