#include "session/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/check.h"

namespace nosa {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// In sixteen running maxima, which the compiler turns into vector code: one alone waits for the comparison before.
float highest(std::span<const float> values) {
  constexpr size_t n_lanes = 16;
  std::array<float, n_lanes> best;
  best.fill(minus_infinity);
  size_t i = 0;
  for (; i + n_lanes <= values.size(); i += n_lanes) {
    for (size_t lane = 0; lane < n_lanes; ++lane) best[lane] = best[lane] < values[i + lane] ? values[i + lane] : best[lane];
  }
  for (; i < values.size(); ++i) best[0] = std::max(best[0], values[i]);
  return *std::ranges::max_element(best);
}

size_t best_index(std::span<const float> values) {
  const auto best = std::ranges::find(values, highest(values));
  return best == values.end() ? 0 : size_t(best - values.begin());
}

// exp(x) for x <= 0, to some 1e-7: 2^n times a polynomial on [-ln2/2, ln2/2]. Plain arithmetic, so
// that the compiler turns the loop below into vector code.
inline float exp_not_positive(float x) {
  constexpr float log2e = 1.44269504f;
  constexpr float ln2_high = 0.693359375f;
  constexpr float ln2_low = -2.12194440e-4f;
  constexpr float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number.
  x = std::max(x, -87.0f);
  const float shifted = x * log2e + to_integer;
  const float n = shifted - to_integer;
  const float r = (x - n * ln2_high) - n * ln2_low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = (std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(to_integer) + 127)
                           << 23;
  return p * std::bit_cast<float>(exponent);
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  CHECK(!logits.empty());
  const float peak = highest(logits);
  if (peak == minus_infinity) return minus_infinity;

  // Sixteen running sums, folded into a double now and then.
  constexpr size_t n_lanes = 16;
  constexpr size_t fold_every = 4096;
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += fold_every) {
    const size_t n = std::min(fold_every, logits.size() - begin);
    const float* values = logits.data() + begin;
    std::array<float, n_lanes> sums = {};
    size_t i = 0;
    for (; i + n_lanes <= n; i += n_lanes) {
      for (size_t lane = 0; lane < n_lanes; ++lane) {
        sums[lane] += exp_not_positive(values[i + lane] - peak);
      }
    }
    for (; i < n; ++i) sums[0] += exp_not_positive(values[i] - peak);
    for (const float sum : sums) total += sum;
  }
  return double(peak) + std::log(total);
}

double uniform_at(uint64_t seed, uint64_t position) {
  // SplitMix64's finaliser, once over each of the two words.
  const auto mix = [](uint64_t word) {
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
  };
  const uint64_t bits = mix(mix(seed + 0x9E3779B97F4A7C15u) + position * 0xD1B54A32D192ED03u);
  return double(bits >> 11) * 0x1.0p-53;
}

void Sampler::set_logits(std::span<const float> logits) {
  logits_ = logits;
  log_total_ = log_sum_exp(logits);
}

float Sampler::logprob(uint32_t id) const {
  CHECK(id < logits_.size());
  return float(double(logits_[id]) - log_total_);
}

std::vector<ScoredToken> Sampler::top(int n) {
  adjusted_.assign(logits_.begin(), logits_.end());
  const int n_wanted = std::min<int>(n, int(logits_.size()));
  gather_candidates(n_wanted);
  keep_top_k(n_wanted);
  std::vector<ScoredToken> best;
  if (n <= 0) return best;
  best.reserve(candidates_.size());
  for (const Candidate& candidate : candidates_) {
    best.push_back({candidate.id, logprob(candidate.id)});
  }
  return best;
}

uint32_t Sampler::draw(const SamplingOptions& options, std::span<const uint32_t> recent,
                       std::span<const uint32_t> banned, uint64_t position, TokenFilter* filter) {
  adjust(options, recent, banned);
  const bool is_greedy = !(options.temperature > 0);
  if (filter == nullptr) {
    const size_t best = best_index(adjusted_);
    if (adjusted_[best] == minus_infinity) return uint32_t(best_index(logits_));
    if (is_greedy) return uint32_t(best);
  }

  gather_candidates(filter == nullptr ? options.top_k : 0);
  if (filter != nullptr) {
    keep_accepted(*filter, is_greedy ? 1 : options.top_k);
    if (candidates_.empty()) return filter->some();
    if (is_greedy) return candidates_.front().id;
  }
  if (options.top_k > 0) keep_top_k(options.top_k);
  if (options.top_p < 1) keep_top_p(options.top_p);
  if (options.min_p > 0) keep_min_p(options.min_p);
  return draw_candidate(options, position);
}

