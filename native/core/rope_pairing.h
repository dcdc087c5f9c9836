#pragma once

namespace nosa {

/// Pairs of a head's dimensions that RoPE rotates together: a fact of a model file (see Weights).
enum class RopePairing {
  kHalfSplit,  // (i, i + head_dim / 2): HF checkpoints, Qwen2 GGUF
  kAdjacent,   // (2i, 2i + 1): Llama GGUF, whose q and k rows were permuted for it
};

}  // namespace nosa
