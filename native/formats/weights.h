#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/rope_pairing.h"
#include "core/status.h"
#include "core/tensor_view.h"

namespace nosa {

struct WeightsSource;

enum class WeightsKind {
  kGguf,    ///< One GGUF file; metadata keys are those of the format ("qwen2.block_count").
  kFolder,  ///< config.json and safetensors; metadata keys are paths in config.json
            ///< ("num_hidden_layers", "rope_scaling.factor").
  kTensors, ///< A safetensors file alone, such as an adapter; metadata keys are its own, all texts.
};

/// The weights and the description of a model, whatever the kind of file.
///
/// Tensors have one set of names, that of GGUF: token_embd.weight, output_norm.weight,
/// output.weight (absent when tied to token_embd), and for layer N blk.N. followed by
/// attn_norm, attn_q, attn_k, attn_v, attn_output, ffn_norm, ffn_gate, ffn_up, ffn_down (.weight,
/// and .bias for attn_q, attn_k, attn_v, attn_output, ffn_*), attn_q_norm.weight,
/// attn_k_norm.weight, and NOSA's nosa_a [1, n_kv_heads], nosa_delta.weight
/// [n_kv_heads, n_kv_heads * head_dim] and nosa_delta.bias; in an adapter also the factors of
/// low-rank updates, .lora_a [rank, n_cols] and .lora_b [n_rows, rank] in the place of .weight.
/// Names outside this table are kept as they stand in the file.
///
/// Views point into mapped files and live as long as this object. Immutable, so any thread may
/// read.
class Weights {
 public:
  /// Opens a GGUF file, or a folder with config.json and model.safetensors or the shards that its
  /// model.safetensors.index.json names. Every tensor is checked to lie within its file and to have
  /// a type Nosa reads; the values are not looked at. Whether the architecture is one Nosa runs is
  /// for ModelConfig to say.
  static Result<std::unique_ptr<Weights>> open(const std::string& path);

  /// Opens a safetensors file that is no model by itself. The architecture is empty.
  static Result<std::unique_ptr<Weights>> open_tensors(const std::string& path);

  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  ~Weights();

  WeightsKind kind() const;

  /// What was opened, for messages.
  const std::string& path() const;

  /// general.architecture of a GGUF ("qwen2", "llama"), model_type of a folder ("llama").
  const std::string& architecture() const;

  /// How the rows of attn_q and attn_k are ordered: GGUF files of the llama architecture are
  /// permuted so that RoPE pairs neighbours; all others pair the two halves of a head.
  RopePairing rope_pairing() const;

  /// Every tensor by its canonical name. Each view is aligned for its elements.
  const std::map<std::string, WeightView, std::less<>>& tensors() const;

  bool has(std::string_view name) const;

  /// kNotFound, naming the file and the tensor, when there is none.
  Result<WeightView> tensor(std::string_view name) const;

  /// As tensor(), and kCorrupt unless it is [rows, cols].
  Result<WeightView> tensor(std::string_view name, int64_t rows, int64_t cols) const;

  /// Bytes of all tensors.
  int64_t size_bytes() const;

  // Metadata. An absent key (or a JSON null) is kNotFound, a value of another type kCorrupt; both
  // name the file and the key. Numbers convert when nothing is lost.

  bool has_meta(std::string_view key) const;
  Result<uint32_t> meta_u32(std::string_view key) const;
  Result<float> meta_f32(std::string_view key) const;
  Result<bool> meta_bool(std::string_view key) const;
  Result<std::string> meta_string(std::string_view key) const;

  /// A list; a single value is a list of one (eos_token_id comes as both).
  Result<std::vector<float>> meta_f32_array(std::string_view key) const;
  Result<std::vector<uint32_t>> meta_u32_array(std::string_view key) const;
  Result<std::vector<std::string>> meta_string_array(std::string_view key) const;

 private:
  explicit Weights(std::unique_ptr<WeightsSource> source);

  std::unique_ptr<WeightsSource> source_;
};

}  // namespace nosa
