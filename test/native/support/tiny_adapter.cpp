#include "support/tiny_adapter.h"

#include <utility>

#include "support/quantised_rows.h"
#include "support/safetensors_writer.h"

namespace nosa::test {
namespace {

// Where each projection is in the file, and in the model.
constexpr std::pair<const char*, const char*> projections[] = {
    {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},  {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};

std::string in_file(int layer) { return "model.layers." + std::to_string(layer) + "."; }
std::string in_model(int layer) { return "blk." + std::to_string(layer) + "."; }

}  // namespace

TinyAdapter::TinyAdapter(const TinyModel& base, int rank, Random& random)
    : base_(base), rank_(rank), alpha_(float(random.between(1, 2 * rank))) {
  const TinyOptions& o = base.options();
  metadata = {{"format", "nosa-adapter-1"},
              {"base_sha256", base_sha256},
              {"rank", std::to_string(rank)},
              {"alpha", std::to_string(alpha_)},
              {"header", "raw"}};
  for (int layer = 0; layer < o.n_layers; ++layer) {
    const std::string prefix = in_file(layer) + "self_attn.";
    const int64_t n_kv = o.n_kv_heads * o.head_dim;
    add(prefix + "A", {o.n_kv_heads}, DType::kF32, 0.5f, random);
    add(prefix + "delta.weight", {o.n_kv_heads, n_kv}, DType::kF32, 0.2f, random);
    for (const auto& [file_name, model_name] : projections) {
      const std::string weight = in_model(layer) + model_name + ".weight";
      const bool from_heads = std::string(model_name) == "attn_output";
      const bool from_ffn = std::string(model_name) == "ffn_down";
      const int64_t n_cols = from_heads ? o.n_heads * o.head_dim : from_ffn ? o.n_ff : o.n_embd;
      const int64_t n_rows = int64_t(base.values(weight).size()) / n_cols;
      add(in_file(layer) + file_name + ".lora_A.weight", {rank, n_cols}, DType::kBF16, 0.1f, random);
      add(in_file(layer) + file_name + ".lora_B.weight", {n_rows, rank}, DType::kBF16, 0.2f, random);
    }
  }
}

void TinyAdapter::add(const std::string& name, const std::vector<int64_t>& shape, DType dtype,
                      float deviation, Random& random) {
  const int64_t rows = shape.size() == 1 ? 1 : shape[0];
  tensors[name] = {dtype_name(dtype), shape, random_rows(dtype, rows, shape.back(), random, deviation)};
}

std::vector<float> TinyAdapter::values(const std::string& name) const {
  const Tensor& tensor = tensors.at(name);
  return expanded(tensor.type == "F32" ? DType::kF32 : DType::kBF16, tensor.bytes, tensor.shape.back());
}

std::string TinyAdapter::write(const TempFolder& folder, const std::string& name) const {
  SafetensorsWriter file;
  file.set_metadata(metadata);
  for (const auto& [tensor_name, tensor] : tensors) {
    file.add(tensor_name, tensor.type, tensor.shape, tensor.bytes);
  }
  return folder.write(name, file.finish());
}

TinyModel TinyAdapter::merged() const {
  TinyModel model = base_;
  const TinyOptions& o = base_.options();
  for (int layer = 0; layer < o.n_layers; ++layer) {
    model.set(in_model(layer) + "nosa_a", values(in_file(layer) + "self_attn.A"));
    model.set(in_model(layer) + "nosa_delta.weight", values(in_file(layer) + "self_attn.delta.weight"));
    for (const auto& [file_name, model_name] : projections) {
      const std::vector<float> a = values(in_file(layer) + file_name + ".lora_A.weight");
      const std::vector<float> b = values(in_file(layer) + file_name + ".lora_B.weight");
      std::vector<float> weight = base_.values(in_model(layer) + model_name + ".weight");
      const size_t rank = size_t(rank_);
      const size_t n_cols = a.size() / rank;
      for (size_t row = 0; row < b.size() / rank; ++row) {
        for (size_t col = 0; col < n_cols; ++col) {
          double sum = 0;
          for (size_t r = 0; r < rank; ++r) sum += double(b[row * rank + r]) * a[r * n_cols + col];
          weight[row * n_cols + col] += float(sum * double(alpha_) / rank_);
        }
      }
      model.set(in_model(layer) + model_name + ".weight", std::move(weight));
    }
  }
  return model;
}

}  // namespace nosa::test
