#include "model/config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "support/gguf_writer.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace nosa::test {
namespace {

using Edit = std::function<void(GgufWriter&)>;

/// The configuration of a GGUF with little but metadata, after `edit` has added to it.
Result<ModelConfig> read_gguf(const Edit& edit, const std::string& arch = "qwen2") {
  const TempFolder folder;
  GgufWriter gguf;
  gguf.add_string("general.architecture", arch);
  gguf.add_u32(arch + ".block_count", 1);
  gguf.add_u32(arch + ".embedding_length", 64);
  gguf.add_u32(arch + ".feed_forward_length", 96);
  gguf.add_u32(arch + ".attention.head_count", 4);
  gguf.add_u32(arch + ".context_length", 32768);
  gguf.add_f32(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
  edit(gguf);
  gguf.add_tensor("token_embd.weight", {64, 10}, DType::kF32, Bytes(64 * 10 * 4));
  const Result<std::unique_ptr<Weights>> weights = Weights::open(folder.write("m.gguf", gguf.finish()));
  if (!weights.ok()) return weights.status();
  return read_model_config(**weights);
}

/// The configuration of a folder whose config.json has `extra` fields.
Result<ModelConfig> read_folder(const std::string& extra, const std::string& type = "llama") {
  const TempFolder folder;
  Random random;
  TinyOptions options;
  options.architecture = type == "qwen2" ? "qwen2" : "llama";
  const TinyModel tiny(options, random);
  const std::string path = tiny.write_folder(folder, "m", 1);
  folder.write("m/config.json",
               "{\"model_type\": \"" + type +
                   "\", \"num_hidden_layers\": 2, \"hidden_size\": 64, \"intermediate_size\": 96, "
                   "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 160, "
                   "\"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-06" +
                   extra + "}");
  const Result<std::unique_ptr<Weights>> weights = Weights::open(path);
  if (!weights.ok()) return weights.status();
  return read_model_config(**weights);
}

TEST(Config, DefaultsFollowTheFormat) {
  const ModelConfig config = read_gguf([](GgufWriter&) {}).value();
  EXPECT_EQ(config.n_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.n_vocab, 10);
  EXPECT_EQ(config.rope.theta, 10000.0f);
  EXPECT_EQ(config.rope.n_rotated, 16);
  EXPECT_EQ(config.context_length, 32768);
  EXPECT_EQ(config.rope_pairing, RopePairing::kHalfSplit);
  EXPECT_EQ(read_gguf([](GgufWriter&) {}, "llama").value().rope_pairing, RopePairing::kAdjacent);
}

TEST(Config, RopeScalingOfGguf) {
  const ModelConfig yarn = read_gguf([](GgufWriter& gguf) {
                             gguf.add_string("qwen2.rope.scaling.type", "yarn");
                             gguf.add_f32("qwen2.rope.scaling.factor", 4);
                             gguf.add_u32("qwen2.rope.scaling.original_context_length", 32768);
                           }).value();
  ASSERT_TRUE(std::holds_alternative<RopeYarn>(yarn.rope.scaling));
  EXPECT_EQ(std::get<RopeYarn>(yarn.rope.scaling).factor, 4.0f);
  EXPECT_EQ(yarn.context_length, 131072);

  const ModelConfig linear = read_gguf([](GgufWriter& gguf) {
                               gguf.add_string("qwen2.rope.scaling.type", "linear");
                               gguf.add_f32("qwen2.rope.scaling.factor", 2);
                             }).value();
  EXPECT_EQ(std::get<RopeLinear>(linear.rope.scaling).factor, 2.0f);

  const auto add_list = [](GgufWriter& gguf, const char* name, float value) {
    Bytes bytes;
    for (int i = 0; i < 8; ++i) append(value + float(i), &bytes);
    gguf.add_tensor(name, {8}, DType::kF32, bytes);
  };
  const ModelConfig llama3 =
      read_gguf([&](GgufWriter& gguf) { add_list(gguf, "rope_freqs.weight", 1); }).value();
  EXPECT_EQ(llama3.rope.divisors, (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));

  const ModelConfig longrope = read_gguf([&](GgufWriter& gguf) {
                                 gguf.add_string("qwen2.rope.scaling.type", "longrope");
                                 gguf.add_u32("qwen2.rope.scaling.original_context_length", 4096);
                                 add_list(gguf, "rope_factors_long.weight", 10);
                                 add_list(gguf, "rope_factors_short.weight", 1);
                               }).value();
  const RopeLong& scheme = std::get<RopeLong>(longrope.rope.scaling);
  EXPECT_EQ(scheme.factors[0], 10.0f);
  EXPECT_EQ(scheme.magnitude, long_rope_magnitude(8, 4096));
}

TEST(Config, RopeScalingOfConfigJson) {
  EXPECT_TRUE(std::holds_alternative<RopeUnscaled>(
      read_folder(", \"rope_scaling\": null").value().rope.scaling));
  const ModelConfig llama3 =
      read_folder(
          ", \"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
          "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
          "\"original_max_position_embeddings\": 8192}")
          .value();
  EXPECT_EQ(std::get<RopeLlama3>(llama3.rope.scaling).original_context, 8192.0f);
  EXPECT_EQ(llama3.rope.theta, 500000.0f);

  const ModelConfig old_name =
      read_folder(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}").value();
  EXPECT_EQ(std::get<RopeLinear>(old_name.rope.scaling).factor, 2.0f);

  const ModelConfig yarn =
      read_folder(", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                  "\"original_max_position_embeddings\": 32768, \"attention_factor\": 1.5}",
                  "qwen2")
          .value();
  EXPECT_EQ(std::get<RopeYarn>(yarn.rope.scaling).magnitude, 1.5f);

  const ModelConfig together =
      read_folder(", \"rope_parameters\": {\"rope_theta\": 7000.0, \"rope_type\": \"default\"}").value();
  EXPECT_EQ(together.rope.theta, 7000.0f);

  const ModelConfig longrope =
      read_folder(", \"rope_scaling\": {\"rope_type\": \"longrope\", "
                  "\"original_max_position_embeddings\": 32768, \"short_factor\": "
                  "[1,1,1,1,1,1,1,1], \"long_factor\": [2,2,2,2,2,2,2,2], \"attention_factor\": 1.0}")
          .value();
  EXPECT_EQ(std::get<RopeLong>(longrope.rope.scaling).factors[0], 2.0f);
  EXPECT_EQ(std::get<RopeLong>(longrope.rope.scaling).magnitude, 1.0f);
}

TEST(Config, WhatIsNotSupportedIsRefusedByName) {
  struct Case {
    const char* name;
    Result<ModelConfig> config;
  };
  const Case cases[] = {
      {"phi3", read_gguf([](GgufWriter&) {}, "phi3")},
      {"expert_count", read_gguf([](GgufWriter& g) { g.add_u32("qwen2.expert_count", 8); })},
      {"sliding_window",
       read_gguf([](GgufWriter& g) { g.add_u32("qwen2.attention.sliding_window", 4096); })},
      {"value length", read_gguf([](GgufWriter& g) { g.add_u32("qwen2.attention.value_length", 8); })},
      {"dynamic", read_gguf([](GgufWriter& g) {
         g.add_string("qwen2.rope.scaling.type", "dynamic");
       })},
      {"blk.0.attn_q_norm.weight", read_gguf([](GgufWriter& g) {
         g.add_tensor("blk.0.attn_q_norm.weight", {16}, DType::kF32, Bytes(64));
       })},
      {"blk.1.attn_q.weight", read_gguf([](GgufWriter& g) {
         g.add_tensor("blk.1.attn_q.weight", {64, 64}, DType::kF32, Bytes(64 * 64 * 4));
       })},
      {"gelu", read_folder(", \"hidden_act\": \"gelu\"")},
      {"use_sliding_window", read_folder(", \"use_sliding_window\": true", "qwen2")},
      {"ntk", read_folder(", \"rope_scaling\": {\"type\": \"ntk\", \"factor\": 2.0}")},
      {"mistral", read_folder("", "mistral")}};
  for (const Case& each : cases) {
    ASSERT_FALSE(each.config.ok()) << each.name;
    EXPECT_EQ(each.config.status().code(), StatusCode::kUnsupported) << each.name;
    EXPECT_NE(each.config.status().message().find(each.name), std::string::npos)
        << each.config.status().message();
  }
}

/// What opening a folder with eviction heads says, after `edit` has changed its config.json.
Status open_nosa(const std::function<std::string(std::string)>& edit) {
  const TempFolder folder;
  Random random;
  TinyOptions options;
  options.nosa = true;
  options.long_factors = {1, 1.5, 2, 3, 4.25, 9, 20, 31};
  const TinyModel tiny(options, random);
  const std::string path = tiny.write_folder(folder, "m", 1);
  std::ifstream in(path + "/config.json");
  folder.write("m/config.json", edit(std::string((std::istreambuf_iterator<char>(in)), {})));
  const Result<std::unique_ptr<Weights>> weights = Weights::open(path);
  if (!weights.ok()) return weights.status();
  const Result<ModelConfig> config = read_model_config(**weights);
  if (!config.ok()) return config.status();
  EXPECT_EQ(std::get<RopeLong>(config->rope.scaling).factors, options.long_factors);
  EXPECT_EQ(std::get<RopeLong>(config->rope.scaling).magnitude, 1.0f);
  return {};
}

TEST(Config, NosaCheckpointsAreReadWithWhatTheyMaySayOfBlocks) {
  const auto with = [](const std::string& fields) {
    return open_nosa([&](std::string json) { return json.insert(1, fields); });
  };
  EXPECT_TRUE(with("").ok()) << with("").message();
  EXPECT_TRUE(with("\"sparse_config\": {\"kernel_size\": 32, \"kernel_stride\": 16, \"init_blocks\": 1, "
                   "\"block_size\": 64, \"window_size\": 1024, \"topk\": 80, \"dense_len\": 8192, "
                   "\"use_nope\": false}, ").ok());
  const Status other = with("\"sparse_config\": {\"block_size\": 128}, ");
  EXPECT_EQ(other.code(), StatusCode::kUnsupported);
  EXPECT_NE(other.message().find("block_size 128"), std::string::npos) << other.message();
  EXPECT_EQ(with("\"use_nope\": true, ").code(), StatusCode::kUnsupported);
}

TEST(Config, ANosaModelWithoutItsHeadsIsDamaged) {
  const Result<ModelConfig> config = read_folder(", \"architectures\": [\"SparseLlamaForCausalLM\"]");
  EXPECT_EQ(config.status().code(), StatusCode::kCorrupt);
  EXPECT_TRUE(read_folder(", \"architectures\": [\"LlamaForCausalLM\"]").ok());
}

TEST(Config, ContradictionsAreCorrupt) {
  EXPECT_EQ(read_gguf([](GgufWriter& g) { g.add_u32("qwen2.attention.head_count_kv", 3); }).status().code(),
            StatusCode::kCorrupt);
  EXPECT_EQ(read_gguf([](GgufWriter& g) { g.add_u32("qwen2.rope.dimension_count", 64); }).status().code(),
            StatusCode::kCorrupt);
}

}  // namespace
}  // namespace nosa::test
