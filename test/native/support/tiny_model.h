#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "support/bytes.h"
#include "support/random.h"
#include "support/temp_folder.h"

namespace nosa::test {

struct TinyOptions {
  std::string architecture = "llama";  ///< or "qwen2", which has biases on q, k and v
  DType dtype = DType::kF32;           ///< of the matrices; norms and biases are F32
  int n_layers = 2;
  int n_embd = 64;
  int n_ff = 96;
  int n_heads = 4;
  int n_kv_heads = 2;
  int head_dim = 16;
  int n_vocab = 160;
  bool tied = false;
  float theta = 10000.0f;
  bool nosa = false;                ///< With eviction heads, as NOSA's own checkpoints have them.
  std::vector<float> long_factors;  ///< [head_dim / 2] of longrope, or none; folders alone.
};

/// A model with random weights, small enough for a reference in plain loops.
///
/// Matrices are [rows, cols] under their canonical names, with the rows of attn_q and attn_k as
/// Hugging Face orders them (RoPE pairs the halves of a head).
class TinyModel {
 public:
  TinyModel(const TinyOptions& options, Random& random);

  const TinyOptions& options() const { return options_; }

  /// The numbers that the file stands for.
  const std::vector<float>& values(const std::string& name) const { return tensors_.at(name).values; }
  bool has(const std::string& name) const { return tensors_.contains(name); }

  /// Changes the numbers, not what is written.
  void set(const std::string& name, std::vector<float> values) {
    tensors_[name].values = std::move(values);
  }

  /// Writes a GGUF file and returns its path.
  std::string write_gguf(const TempFolder& folder, const std::string& name) const;

  /// Writes config.json and `n_shards` safetensors files into a new folder below `folder`, and
  /// returns its path. REQUIRES: a plain type.
  std::string write_folder(const TempFolder& folder, const std::string& name, int n_shards) const;

  /// Ids anywhere in the vocabulary.
  std::vector<uint32_t> random_tokens(int n, Random& random) const;

 private:
  struct Tensor {
    DType dtype = DType::kF32;
    int rows = 1;
    int cols = 0;
    Bytes bytes;
    std::vector<float> values;
  };

  void add(const std::string& name, int rows, int cols, DType dtype, Random& random);

  TinyOptions options_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace nosa::test