void Sampler::adjust(const SamplingOptions& options, std::span<const uint32_t> recent,
                     std::span<const uint32_t> banned) {
  adjusted_.assign(logits_.begin(), logits_.end());
  if (options.repetition_penalty != 1.0f) {
    if (recent.size() > penalty_window) recent = recent.last(penalty_window);
    for (const uint32_t id : recent) {
      // From the model's own score: an id that came twice is not punished twice.
      const float logit = logits_[id];
      adjusted_[id] = logit > 0 ? logit / options.repetition_penalty
                                : logit * options.repetition_penalty;
    }
  }
  for (const uint32_t id : banned) {
    if (id < adjusted_.size()) adjusted_[id] = minus_infinity;
  }
}

// All that are not out; with `n_wanted` above 0 at least so many of the best, if there are: few are near the best one.
void Sampler::gather_candidates(int n_wanted) {
  constexpr float near = 12.0f;
  const auto gather = [&](float above) {
    candidates_.clear();
    for (size_t id = 0; id < adjusted_.size(); ++id) {
      if (adjusted_[id] > above) candidates_.push_back({adjusted_[id], uint32_t(id)});
    }
  };
  if (n_wanted > 0) {
    gather(highest(adjusted_) - near);
    if (candidates_.size() >= size_t(n_wanted)) return;
  }
  gather(minus_infinity);
}

// Leaves the accepted ones; with `n_wanted` above 0 only so many of the best, sorted.
void Sampler::keep_accepted(TokenFilter& filter, int n_wanted) {
  const auto is_refused = [&](const Candidate& candidate) { return !filter.accepts(candidate.id); };
  if (n_wanted <= 0) {
    std::erase_if(candidates_, is_refused);
    return;
  }
  // Most of what a model likes is accepted as a rule, and then few have to be judged.
  const size_t n_most = std::min(size_t(n_wanted), candidates_.size());
  const size_t n_first = std::min(candidates_.size(), std::max<size_t>(64, 2 * n_most));
  const auto at = [&](size_t n) { return candidates_.begin() + std::ptrdiff_t(n); };
  std::partial_sort(at(0), at(n_first), candidates_.end(), better);
  const size_t n_kept = size_t(std::remove_if(at(0), at(n_first), is_refused) - at(0));
  if (n_kept >= n_most) {
    candidates_.resize(n_most);
    return;
  }
  candidates_.erase(std::remove_if(at(n_first), candidates_.end(), is_refused), candidates_.end());
  candidates_.erase(at(n_kept), at(n_first));
  keep_top_k(n_wanted);
}

// Leaves the best, sorted.
void Sampler::keep_top_k(int top_k) {
  const size_t n = std::min(candidates_.size(), size_t(std::max(top_k, 0)));
  std::partial_sort(candidates_.begin(), candidates_.begin() + n, candidates_.end(), better);
  candidates_.resize(n);
}

// Leaves the fewest best whose probabilities reach `top_p`, sorted.
void Sampler::keep_top_p(float top_p) {
  const float peak = std::ranges::max_element(candidates_, {}, &Candidate::logit)->logit;
  double total = 0;
  for (const Candidate& candidate : candidates_) total += std::exp(double(candidate.logit) - peak);

  // Few are needed as a rule, so sort a few, and more only while they do not reach.
  double sum = 0;
  size_t n_kept = 0;
  size_t n_sorted = 0;
  while (n_sorted < candidates_.size()) {
    const size_t n_more = std::min(candidates_.size() - n_sorted, std::max<size_t>(64, n_sorted * 7));
    std::partial_sort(candidates_.begin() + n_sorted, candidates_.begin() + n_sorted + n_more,
                      candidates_.end(), better);
    n_sorted += n_more;
    while (n_kept < n_sorted) {
      sum += std::exp(double(candidates_[n_kept++].logit) - peak);
      if (sum >= double(top_p) * total) {
        candidates_.resize(n_kept);
        return;
      }
    }
  }
}

void Sampler::keep_min_p(float min_p) {
  const float peak = std::ranges::max_element(candidates_, {}, &Candidate::logit)->logit;
  const float lowest = peak + std::log(min_p);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < lowest && c.logit < peak; });
}

uint32_t Sampler::draw_candidate(const SamplingOptions& options, uint64_t position) const {
  const float peak = std::ranges::max_element(candidates_, {}, &Candidate::logit)->logit;
  const auto weight = [&](const Candidate& candidate) {
    return std::exp((double(candidate.logit) - peak) / double(options.temperature));
  };
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  double left = uniform_at(options.seed, position) * total;
  for (const Candidate& candidate : candidates_) {
    left -= weight(candidate);
    if (left < 0) return candidate.id;
  }
  return candidates_.back().id;  // Rounding ate the rest.
}

}  // namespace nosa
