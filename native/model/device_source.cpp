#include "model/device_source.h"

#include <string>
#include <utility>

#include "core/dequantize.h"
#include "model/eviction_scores.h"
#include "model/rope.h"

namespace nosa {

Result<std::unique_ptr<DeviceSource>> DeviceSource::create(const Weights& weights, const ModelConfig& config) {
  std::unique_ptr<DeviceSource> source(new DeviceSource());
  if (Status status = source->load(weights, config); !status.ok()) return status;
  return source;
}

Result<const float*> DeviceSource::vector(const Weights& weights, const std::string& name, int rows, int cols) {
  const Result<WeightView> view = weights.tensor(name, rows, cols);
  if (!view.ok()) return view.status();
  std::vector<float>& values = vectors_.emplace_back(size_t(rows) * size_t(cols));
  for (int row = 0; row < rows; ++row) {
    dequantize_row(view->dtype, view->row(row), cols, values.data() + size_t(row) * size_t(cols));
  }
  return static_cast<const float*>(values.data());
}

Result<cuda::LinearSource> DeviceSource::linear(const Weights& weights, const std::string& stem, int n_rows, int n_cols) {
  const Result<WeightView> weight = weights.tensor(stem + ".weight", n_rows, n_cols);
  if (!weight.ok()) return weight.status();
  cuda::LinearSource linear{*weight, nullptr};
  if (!weights.has(stem + ".bias")) return linear;
  const Result<const float*> bias = vector(weights, stem + ".bias", 1, n_rows);
  if (!bias.ok()) return bias.status();
  linear.bias = *bias;
  return linear;
}

Status DeviceSource::load(const Weights& weights, const ModelConfig& config) {
  cuda::ModelShape& shape = source_.shape;
  shape.n_layers = config.n_layers;
  shape.n_embd = config.n_embd;
  shape.n_ff = config.n_ff;
  shape.n_heads = config.n_heads;
  shape.n_kv_heads = config.n_kv_heads;
  shape.head_dim = config.head_dim;
  shape.n_vocab = config.n_vocab;
  shape.rms_eps = config.rms_eps;
  shape.n_rotated = config.rope.n_rotated;
  shape.rope_neighbours = config.rope_pairing == RopePairing::kAdjacent;
  Result<RopeTable> rope = make_rope_table(config.rope);
  if (!rope.ok()) return rope.status();
  shape.rope_magnitude = rope->magnitude;
  source_.inv_freq = vectors_.emplace_back(std::move(rope->inv_freq)).data();

  const auto matrix = [&](WeightView& to, const char* name) -> Status {
    const Result<WeightView> view = weights.tensor(name, config.n_vocab, config.n_embd);
    if (!view.ok()) return view.status();
    to = *view;
    return {};
  };
  const auto floats = [&](const float*& to, const std::string& name, int rows, int cols) -> Status {
    const Result<const float*> values = vector(weights, name, rows, cols);
    if (!values.ok()) return values.status();
    to = *values;
    return {};
  };
  if (Status status = matrix(source_.embedding, "token_embd.weight"); !status.ok()) return status;
  source_.output = source_.embedding;
  if (weights.has("output.weight")) {
    if (Status status = matrix(source_.output, "output.weight"); !status.ok()) return status;
  }
  if (Status status = floats(source_.output_norm, "output_norm.weight", 1, config.n_embd); !status.ok()) return status;

  const int n_q = shape.q_width();
  const int n_kv = shape.kv_width();
  const int n_kv_heads = config.n_kv_heads;
  const bool has_heads = EvictionScores::present_in(weights);
  for (int i = 0; i < config.n_layers; ++i) {
    cuda::LayerSource& layer = source_.layers.emplace_back();
    const std::string blk = "blk." + std::to_string(i) + ".";
    Status status = floats(layer.attn_norm, blk + "attn_norm.weight", 1, config.n_embd);
    if (status.ok()) status = floats(layer.ffn_norm, blk + "ffn_norm.weight", 1, config.n_embd);
    if (status.ok() && has_heads) {
      status = floats(layer.eviction_a, blk + "nosa_a", 1, n_kv_heads);
      if (status.ok()) status = floats(layer.eviction_delta, blk + "nosa_delta.weight", n_kv_heads, n_kv);
      if (status.ok() && weights.has(blk + "nosa_delta.bias")) {
        status = floats(layer.eviction_delta_bias, blk + "nosa_delta.bias", 1, n_kv_heads);
      }
    }
    if (!status.ok()) return status;
    struct Part {
      cuda::LinearSource& to;
      const char* name;
      int n_rows, n_cols;
    };
    const Part parts[] = {{layer.q, "attn_q", n_q, config.n_embd},
                          {layer.k, "attn_k", n_kv, config.n_embd},
                          {layer.v, "attn_v", n_kv, config.n_embd},
                          {layer.out, "attn_output", config.n_embd, n_q},
                          {layer.gate, "ffn_gate", config.n_ff, config.n_embd},
                          {layer.up, "ffn_up", config.n_ff, config.n_embd},
                          {layer.down, "ffn_down", config.n_embd, config.n_ff}};
    for (const Part& part : parts) {
      const Result<cuda::LinearSource> found = linear(weights, blk + part.name, part.n_rows, part.n_cols);
      if (!found.ok()) return found.status();
      part.to = *found;
    }
  }
  return {};
}

}  // namespace nosa
