#include "model/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/block_tokens.h"
#include "core/dequantize.h"
#include "kv/selection.h"
#include "model/eviction_scores.h"

namespace nosa {
namespace {

constexpr int layers_max = 1024;
constexpr int size_max = 1 << 24;

// Reads keys one after the other and remembers the first failure, so that a list of fields reads
// as a list.
class Fields {
 public:
  explicit Fields(const Weights& weights) : weights_(weights) {}

  int size(const std::string& key) {
    const Result<uint32_t> value = weights_.meta_u32(key);
    if (!value.ok()) return fail(value.status(), 0);
    if (*value == 0 || *value > size_max) {
      return fail(Status::corrupt(weights_.path() + ": " + key + " = " + std::to_string(*value) +
                                  " makes no sense"), 0);
    }
    return int(*value);
  }
  int size_or(const std::string& key, int otherwise) {
    return weights_.has_meta(key) ? size(key) : otherwise;
  }
  float number(const std::string& key) {
    const Result<float> value = weights_.meta_f32(key);
    return value.ok() ? *value : fail(value.status(), 0.0f);
  }
  float number_or(const std::string& key, float otherwise) {
    return weights_.has_meta(key) ? number(key) : otherwise;
  }
  std::optional<float> number_if_any(const std::string& key) {
    return weights_.has_meta(key) ? std::optional(number(key)) : std::nullopt;
  }
  bool flag_or(const std::string& key, bool otherwise) {
    if (!weights_.has_meta(key)) return otherwise;
    const Result<bool> value = weights_.meta_bool(key);
    return value.ok() ? *value : fail(value.status(), otherwise);
  }
  std::string text_or(const std::string& key, std::string otherwise) {
    if (!weights_.has_meta(key)) return otherwise;
    Result<std::string> value = weights_.meta_string(key);
    return value.ok() ? *std::move(value) : fail(value.status(), std::move(otherwise));
  }
  std::vector<float> numbers(const std::string& key) {
    Result<std::vector<float>> value = weights_.meta_f32_array(key);
    return value.ok() ? *std::move(value) : fail(value.status(), std::vector<float>());
  }

