#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "session/token_filter.h"

namespace nosa {

/// How the next token is drawn.
///
/// In this order: banned ids are out, and what a filter refuses; the repetition penalty; then greedy takes
/// the best. Otherwise top-k, top-p and min-p cut the distribution as it stands, and the temperature shapes
/// what is left.
struct SamplingOptions {
  float temperature = 0.0f;         ///< 0 is greedy.
  int top_k = 0;                    ///< 0 keeps all.
  float top_p = 1.0f;               ///< 1 keeps all; at least one is kept.
  float min_p = 0.0f;               ///< Share of the best probability below which one is cut.
  float repetition_penalty = 1.0f;  ///< 1 is none.
  uint64_t seed = 0;
};

struct ScoredToken {
  uint32_t id = 0;
  float logprob = 0.0f;
};

/// Turns the scores of one step into tokens. Ties go to the lower id, everywhere. Log-probabilities
/// are those of the model, before penalty, bans, cuts and temperature.
class Sampler {
 public:
  /// Tokens that the repetition penalty looks back at.
  static constexpr int penalty_window = 256;

  /// Takes the scores of a step, [n_vocab]; they must stay as they are until the last call for it.
  void set_logits(std::span<const float> logits);

  /// Log-probability of `id`. REQUIRES: `id` < n_vocab.
  float logprob(uint32_t id) const;

  /// The `n` best, best first.
  std::vector<ScoredToken> top(int n);

  /// Draws. The same (seed, position, logits, recent) gives the same token. `recent` is the end of
  /// the sequence, of which the last penalty_window tokens count. When all ids are banned, the best
  /// one is taken all the same. With a `filter` (or null) only what it accepts is drawn, as if all others
  /// were banned; when that leaves none, the one it names.
  uint32_t draw(const SamplingOptions& options, std::span<const uint32_t> recent,
                std::span<const uint32_t> banned, uint64_t position, TokenFilter* filter = nullptr);

 private:
  struct Candidate {
    float logit;
    uint32_t id;
  };

  static bool better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  }

  void adjust(const SamplingOptions& options, std::span<const uint32_t> recent,
              std::span<const uint32_t> banned);
  void gather_candidates(int n_wanted);
  void keep_accepted(TokenFilter& filter, int n_wanted);
  void keep_top_k(int top_k);
  void keep_top_p(float top_p);
  void keep_min_p(float min_p);
  uint32_t draw_candidate(const SamplingOptions& options, uint64_t position) const;

  std::span<const float> logits_;
  double log_total_ = 0;                // Log of the sum of exp(logit).
  std::vector<float> adjusted_;         // [n_vocab], after penalty and bans
  std::vector<Candidate> candidates_;
};

/// A number in [0, 1) that depends on (seed, position) alone.
double uniform_at(uint64_t seed, uint64_t position);

/// Log of the sum of exp over `logits`, in a fixed order.
double log_sum_exp(std::span<const float> logits);

}  // namespace nosa
