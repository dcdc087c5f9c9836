#pragma once

#include <string>

#include "core/rope_pairing.h"
#include "core/status.h"
#include "formats/weights.h"
#include "model/rope.h"

namespace nosa {

/// The sizes and constants of a model of the Llama or Qwen2 family.
struct ModelConfig {
  std::string architecture;  ///< "llama" or "qwen2".
  std::string name;          ///< As the file calls itself, or its file name.
  int n_layers = 0;
  int n_embd = 0;
  int n_ff = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int n_vocab = 0;
  int context_length = 0;  ///< Positions trained for, RoPE scaling included.
  float rms_eps = 0.0f;
  RopeConfig rope;
  RopePairing rope_pairing = RopePairing::kHalfSplit;
};

/// Reads the description of a model. Whatever the forward pass would get wrong is refused here with
/// kUnsupported and its name: another architecture, a sliding window, experts, an unknown RoPE
/// scaling, a tensor that has no place. A description that contradicts itself is kCorrupt.
Result<ModelConfig> read_model_config(const Weights& weights);

}  // namespace nosa
