#pragma once

#include <vector>

#include "core/tensor_view.h"

namespace nosa::cuda {

/// Sizes and constants of a network of the Llama family; see model/config.h.
struct ModelShape {
  int n_layers = 0;
  int n_embd = 0;
  int n_ff = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int n_vocab = 0;
  float rms_eps = 0.0f;
  int n_rotated = 0;            ///< Leading dimensions of a head that RoPE turns.
  float rope_magnitude = 1.0f;  ///< Multiplies cos and sin.
  bool rope_neighbours = false; ///< Pairs neighbours; else the two halves.

  int q_width() const { return n_heads * head_dim; }
  int kv_width() const { return n_kv_heads * head_dim; }
  int n_streams() const { return n_layers * n_kv_heads; }
};

/// One product of a layer, in host memory.
struct LinearSource {
  WeightView weight;            // [n_rows, n_cols]
  const float* bias = nullptr;  // [n_rows] or null
};

struct LayerSource {
  const float* attn_norm = nullptr;  // [n_embd]
  const float* ffn_norm = nullptr;   // [n_embd]
  LinearSource q, k, v, out, gate, up, down;
  // NOSA's eviction heads, or null for the training-free ranking.
  const float* eviction_a = nullptr;           // [n_kv_heads]
  const float* eviction_delta = nullptr;       // [n_kv_heads, n_kv_heads * head_dim]
  const float* eviction_delta_bias = nullptr;  // [n_kv_heads]
};

/// A network in host memory, to be uploaded; only read while a DeviceModel is created.
struct ModelSource {
  ModelShape shape;
  const float* inv_freq = nullptr;     // [n_rotated / 2]
  WeightView embedding;                // [n_vocab, n_embd]
  const float* output_norm = nullptr;  // [n_embd]
  WeightView output;                   // [n_vocab, n_embd]; may be `embedding`
  std::vector<LayerSource> layers;

  bool additive() const { return !layers.empty() && layers[0].eviction_a != nullptr; }
};

}  // namespace nosa::cuda
