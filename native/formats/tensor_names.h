#pragma once

#include <string>
#include <string_view>

namespace nosa {

/// The canonical (GGUF) name of a tensor of a Hugging Face checkpoint of the llama family, such as
/// blk.3.attn_q.weight for model.layers.3.self_attn.q_proj.weight. A name outside the table of
/// Weights is returned as it is.
std::string canonical_tensor_name(std::string_view hf_name);

}  // namespace nosa
