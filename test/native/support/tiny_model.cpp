#include "support/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "support/gguf_writer.h"
#include "support/quantised_rows.h"
#include "support/safetensors_writer.h"

namespace nosa::test {
namespace {

// The name in a Hugging Face checkpoint.
std::string hf_name(const std::string& name) {
  static const std::map<std::string, std::string> globals = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"output.weight", "lm_head.weight"}};
  static const std::map<std::string, std::string> stems = {
      {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},       {"nosa_delta", "self_attn.delta"}};
  if (const auto found = globals.find(name); found != globals.end()) return found->second;
  const size_t layer_end = name.find('.', 4);
  const size_t stem_end = name.find('.', layer_end + 1);
  if (stem_end == std::string::npos) {  // nosa_a, which is a parameter and no module.
    return "model.layers." + name.substr(4, layer_end - 4) + ".self_attn.A";
  }
  return "model.layers." + name.substr(4, layer_end - 4) + "." +
         stems.at(name.substr(layer_end + 1, stem_end - layer_end - 1)) + name.substr(stem_end);
}

// Rows of q and k as GGUF files of the llama architecture have them: neighbours make a pair.
Bytes interleave_halves(const Bytes& bytes, int n_rows, int head_dim) {
  const size_t stride = bytes.size() / size_t(n_rows);
  Bytes out(bytes.size());
  for (int row = 0; row < n_rows; ++row) {
    const int head = row / head_dim;
    const int at = row % head_dim;
    const int half = head_dim / 2;
    const int to = head * head_dim + (at < half ? 2 * at : 2 * (at - half) + 1);
    std::copy_n(bytes.begin() + ptrdiff_t(stride * row), stride,
                out.begin() + ptrdiff_t(stride * to));
  }
  return out;
}

// As NOSA's checkpoints say it: one list for every length, and no change of magnitude.
std::string rope_scaling(const TinyOptions& options) {
  if (options.long_factors.empty()) return "null";
  std::string list;
  for (const float factor : options.long_factors) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", double(factor));
    list += (list.empty() ? "" : ", ") + std::string(digits);
  }
  return "{\"rope_type\": \"longrope\", \"short_factor\": [" + list + "], \"long_factor\": [" +
         list + "], \"attention_factor\": 1.0, \"original_max_position_embeddings\": 8192}";
}

}  // namespace

TinyModel::TinyModel(const TinyOptions& options, Random& random) : options_(options) {
  const TinyOptions& o = options_;
  const int n_q = o.n_heads * o.head_dim;
  const int n_kv = o.n_kv_heads * o.head_dim;
  add("token_embd.weight", o.n_vocab, o.n_embd, o.dtype, random);
  add("output_norm.weight", 1, o.n_embd, DType::kF32, random);
  if (!o.tied) add("output.weight", o.n_vocab, o.n_embd, o.dtype, random);
  for (int layer = 0; layer < o.n_layers; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    add(blk + "attn_norm.weight", 1, o.n_embd, DType::kF32, random);
    add(blk + "ffn_norm.weight", 1, o.n_embd, DType::kF32, random);
    add(blk + "attn_q.weight", n_q, o.n_embd, o.dtype, random);
    add(blk + "attn_k.weight", n_kv, o.n_embd, o.dtype, random);
    add(blk + "attn_v.weight", n_kv, o.n_embd, o.dtype, random);
    add(blk + "attn_output.weight", o.n_embd, n_q, o.dtype, random);
    add(blk + "ffn_gate.weight", o.n_ff, o.n_embd, o.dtype, random);
    add(blk + "ffn_up.weight", o.n_ff, o.n_embd, o.dtype, random);
    add(blk + "ffn_down.weight", o.n_embd, o.n_ff, o.dtype, random);
    if (o.nosa) {
      add(blk + "nosa_a", 1, o.n_kv_heads, DType::kF32, random);
      add(blk + "nosa_delta.weight", o.n_kv_heads, n_kv, o.dtype, random);
    }
    if (o.architecture != "qwen2") continue;
    add(blk + "attn_q.bias", 1, n_q, DType::kF32, random);
    add(blk + "attn_k.bias", 1, n_kv, DType::kF32, random);
    add(blk + "attn_v.bias", 1, n_kv, DType::kF32, random);
  }
}

void TinyModel::add(const std::string& name, int rows, int cols, DType dtype, Random& random) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.rows = rows;
  tensor.cols = cols;
  if (name.ends_with("norm.weight")) {
    std::vector<float> values(static_cast<size_t>(cols));
    for (float& value : values) value = 1.0f + random.normal(0.2f);
    for (const float value : values) append(value, &tensor.bytes);
  } else {
    // Wide enough that attention is far from uniform and the logits are far apart.
    const float deviation = rows == 1 ? 0.5f : 1.5f / std::sqrt(float(cols));
    tensor.bytes = random_rows(dtype, rows, cols, random, deviation);
  }
  tensor.values = expanded(dtype, tensor.bytes, cols);
  tensors_.emplace(name, std::move(tensor));
}