  /// Remembers a failure unless there is one already.
  void refuse(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  void unsupported(const std::string& what) {
    refuse(Status::unsupported(weights_.path() + ": " + what + " is not supported."));
  }
  const Status& status() const { return status_; }

 private:
  template <typename T>
  T fail(Status status, T value) {
    refuse(std::move(status));
    return value;
  }

  const Weights& weights_;
  Status status_;
};

std::string file_name(const std::string& path) {
  const size_t end = path.find_last_not_of("/\\");
  const std::string trimmed = path.substr(0, end + 1);
  return trimmed.substr(trimmed.find_last_of("/\\") + 1);
}

// The file's own list of numbers, such as rope_freqs.weight; empty when there is none.
std::vector<float> small_tensor(const Weights& weights, const char* name, Fields& fields) {
  if (!weights.has(name)) return {};
  const Result<WeightView> view = weights.tensor(name);
  if (!view.ok()) {
    fields.refuse(view.status());
    return {};
  }
  std::vector<float> values(size_t(view->rows * view->cols));
  for (int64_t row = 0; row < view->rows; ++row) {
    dequantize_row(view->dtype, view->row(row), view->cols, values.data() + row * view->cols);
  }
  return values;
}

// --- GGUF -------------------------------------------------------------------------------------

void read_gguf_rope(const Weights& weights, const std::string& arch, Fields& fields,
                    ModelConfig& config) {
  RopeConfig& rope = config.rope;
  const std::string scaling = arch + ".rope.scaling.";
  rope.theta = fields.number_or(arch + ".rope.freq_base", 10000.0f);
  rope.n_rotated = fields.size_or(arch + ".rope.dimension_count", config.head_dim);
  rope.divisors = small_tensor(weights, "rope_freqs.weight", fields);

  const float legacy_factor = fields.number_or(arch + ".rope.scale_linear", 1.0f);
  const float factor = fields.number_or(scaling + "factor", legacy_factor);
  const float original = fields.number_or(scaling + "original_context_length",
                                          float(config.context_length));
  const std::string type =
      fields.text_or(scaling + "type", factor != 1.0f && factor != 0.0f ? "linear" : "none");
  const std::vector<float> long_factors = small_tensor(weights, "rope_factors_long.weight", fields);
  const std::vector<float> short_factors =
      small_tensor(weights, "rope_factors_short.weight", fields);
  const std::optional<float> magnitude = fields.number_if_any(scaling + "attn_factor");

  if (type == "longrope" || !long_factors.empty()) {
    const bool is_long = float(config.context_length) > original;
    RopeLong scheme;
    scheme.factors = is_long ? long_factors : short_factors;
    scheme.magnitude = magnitude.value_or(
        long_rope_magnitude(float(config.context_length) / original, original));
    rope.scaling = std::move(scheme);
  } else if (type == "yarn") {
    RopeYarn yarn;
    yarn.factor = factor;
    yarn.original_context = original;
    yarn.beta_fast = fields.number_or(scaling + "yarn_beta_fast", 32.0f);
    yarn.beta_slow = fields.number_or(scaling + "yarn_beta_slow", 1.0f);
    // In GGUF the factor comes on top of YaRN's own, which make_rope_table() supplies.
    if (magnitude && *magnitude != 1.0f) fields.unsupported("YaRN with its own attn_factor");
    rope.scaling = yarn;
    config.context_length = std::max(config.context_length, int(original * factor));
  } else if (type == "linear") {
    rope.scaling = RopeLinear{factor == 0.0f ? 1.0f : factor};
  } else if (type != "none") {
    fields.unsupported("RoPE scaling \"" + type + "\"");
  }
}

void read_gguf(const Weights& weights, Fields& fields, ModelConfig& config) {
  const std::string arch = weights.architecture();
  config.name = fields.text_or("general.name", file_name(weights.path()));
  config.n_layers = fields.size(arch + ".block_count");
  config.n_embd = fields.size(arch + ".embedding_length");
  config.n_ff = fields.size(arch + ".feed_forward_length");
  config.n_heads = fields.size(arch + ".attention.head_count");
  config.n_kv_heads = fields.size_or(arch + ".attention.head_count_kv", config.n_heads);
  config.context_length = fields.size(arch + ".context_length");
  config.rms_eps = fields.number(arch + ".attention.layer_norm_rms_epsilon");
  if (!fields.status().ok()) return;

  config.head_dim = fields.size_or(arch + ".attention.key_length", config.n_embd / config.n_heads);
  if (fields.size_or(arch + ".attention.value_length", config.head_dim) != config.head_dim) {
    fields.unsupported("a value length that differs from the key length");
  }
  for (const char* key : {".expert_count", ".attention.sliding_window", ".attn_logit_softcapping"}) {
    if (fields.number_or(arch + key, 0.0f) != 0.0f) fields.unsupported(arch + key);
  }
  read_gguf_rope(weights, arch, fields, config);
}

// --- config.json ------------------------------------------------------------------------------

void read_folder_rope(const Weights& weights, Fields& fields, ModelConfig& config) {
  // Newer files keep theta and the scaling together in "rope_parameters".
  const bool together = weights.has_meta("rope_parameters.rope_theta");
  const std::string scaling = together ? "rope_parameters." : "rope_scaling.";
  RopeConfig& rope = config.rope;
  rope.theta = fields.number_or(together ? "rope_parameters.rope_theta" : "rope_theta", 10000.0f);
  rope.n_rotated = int(float(config.head_dim) * fields.number_or("partial_rotary_factor", 1.0f));

  const std::string type =
      fields.text_or(scaling + "rope_type", fields.text_or(scaling + "type", "default"));
  const std::string original_key = weights.has_meta(scaling + "original_max_position_embeddings")
                                       ? scaling + "original_max_position_embeddings"
                                       : "original_max_position_embeddings";
  const float original = fields.number_or(original_key, float(config.context_length));
  const std::optional<float> magnitude = fields.number_if_any(scaling + "attention_factor");

  if (type == "linear") {
    rope.scaling = RopeLinear{fields.number(scaling + "factor")};
  } else if (type == "llama3") {
    rope.scaling = RopeLlama3{fields.number(scaling + "factor"),
                              fields.number(scaling + "low_freq_factor"),
                              fields.number(scaling + "high_freq_factor"), original};
  } else if (type == "yarn") {
    if (weights.has_meta(scaling + "mscale")) fields.unsupported("YaRN with mscale");
    RopeYarn yarn;
    yarn.factor = fields.number(scaling + "factor");
    yarn.original_context = original;
    yarn.beta_fast = fields.number_or(scaling + "beta_fast", 32.0f);
    yarn.beta_slow = fields.number_or(scaling + "beta_slow", 1.0f);
    yarn.whole_bounds = fields.flag_or(scaling + "truncate", true);
    yarn.magnitude = magnitude;
    rope.scaling = yarn;
    config.context_length = std::max(config.context_length, int(original * yarn.factor));
  } else if (type == "longrope" || type == "su") {
    // The original switches lists with the length of each call; keys in a cache cannot change, so
    // the list for the whole trained context is taken.
    const bool is_long = float(config.context_length) > original;
    RopeLong scheme;
    scheme.factors = fields.numbers(scaling + (is_long ? "long_factor" : "short_factor"));
    const float scale =
        fields.number_or(scaling + "factor", float(config.context_length) / original);
    scheme.magnitude = magnitude.value_or(long_rope_magnitude(scale, original));
    rope.scaling = std::move(scheme);
  } else if (type != "default") {
    fields.unsupported("RoPE scaling \"" + type + "\"");
  }
}

// NOSA's own checkpoints say nothing of blocks and windows, relatives of theirs do. How many blocks a
// query takes is for a request to say; what a block and a window are is fixed here.
void check_sparse_keys(const Weights& weights, Fields& fields) {
  const struct {
    const char* key;
    int value;
  } wanted[] = {{"kernel_size", kWindowTokens},
                {"kernel_stride", kWindowStride},
                {"block_size", kBlockTokens}};
  for (const char* place : {"", "sparse_config."}) {
    for (const auto& [key, value] : wanted) {
      const int stated = fields.size_or(std::string(place) + key, value);
      if (stated != value) {
        fields.unsupported(std::string(key) + " " + std::to_string(stated) + " (Nosa has " +
                           std::to_string(value) + ")");
      }
    }
    if (fields.flag_or(std::string(place) + "use_nope", false)) fields.unsupported("use_nope");
  }
  // The class that NOSA's checkpoints name; its weights mean nothing without eviction heads.
  if (!weights.has_meta("architectures")) return;
  const Result<std::vector<std::string>> classes = weights.meta_string_array("architectures");
  if (!classes.ok()) return fields.refuse(classes.status());
  if (std::ranges::find(*classes, "SparseLlamaForCausalLM") == classes->end()) return;
  if (EvictionScores::present_in(weights)) return;
  fields.refuse(Status::corrupt(weights.path() +
                                " is a NOSA model without its eviction heads; download it again."));
}

void read_folder(const Weights& weights, Fields& fields, ModelConfig& config) {
  config.name = fields.text_or("_name_or_path", "");
  config.name = file_name(config.name.empty() ? weights.path() : config.name);
  config.n_layers = fields.size("num_hidden_layers");
  config.n_embd = fields.size("hidden_size");
  config.n_ff = fields.size("intermediate_size");
  config.n_heads = fields.size("num_attention_heads");
  config.n_kv_heads = fields.size_or("num_key_value_heads", config.n_heads);
  config.context_length = fields.size("max_position_embeddings");
  config.rms_eps = fields.number("rms_norm_eps");
  if (!fields.status().ok()) return;

  config.head_dim = fields.size_or("head_dim", config.n_embd / config.n_heads);
  if (const std::string act = fields.text_or("hidden_act", "silu"); act != "silu") {
    fields.unsupported("activation \"" + act + "\"");
  }
  if (fields.flag_or("use_sliding_window", false)) fields.unsupported("use_sliding_window");
  check_sparse_keys(weights, fields);
  read_folder_rope(weights, fields, config);
}

// --- both -------------------------------------------------------------------------------------

bool is_layer_tensor(std::string_view part) {
  static constexpr std::array<std::string_view, 10> stems = {
      "attn_norm", "attn_q", "attn_k",   "attn_v",   "attn_output",
      "ffn_norm",  "ffn_up", "ffn_gate", "ffn_down", "nosa_delta"};
  if (part == "nosa_a") return true;
  const size_t dot = part.rfind('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view stem = part.substr(0, dot);
  const std::string_view kind = part.substr(dot + 1);
  const bool is_norm = stem.ends_with("norm");
  return std::ranges::find(stems, stem) != stems.end() &&
         (kind == "weight" || (kind == "bias" && !is_norm));
}

bool is_known_tensor(std::string_view name, int n_layers) {
  static constexpr std::array<std::string_view, 6> globals = {
      "token_embd.weight", "output_norm.weight",        "output.weight",
      "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
  if (std::ranges::find(globals, name) != globals.end()) return true;
  if (name.ends_with("rotary_emb.inv_freq")) return true;  // A buffer that old writers saved.
  if (!name.starts_with("blk.")) return false;
  int layer = -1;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + 4, end, layer);
  if (error != std::errc() || layer < 0 || layer >= n_layers || at == end || *at != '.') {
    return false;
  }
  return is_layer_tensor(std::string_view(at + 1, size_t(end - at - 1)));
}

void check_sizes(const Weights& weights, Fields& fields, const ModelConfig& config) {
  const auto corrupt = [&](const std::string& what) {
    fields.refuse(Status::corrupt(weights.path() + ": " + what));
  };
  if (config.n_layers > layers_max) {
    fields.unsupported(std::to_string(config.n_layers) + " layers");
  }
  if (config.head_dim % 16 != 0 || config.head_dim > 256) {
    fields.unsupported("a head of " + std::to_string(config.head_dim) + " dimensions");
  }
  if (config.n_heads % config.n_kv_heads != 0) {
    corrupt(std::to_string(config.n_heads) + " heads cannot share " +
            std::to_string(config.n_kv_heads) + " KV heads");
  }
  if (config.rope.n_rotated > config.head_dim) corrupt("RoPE turns more than a head holds");
  if (!(config.rms_eps > 0 && config.rms_eps < 1)) corrupt("the RMS epsilon makes no sense");
}

}  // namespace

Result<ModelConfig> read_model_config(const Weights& weights) {
  ModelConfig config;
  config.architecture = weights.architecture();
  config.rope_pairing = weights.rope_pairing();
  if (config.architecture != "llama" && config.architecture != "qwen2") {
    return Status::unsupported(weights.path() + ": models of architecture \"" +
                               config.architecture +
                               "\" are not supported; use one of the Llama or Qwen2 family.");
  }

  Fields fields(weights);
  if (weights.kind() == WeightsKind::kGguf) {
    read_gguf(weights, fields, config);
  } else {
    read_folder(weights, fields, config);
  }
  if (!fields.status().ok()) return fields.status();

  check_sizes(weights, fields, config);
  for (const auto& [name, view] : weights.tensors()) {
    if (!is_known_tensor(name, config.n_layers)) fields.unsupported("tensor " + name);
  }
  if (!fields.status().ok()) return fields.status();

  const Result<WeightView> embedding = weights.tensor("token_embd.weight");
  if (!embedding.ok()) return embedding.status();
  if (embedding->rows <= 0 || embedding->rows > size_max) {
    return Status::corrupt(weights.path() + ": the vocabulary is empty or too large");
  }
  config.n_vocab = int(embedding->rows);
  return config;
}

}  // namespace nosa
