#include "model/eviction_scores.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/dequantize.h"

namespace nosa {
namespace {

Result<std::vector<float>> load_matrix(const Weights& weights, const std::string& name, int n_rows,
                                       int n_cols) {
  const Result<WeightView> view = weights.tensor(name, n_rows, n_cols);
  if (!view.ok()) return view.status();
  std::vector<float> values(size_t(n_rows) * size_t(n_cols));
  for (int row = 0; row < n_rows; ++row) {
    dequantize_row(view->dtype, view->row(row), n_cols, values.data() + size_t(row) * n_cols);
  }
  return values;
}

/// log(1 + e^x) without overflow; what it loses far to the right is below a float's last bit.
float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

}  // namespace

EvictionScores EvictionScores::training_free(const KvShape& shape) { return EvictionScores(shape); }

bool EvictionScores::present_in(const Weights& weights) {
  return std::ranges::any_of(weights.tensors(), [](const auto& entry) {
    return entry.first.find(".nosa_") != std::string::npos;
  });
}

Result<EvictionScores> EvictionScores::from_weights(const Weights& weights, const KvShape& shape) {
  EvictionScores scores(shape);
  const int n_heads = shape.n_kv_heads;
  for (int i = 0; i < shape.n_layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    Layer layer;
    Result<std::vector<float>> a = load_matrix(weights, blk + "nosa_a", 1, n_heads);
    if (!a.ok()) return Status::corrupt(a.status().message());
    layer.a = *std::move(a);
    Result<std::vector<float>> delta =
        load_matrix(weights, blk + "nosa_delta.weight", n_heads, n_heads * shape.head_dim);
    if (!delta.ok()) return Status::corrupt(delta.status().message());
    layer.delta = *std::move(delta);
    layer.delta_bias.assign(size_t(n_heads), 0.0f);
    if (weights.has(blk + "nosa_delta.bias")) {
      Result<std::vector<float>> bias = load_matrix(weights, blk + "nosa_delta.bias", 1, n_heads);
      if (!bias.ok()) return bias.status();
      layer.delta_bias = *std::move(bias);
    }
    scores.layers_.push_back(std::move(layer));
  }
  return scores;
}

void EvictionScores::compute(int layer, const float* k, const float* v, int n_tokens,
                             float* out) const {
  const int n_heads = shape_.n_kv_heads;
  const int width = n_heads * shape_.head_dim;
  for (int t = 0; t < n_tokens; ++t) {
    for (int h = 0; h < n_heads; ++h) {
      float& score = out[size_t(h) * n_tokens + t];
      if (!additive()) {
        const float* key = k + size_t(t) * width + size_t(h) * shape_.head_dim;
        float sum = 0.0f;
        for (int i = 0; i < shape_.head_dim; ++i) sum += key[i] * key[i];
        score = -std::sqrt(sum);
        continue;
      }
      const Layer& heads = layers_[layer];
      const float* delta = heads.delta.data() + size_t(h) * width;
      const float* value = v + size_t(t) * width;
      float u = heads.delta_bias[h];
      for (int i = 0; i < width; ++i) u += delta[i] * value[i];
      score = heads.a[h] * softplus(u);
    }
  }
}

}  // namespace nosa