std::string TinyModel::write_gguf(const TempFolder& folder, const std::string& name) const {
  const TinyOptions& o = options_;
  const std::string& arch = o.architecture;
  GgufWriter gguf;
  gguf.add_string("general.architecture", arch);
  gguf.add_string("general.name", "Tiny");
  gguf.add_u32(arch + ".block_count", uint32_t(o.n_layers));
  gguf.add_u32(arch + ".embedding_length", uint32_t(o.n_embd));
  gguf.add_u32(arch + ".feed_forward_length", uint32_t(o.n_ff));
  gguf.add_u32(arch + ".attention.head_count", uint32_t(o.n_heads));
  gguf.add_u32(arch + ".attention.head_count_kv", uint32_t(o.n_kv_heads));
  gguf.add_u32(arch + ".attention.key_length", uint32_t(o.head_dim));
  gguf.add_u32(arch + ".attention.value_length", uint32_t(o.head_dim));
  gguf.add_f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  gguf.add_f32(arch + ".rope.freq_base", o.theta);
  gguf.add_u32(arch + ".context_length", 8192);
  for (const auto& [tensor_name, tensor] : tensors_) {
    const bool turns = tensor_name.find("attn_q.") != std::string::npos ||
                       tensor_name.find("attn_k.") != std::string::npos;
    const Bytes bytes = turns && arch == "llama"
                            ? interleave_halves(tensor.bytes, tensor.rows, o.head_dim)
                            : tensor.bytes;
    const std::vector<int64_t> dims = tensor.rows == 1
                                          ? std::vector<int64_t>{tensor.cols}
                                          : std::vector<int64_t>{tensor.cols, tensor.rows};
    gguf.add_tensor(tensor_name, dims, tensor.dtype, bytes);
  }
  return folder.write(name, gguf.finish());
}

std::string TinyModel::write_folder(const TempFolder& folder, const std::string& name,
                                    int n_shards) const {
  const TinyOptions& o = options_;
  CHECK(block_values(o.dtype) == 1);
  std::filesystem::create_directory(folder.path_of(name));
  const auto number = [](const char* key, auto value) {
    return std::string("\"") + key + "\": " + std::to_string(value) + ", ";
  };
  folder.write(name + "/config.json",
               "{\"model_type\": \"" + o.architecture + "\", " +
                   number("num_hidden_layers", o.n_layers) + number("hidden_size", o.n_embd) +
                   number("intermediate_size", o.n_ff) +
                   number("num_attention_heads", o.n_heads) +
                   number("num_key_value_heads", o.n_kv_heads) + number("head_dim", o.head_dim) +
                   number("vocab_size", o.n_vocab) + number("max_position_embeddings", 8192) +
                   number("rope_theta", o.theta) + "\"rms_norm_eps\": 1e-05, " +
                   "\"hidden_act\": \"silu\", \"rope_scaling\": " + rope_scaling(o) +
                   (o.nosa ? ", \"architectures\": [\"SparseLlamaForCausalLM\"]" : "") +
                   ", \"tie_word_embeddings\": " +
                   (o.tied ? "true" : "false") + "}");

  std::vector<SafetensorsWriter> shards(static_cast<size_t>(n_shards));
  const auto shard_name = [&](size_t shard) {
    return n_shards == 1 ? std::string("model.safetensors")
                         : "model-" + std::to_string(shard) + ".safetensors";
  };
  std::string weight_map;
  size_t at = 0;
  for (const auto& [tensor_name, tensor] : tensors_) {
    const size_t shard = at++ % shards.size();
    const std::vector<int64_t> shape = tensor.rows == 1
                                           ? std::vector<int64_t>{tensor.cols}
                                           : std::vector<int64_t>{tensor.rows, tensor.cols};
    shards[shard].add(hf_name(tensor_name), dtype_name(tensor.dtype), shape, tensor.bytes);
    weight_map += (weight_map.empty() ? "\"" : ", \"") + hf_name(tensor_name) + "\": \"" +
                  shard_name(shard) + "\"";
  }
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    folder.write(name + "/" + shard_name(shard), shards[shard].finish());
  }
  if (n_shards > 1) {
    folder.write(name + "/model.safetensors.index.json",
                 "{\"metadata\": {}, \"weight_map\": {" + weight_map + "}}");
  }
  return folder.path_of(name);
}

std::vector<uint32_t> TinyModel::random_tokens(int n, Random& random) const {
  std::vector<uint32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(uint32_t(random.between(0, options_.n_vocab - 1)));
  return tokens;
}

}  // namespace nosa::test
