#include "formats/tensor_names.h"

#include <algorithm>

namespace nosa {
namespace {

struct Renaming {
  std::string_view hf;
  std::string_view canonical;
};

constexpr Renaming model_names[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

// After "model.layers.N." and "blk.N.". With `.weight` or `.bias` behind them, the last apart.
constexpr Renaming layer_modules[] = {
    {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.delta", "nosa_delta"},   {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"},
};
constexpr Renaming layer_parameters[] = {
    {"self_attn.A", "nosa_a"},
};

// Between a module and its ".weight": the two factors of a low-rank update.
constexpr Renaming update_factors[] = {
    {".lora_A", ".lora_a"},
    {".lora_B", ".lora_b"},
};

template <size_t n>
std::string_view renamed(const Renaming (&table)[n], std::string_view hf) {
  const auto at = std::find_if(std::begin(table), std::end(table),
                               [&](const Renaming& entry) { return entry.hf == hf; });
  return at == std::end(table) ? std::string_view() : at->canonical;
}

/// The canonical part of a name after its layer; empty when there is none.
std::string renamed_in_layer(std::string_view rest) {
  if (const auto whole = renamed(layer_parameters, rest); !whole.empty()) return std::string(whole);
  const size_t dot = rest.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view suffix = rest.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return {};
  const std::string_view stem = rest.substr(0, dot);
  for (const auto& [hf, canonical] : update_factors) {
    if (suffix != ".weight" || !stem.ends_with(hf)) continue;
    const std::string_view updated = renamed(layer_modules, stem.substr(0, stem.size() - hf.size()));
    return updated.empty() ? std::string() : std::string(updated) + std::string(canonical);
  }
  const std::string_view module = renamed(layer_modules, stem);
  return module.empty() ? std::string() : std::string(module) + std::string(suffix);
}

}  // namespace

std::string canonical_tensor_name(std::string_view hf_name) {
  if (const auto whole = renamed(model_names, hf_name); !whole.empty()) return std::string(whole);
  constexpr std::string_view prefix = "model.layers.";
  if (!hf_name.starts_with(prefix)) return std::string(hf_name);
  const size_t number_end = hf_name.find_first_not_of("0123456789", prefix.size());
  if (number_end == prefix.size() || number_end == std::string_view::npos ||
      hf_name[number_end] != '.') {
    return std::string(hf_name);
  }
  const std::string_view number = hf_name.substr(prefix.size(), number_end - prefix.size());
  const std::string rest = renamed_in_layer(hf_name.substr(number_end + 1));
  if (rest.empty()) return std::string(hf_name);
  return "blk." + std::string(number) + "." + rest;
}

}  // namespace nosa
