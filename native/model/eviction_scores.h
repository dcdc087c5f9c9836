#pragma once

#include <vector>

#include "core/status.h"
#include "formats/weights.h"
#include "kv/block.h"

namespace nosa {

/// How much a token will matter to queries to come, for each KV head, from its key and value alone:
/// frozen when the token is written, whatever is asked later.
///
/// With NOSA's eviction heads (arXiv 2510.13602, section 3; A and delta of a checkpoint or adapter):
///
///   u[h]     = delta[h] . concat(v of all KV heads) + delta_bias[h]
///   score[h] = A[h] softplus(u[h])
///
/// which is also added to the token's attention logits. Without them the ranking is training-free and
/// nothing is added: the negated norm of the key, since keys of small norm are those that queries
/// attend to regardless of their content (decisions/0002-training-free-ranking.md).
class EvictionScores {
 public:
  /// The training-free ranking.
  static EvictionScores training_free(const KvShape& shape);

  /// The eviction heads in `weights`. Fails with kCorrupt when some layers have them and others not,
  /// or when one has another shape than `shape` says.
  static Result<EvictionScores> from_weights(const Weights& weights, const KvShape& shape);

  /// Whether `weights` has eviction heads, in any layer.
  static bool present_in(const Weights& weights);

  /// Whether scores are also added to the attention logits.
  bool additive() const { return !layers_.empty(); }

  /// k, v [n_tokens, n_kv_heads, head_dim] to out [n_kv_heads, n_tokens].
  void compute(int layer, const float* k, const float* v, int n_tokens, float* out) const;

 private:
  struct Layer {
    std::vector<float> a;           // [n_kv_heads]
    std::vector<float> delta;       // [n_kv_heads, n_kv_heads * head_dim]
    std::vector<float> delta_bias;  // [n_kv_heads]
  };

  explicit EvictionScores(const KvShape& shape) : shape_(shape) {}

  KvShape shape_;
  std::vector<Layer> layers_;  // Empty when training-free.
};

}  // namespace nosa
