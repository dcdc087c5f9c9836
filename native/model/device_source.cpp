#include "model/device_source.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/dequantize.h"
#include "core/half.h"
#include "model/eviction_scores.h"
#include "model/rope.h"

namespace nosa {

Result<std::unique_ptr<DeviceSource>> DeviceSource::create(const Weights& weights, const ModelConfig& config, const Adapter* adapter,
                                                           int n_threads) {
  std::unique_ptr<DeviceSource> source(new DeviceSource());
  if (Status status = source->load(weights, config, adapter); !status.ok()) return status;
  if (adapter == nullptr) return source;
  const Result<std::unique_ptr<ThreadPool>> pool = ThreadPool::create({.n_threads = n_threads});
  if (!pool.ok()) return pool.status();
  for (int layer = 0; layer < config.n_layers; ++layer) source->update(layer, *adapter, **pool);
  return source;
}

// Products that share an input are of one kind on the GPU, so an update of one makes floats of all.
void DeviceSource::update(int layer, const Adapter& adapter, ThreadPool& pool) {
  cuda::LayerSource& of = source_.layers[size_t(layer)];
  struct Part {
    Projection projection;
    cuda::LinearSource& linear;
  };
  const std::vector<Part> groups[] = {
      {{Projection::kQ, of.q}, {Projection::kK, of.k}, {Projection::kV, of.v}},
      {{Projection::kOut, of.out}},
      {{Projection::kGate, of.gate}, {Projection::kUp, of.up}},
      {{Projection::kDown, of.down}}};
  for (const std::vector<Part>& group : groups) {
    const auto updated = [&](const Part& part) { return adapter.update(layer, part.projection) != nullptr; };
    if (std::ranges::none_of(group, updated)) continue;
    for (const Part& part : group) add(part.linear, adapter.update(layer, part.projection), pool);
  }
}

// Makes a matrix of 16-bit floats of a weight, with its update if there is one.
void DeviceSource::add(cuda::LinearSource& linear, const LowRankUpdate* update, ThreadPool& pool) {
  constexpr int64_t rows_at_once = 16;
  const WeightView weight = linear.weight;
  const size_t n_cols = size_t(weight.cols);
  std::vector<float> factor;  // [rank, n_cols]
  if (update != nullptr) {
    factor.resize(size_t(update->rank) * n_cols);
    for (size_t i = 0; i < factor.size(); ++i) factor[i] = update->scale * bf16_to_f32(update->a[i]);
  }
  std::vector<uint16_t>& to = updated_.emplace_back(size_t(weight.rows) * n_cols);
  pool.parallel_for((weight.rows + rows_at_once - 1) / rows_at_once, [&](int64_t item, int) {
    std::vector<float> row(n_cols);
    for (int64_t r = item * rows_at_once; r < std::min(weight.rows, (item + 1) * rows_at_once); ++r) {
      dequantize_row(weight.dtype, weight.row(r), weight.cols, row.data());
      for (int i = 0; update != nullptr && i < update->rank; ++i) {
        const float share = bf16_to_f32(update->b[size_t(i) * size_t(weight.rows) + size_t(r)]);
        const float* a = factor.data() + size_t(i) * n_cols;
        for (size_t c = 0; c < n_cols; ++c) row[c] += share * a[c];
      }
      for (size_t c = 0; c < n_cols; ++c) to[size_t(r) * n_cols + c] = f32_to_f16(row[c]);
    }
  });
  linear.weight = {reinterpret_cast<const std::byte*>(to.data()), DType::kF16, weight.rows, weight.cols};
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

// The eviction heads of one layer. REQUIRES: they are there.
Status DeviceSource::load_heads(const Weights& weights, int layer, const ModelConfig& config) {
  const std::string blk = "blk." + std::to_string(layer) + ".";
  cuda::LayerSource& to = source_.layers[size_t(layer)];
  struct Part {
    const float*& to;
    const char* name;
    int n_rows, n_cols;
  };
  const int n_kv_heads = config.n_kv_heads;
  for (const Part& part : {Part{to.eviction_a, "nosa_a", 1, n_kv_heads},
                           Part{to.eviction_delta, "nosa_delta.weight", n_kv_heads, n_kv_heads * config.head_dim},
                           Part{to.eviction_delta_bias, "nosa_delta.bias", 1, n_kv_heads}}) {
    if (&part.to == &to.eviction_delta_bias && !weights.has(blk + part.name)) continue;
    const Result<const float*> values = vector(weights, blk + part.name, part.n_rows, part.n_cols);
    if (!values.ok()) return values.status();
    part.to = *values;
  }
  return {};
}

Status DeviceSource::load(const Weights& weights, const ModelConfig& config, const Adapter* adapter) {
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
  const Weights& heads = adapter != nullptr ? adapter->weights() : weights;
  const bool has_heads = EvictionScores::present_in(heads);
  for (int i = 0; i < config.n_layers; ++i) {
    cuda::LayerSource& layer = source_.layers.emplace_back();
    const std::string blk = "blk." + std::to_string(i) + ".";
    Status status = floats(layer.attn_norm, blk + "attn_norm.weight", 1, config.n_embd);
    if (status.ok()) status = floats(layer.ffn_norm, blk + "ffn_norm.weight", 1, config.n_embd);
    if (status.ok() && has_heads) status = load_heads(heads, i, config);
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
