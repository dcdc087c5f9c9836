#include "session/draft.h"

#include <algorithm>

namespace nosa {
namespace {

struct Match {
  int length = 0;
  std::span<const uint32_t> following;
};

// Length of the run that ends before `end` in `tokens` and at the end of `tail`.
int run_length(std::span<const uint32_t> tokens, size_t end, std::span<const uint32_t> tail) {
  const int longest = int(std::min({end, tail.size(), size_t(Drafter::match_max)}));
  int length = 0;
  while (length < longest && tokens[end - 1 - length] == tail[tail.size() - 1 - length]) ++length;
  return length;
}

// `ends`: where runs may end, each followed by a token at least.
void look(std::span<const uint32_t> tokens, size_t n_ends, std::span<const uint32_t> tail, Match& best) {
  const uint32_t last = tail.back();
  for (size_t end = n_ends; end >= size_t(Drafter::match_min); --end) {
    if (tokens[end - 1] != last) continue;
    const int length = run_length(tokens, end, tail);
    if (length <= best.length || length < Drafter::match_min) continue;
    best = {length, tokens.subspan(end)};
    if (length == Drafter::match_max) return;
  }
}

}  // namespace

std::vector<uint32_t> Drafter::draft(std::span<const uint32_t> own,
                                     std::span<const std::span<const uint32_t>> others,
                                     int n_max) const {
  if (own.size() < size_t(match_min) || n_max <= 0) return {};
  Match best;
  look(own, own.size() - 1, own, best);
  for (size_t i = others.size(); i-- > 0 && best.length < match_max;) {
    if (!others[i].empty()) look(others[i], others[i].size() - 1, own, best);
  }
  const size_t n = std::min(best.following.size(), size_t(n_max));
  return {best.following.begin(), best.following.begin() + std::ptrdiff_t(n)};
}

void DraftLength::judged(int n_drafted, int n_right) {
  if (n_drafted <= 0) return;
  n_misses_ = n_right == 0 ? n_misses_ + 1 : 0;
  if (n_right == n_drafted) {
    length_ = std::min(length_max, length_ + 2);
  } else {
    length_ = std::clamp(n_right + 1, n_misses_ > 2 ? 1 : 2, length_max);
  }
}

}  // namespace nosa
