#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "core/status.h"
#include "formats/weights.h"
#include "kv/block.h"
#include "model/config.h"
#include "model/eviction_scores.h"

namespace nosa {

/// The projections of a layer, in the order in which they are computed.
enum class Projection { kQ, kK, kV, kOut, kGate, kUp, kDown };
inline constexpr int n_projections = 7;

/// Sizes of a projection's weight: [n_rows, n_cols].
struct ProjectionShape {
  const char* name;  ///< As in "blk.0.attn_q.weight".
  int n_rows;
  int n_cols;
};
ProjectionShape projection_shape(Projection projection, const ModelConfig& config);

/// What a completion's prompt shows first. An adapter says which of the two it was taught.
enum class CompletionOrder {
  kPrefixFirst,  ///< What is before the cursor, then what is behind it: as models come.
  kSuffixFirst,  ///< What is behind the cursor, then what is before it.
};

/// What makes a NOSA model of an ordinary one (format "nosa-adapter-1"): eviction heads for every
/// layer, and low-rank updates of any of its projections, W + alpha / rank B A.
///
/// Immutable; owns or maps all that its views point to.
class Adapter {
 public:
  /// Opens `path` for the model that `config` describes, whose file has the SHA-256 `base_sha256`
  /// (lower-case hex). Fails with kNotFound, kCorrupt (damaged), kUnsupported (another version of
  /// the format, or made for a newer Nosa) or kInvalidArgument (made for another model).
  static Result<std::unique_ptr<Adapter>> open(const std::string& path,
                                               const std::string& base_sha256,
                                               const ModelConfig& config, const KvShape& kv_shape);

  const EvictionScores& eviction_scores() const { return eviction_scores_; }

  CompletionOrder completion_order() const { return completion_order_; }

  /// The update of a projection, or null for none. Lives as long as the adapter.
  const LowRankUpdate* update(int layer, Projection projection) const;

  /// The file's tensors, for a fingerprint.
  const Weights& weights() const { return *weights_; }

 private:
  explicit Adapter(const KvShape& kv_shape)
      : eviction_scores_(EvictionScores::training_free(kv_shape)) {}

  Status load(const ModelConfig& config, const KvShape& kv_shape, const std::string& base_sha256);
  Status load_updates(int layer, const ModelConfig& config, int rank, float scale);

  std::unique_ptr<Weights> weights_;
  EvictionScores eviction_scores_;
  CompletionOrder completion_order_ = CompletionOrder::kPrefixFirst;
  std::vector<std::array<std::optional<LowRankUpdate>, n_projections>> updates_;  // [n_layers]
  std::vector<std::vector<uint16_t>> turned_;  // The second factors, as LowRankUpdate has them.
};

}  // namespace nosa
