#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/reference/selection.h"
#include "support/tiny_model.h"

namespace nosa::test {

/// A tiny NOSA model in double precision and plain loops, one token at a time, written from the
/// text of the algorithm (arXiv 2510.13602 and what its released code does): eviction scores,
/// compressed keys, the two top-k passes, the bias at its full size. It shares nothing with the
/// engine.
class NosaReference {
 public:
  using Constants = reference::SelectionConstants;
  /// By layer and KV head: ascending blocks, those of the attended parts first.
  using Selection = std::vector<std::vector<int32_t>>;

  /// Tokens from a position on that see all tokens of some finished parts, and their own past.
  class Part {
   public:
    Part(const NosaReference& reference, int base_position, std::vector<const Part*> attends);

    int n_tokens() const { return n_tokens_; }

   private:
    friend class NosaReference;
    /// Of one layer and KV head.
    struct Head {
      std::vector<double> k, v;        // [n_tokens, head_dim]
      std::vector<double> score;       // [n_tokens]
      std::vector<double> window_key;  // [n_windows, head_dim]
      std::vector<double> window_score;
    };
    int n_blocks() const { return (n_tokens_ + 63) / 64; }

    int base_position_;
    std::vector<const Part*> attends_;
    int n_tokens_ = 0;
    std::vector<Head> heads_;  // [n_layers, n_kv_heads]
  };

  struct Step {
    std::vector<double> logprobs;  // [n_vocab], of the token after
    /// Selections whose ranking was too close to call, and went the other way.
    int n_near_ties = 0;
    /// Selections that no rounding explains.
    int n_wrong = 0;
  };

  /// `model` must outlive the reference.
  explicit NosaReference(const TinyModel& model);

  /// Computes one more token of `part`, attending to everything.
  Step step(Part& part, uint32_t token) const { return step(part, token, nullptr, nullptr); }

  /// The same by NOSA's selection, held against `seen`, an implementation's: it is what the
  /// reference then attends to, so that a tie within rounding does not set the two apart for good.
  Step step(Part& part, uint32_t token, const Constants& constants, const Selection& seen) const {
    return step(part, token, &constants, &seen);
  }

 private:
  using Row = std::vector<double>;

  Step step(Part& part, uint32_t token, const Constants* constants, const Selection* seen) const;
  Row linear(const std::string& stem, const Row& x) const;
  Row norm(const std::string& name, const Row& x) const;
  void turn(Row& heads, int position) const;
  void store(Part& part, int layer, const Row& k, const Row& v) const;
  void check(const Part& part, const Part::Head& own, size_t head_at, const double* q,
             const Constants& constants, const std::vector<int32_t>& seen, Step& step) const;
  Row attend(const Part& part, size_t head_at, const double* q,
             const std::vector<int32_t>* blocks) const;

  const TinyModel& model_;
  std::vector<double> frequencies_;  // [head_dim / 2]
};

}  // namespace nosa::test
