#include "model/adapter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

namespace nosa {
namespace {

constexpr std::string_view format = "nosa-adapter-1";
constexpr int rank_max = 256;

std::string hex_start(const std::string& hash) { return hash.substr(0, 12); }

template <typename T>
Result<T> number_of(const Weights& weights, const char* key) {
  const Result<std::string> text = weights.meta_string(key);
  if (!text.ok()) return Status::corrupt(text.status().message());
  T value{};
  const char* end = text->data() + text->size();
  const auto [at, error] = std::from_chars(text->data(), end, value);
  if (error == std::errc() && at == end) return value;
  return Status::corrupt(weights.path() + ": " + key + " \"" + *text + "\" is no number.");
}

/// An adapter that says nothing was taught what models are.
Result<CompletionOrder> completion_order_of(const Weights& weights) {
  constexpr const char* key = "completion_order";
  if (!weights.has_meta(key)) return CompletionOrder::kPrefixFirst;
  const Result<std::string> order = weights.meta_string(key);
  if (!order.ok()) return Status::corrupt(order.status().message());
  if (*order == "prefix-first") return CompletionOrder::kPrefixFirst;
  if (*order == "suffix-first") return CompletionOrder::kSuffixFirst;
  return Status::unsupported(weights.path() + " was made for a newer Nosa: it asks for completions in an order (" +
                             *order + ") that this one does not know.");
}

/// The row of a GGUF's weight that row `row` of a checkpoint's becomes: files of the llama
/// architecture put the two halves of a head's dimensions into one another.
int64_t stored_row(int64_t row, Projection projection, const ModelConfig& config) {
  const bool turns = projection == Projection::kQ || projection == Projection::kK;
  if (!turns || config.rope_pairing != RopePairing::kAdjacent) return row;
  const int64_t at = row % config.head_dim;
  const int64_t half = config.head_dim / 2;
  return row - at + (at < half ? 2 * at : 2 * (at - half) + 1);
}

}  // namespace

ProjectionShape projection_shape(Projection projection, const ModelConfig& config) {
  const int n_q = config.n_heads * config.head_dim;
  const int n_kv = config.n_kv_heads * config.head_dim;
  switch (projection) {
    case Projection::kQ: return {"attn_q", n_q, config.n_embd};
    case Projection::kK: return {"attn_k", n_kv, config.n_embd};
    case Projection::kV: return {"attn_v", n_kv, config.n_embd};
    case Projection::kOut: return {"attn_output", config.n_embd, n_q};
    case Projection::kGate: return {"ffn_gate", config.n_ff, config.n_embd};
    case Projection::kUp: return {"ffn_up", config.n_ff, config.n_embd};
    case Projection::kDown: break;
  }
  return {"ffn_down", config.n_embd, config.n_ff};
}

Result<std::unique_ptr<Adapter>> Adapter::open(const std::string& path,
                                               const std::string& base_sha256,
                                               const ModelConfig& config,
                                               const KvShape& kv_shape) {
  Result<std::unique_ptr<Weights>> weights = Weights::open_tensors(path);
  if (!weights.ok()) return weights.status();
  std::unique_ptr<Adapter> adapter(new Adapter(kv_shape));
  adapter->weights_ = *std::move(weights);
  if (Status status = adapter->load(config, kv_shape, base_sha256); !status.ok()) return status;
  return adapter;
}

Status Adapter::load(const ModelConfig& config, const KvShape& kv_shape,
                     const std::string& base_sha256) {
  const std::string& path = weights_->path();
  const Result<std::string> stated = weights_->meta_string("format");
  if (!stated.ok() || !stated->starts_with("nosa-adapter-")) {
    return Status::corrupt(path + " is not a NOSA adapter.");
  }
  if (*stated != format) {
    return Status::unsupported(path + " is a NOSA adapter of another format (" + *stated +
                               "); this version of Nosa reads " + std::string(format) + ".");
  }
  const Result<std::string> made_for = weights_->meta_string("base_sha256");
  if (!made_for.ok()) return Status::corrupt(made_for.status().message());
  if (*made_for != base_sha256) {
    return Status::invalid_argument(path + " was made for another model file (SHA-256 " +
                                    hex_start(*made_for) + "..., this one has " +
                                    hex_start(base_sha256) + "...).");
  }
  const Result<int> rank = number_of<int>(*weights_, "rank");
  if (!rank.ok()) return rank.status();
  const Result<float> alpha = number_of<float>(*weights_, "alpha");
  if (!alpha.ok()) return alpha.status();
  if (*rank < 0 || *rank > rank_max || !std::isfinite(*alpha)) {
    return Status::corrupt(path + ": rank " + std::to_string(*rank) + " and alpha " +
                           std::to_string(*alpha) + " make no sense.");
  }

  const Result<CompletionOrder> order = completion_order_of(*weights_);
  if (!order.ok()) return order.status();
  completion_order_ = *order;

  Result<EvictionScores> scores = EvictionScores::from_weights(*weights_, kv_shape);
  if (!scores.ok()) return scores.status();
  eviction_scores_ = *std::move(scores);
  updates_.resize(size_t(config.n_layers));
  for (int layer = 0; layer < config.n_layers; ++layer) {
    Status status = load_updates(layer, config, *rank, *alpha / float(std::max(*rank, 1)));
    if (!status.ok()) return status;
  }
  // Whatever is left over would silently be missing from the model.
  size_t n_known = 0;
  for (int layer = 0; layer < config.n_layers; ++layer) {
    n_known += 2;
    n_known += weights_->has("blk." + std::to_string(layer) + ".nosa_delta.bias");
    for (const auto& update : updates_[size_t(layer)]) n_known += update ? 2 : 0;
  }
  if (n_known == weights_->tensors().size()) return {};
  return Status::invalid_argument(path + " has tensors for layers or parts that the model lacks.");
}

Status Adapter::load_updates(int layer, const ModelConfig& config, int rank, float scale) {
  for (int i = 0; i < n_projections; ++i) {
    const Projection projection{i};
    const auto [name, n_rows, n_cols] = projection_shape(projection, config);
    const std::string stem = "blk." + std::to_string(layer) + "." + name;
    if (!weights_->has(stem + ".lora_a") && !weights_->has(stem + ".lora_b")) continue;

    const Result<WeightView> a = weights_->tensor(stem + ".lora_a", rank, n_cols);
    if (!a.ok()) return Status::corrupt(a.status().message());
    const Result<WeightView> b = weights_->tensor(stem + ".lora_b", n_rows, rank);
    if (!b.ok()) return Status::corrupt(b.status().message());
    if (a->dtype != DType::kBF16 || b->dtype != DType::kBF16) {
      return Status::corrupt(weights_->path() + ": the updates of " + stem + " are not in BF16.");
    }
    std::vector<uint16_t> turned(size_t(rank) * size_t(n_rows));
    for (int64_t row = 0; row < n_rows; ++row) {
      const auto* from = reinterpret_cast<const uint16_t*>(b->row(row));
      const int64_t to = stored_row(row, projection, config);
      for (int64_t r = 0; r < rank; ++r) turned[size_t(r * n_rows + to)] = from[r];
    }
    turned_.push_back(std::move(turned));
    LowRankUpdate update;
    update.rank = rank;
    update.scale = scale;
    update.a = reinterpret_cast<const uint16_t*>(a->data);
    update.b = turned_.back().data();
    updates_[size_t(layer)][size_t(i)] = update;
  }
  return {};
}

const LowRankUpdate* Adapter::update(int layer, Projection projection) const {
  const auto& update = updates_[size_t(layer)][size_t(projection)];
  return update ? &*update : nullptr;
}

}  // namespace nosa
