#include "formats/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "support/gguf_writer.h"
#include "support/quantised_rows.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"

namespace nosa {
namespace {

using test::Bytes;
using test::GgufWriter;
using test::SafetensorsWriter;
using test::TempFolder;

constexpr const char* config = R"({
  "model_type": "llama", "num_hidden_layers": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "eos_token_id": [2, 73440], "bos_token_id": 1, "head_dim": null,
  "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 2.5], "factor": 4}
})";

std::unique_ptr<Weights> opened(const std::string& path) {
  auto weights = Weights::open(path);
  CHECK(weights.ok());
  return *std::move(weights);
}

void expect_refused(const std::string& path, StatusCode code, const std::string& part) {
  const Status status = Weights::open(path).status();
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}

bool holds(const WeightView& view, const Bytes& bytes) {
  return std::equal(bytes.begin(), bytes.end(), view.data, view.data + view.size_bytes());
}

TEST(WeightsOfGguf, GivesTensorsAndMetadata) {
  const TempFolder folder;
  test::Random random;
  const Bytes q = test::random_rows(DType::kQ4_K, 3, 256, random);
  const Bytes norm = test::random_rows(DType::kF32, 1, 5, random);
  const auto weights = opened(
      folder.write("m.gguf", GgufWriter()
                                 .add_string("general.architecture", "qwen2")
                                 .add_u32("qwen2.block_count", 24)
                                 .add_f32("qwen2.rope.freq_base", 1e6f)
                                 .add_bool("flag", true)
                                 .add_f32s("factors", {1, 2})
                                 .add_strings("tokens", {"a", "b"})
                                 .add_tensor("blk.0.attn_q.weight", {256, 3}, DType::kQ4_K, q)
                                 .add_tensor("output_norm.weight", {5}, DType::kF32, norm)
                                 .finish()));
  EXPECT_EQ(weights->kind(), WeightsKind::kGguf);
  EXPECT_EQ(weights->architecture(), "qwen2");
  EXPECT_EQ(weights->rope_pairing(), RopePairing::kHalfSplit);
  const auto view = weights->tensor("blk.0.attn_q.weight", 3, 256);
  ASSERT_TRUE(view.ok()) << view.status().message();
  EXPECT_EQ(view->dtype, DType::kQ4_K);
  EXPECT_TRUE(holds(*view, q));
  EXPECT_TRUE(holds(*weights->tensor("output_norm.weight", 1, 5), norm));
  EXPECT_EQ(weights->tensors().size(), 2u);
  EXPECT_EQ(weights->size_bytes(), 3 * 144 + 20);

  EXPECT_EQ(*weights->meta_u32("qwen2.block_count"), 24u);
  EXPECT_EQ(*weights->meta_f32("qwen2.rope.freq_base"), 1e6f);
  EXPECT_EQ(*weights->meta_u32("qwen2.rope.freq_base"), 1000000u);
  EXPECT_EQ(*weights->meta_bool("flag"), true);
  EXPECT_EQ(*weights->meta_string("general.architecture"), "qwen2");
  EXPECT_EQ(*weights->meta_f32_array("factors"), (std::vector<float>{1, 2}));
  EXPECT_EQ(*weights->meta_string_array("tokens"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(*weights->meta_u32_array("qwen2.block_count"), (std::vector<uint32_t>{24}));
}

TEST(WeightsOfGguf, LlamaFilesPairNeighbours) {
  const TempFolder folder;
  const std::string path =
      folder.write("m.gguf", GgufWriter().add_string("general.architecture", "llama").finish());
  EXPECT_EQ(opened(path)->rope_pairing(), RopePairing::kAdjacent);
}

TEST(WeightsOfGguf, CopiesTensorsThatAreNotAligned) {
  const TempFolder folder;
  test::Random random;
  const Bytes f32 = test::random_rows(DType::kF32, 2, 3, random);
  GgufWriter writer(3, 1);
  writer.add_u32("general.alignment", 1).add_string("general.architecture", "llama");
  for (int i = 0; i < 4; ++i) {
    writer.add_tensor("pad" + std::to_string(i), {32}, DType::kQ8_0,
                      test::random_rows(DType::kQ8_0, 1, 32, random));
    writer.add_tensor("t" + std::to_string(i), {3, 2}, DType::kF32, f32);
  }
  const auto weights = opened(folder.write("m.gguf", writer.finish()));
  for (int i = 0; i < 4; ++i) {
    const auto view = weights->tensor("t" + std::to_string(i), 2, 3);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % alignof(float), 0u);
    EXPECT_TRUE(holds(*view, f32));
  }
}

TEST(WeightsOfGguf, RefusesWhatItCannotRun) {
  const TempFolder folder;
  expect_refused(folder.path_of("none.gguf"), StatusCode::kNotFound, "none.gguf does not exist");
  expect_refused(folder.write("a.gguf", GgufWriter().finish()), StatusCode::kCorrupt,
                 "a.gguf does not say its architecture");
  expect_refused(
      folder.write("b.gguf", GgufWriter()
                                 .add_string("general.architecture", "llama")
                                 .add_raw_tensor("blk.0.attn_q.weight", {256}, 10, Bytes(84))
                                 .finish()),
      StatusCode::kUnsupported,
      "b.gguf stores tensor blk.0.attn_q.weight as Q2_K, which Nosa does not read");
  expect_refused(folder.write("c.gguf", GgufWriter()
                                            .add_string("general.architecture", "llama")
                                            .add_u32("split.count", 3)
                                            .finish()),
                 StatusCode::kUnsupported, "one of 3 parts");
  expect_refused(folder.write("d.safetensors", "12345678"), StatusCode::kCorrupt,
                 "d.safetensors is not a GGUF file");
}

TEST(Weights, NamesWhatIsMissingOrMisshapen) {
  const TempFolder folder;
  const auto weights =
      opened(folder.write("m.gguf", GgufWriter()
                                        .add_string("general.architecture", "llama")
                                        .add_f32("half", 0.5f)
                                        .add_i32("negative", -1)
                                        .add_f32s("list", {1, 2})
                                        .add_tensor("t", {4, 2}, DType::kF32, Bytes(32))
                                        .finish()));
  EXPECT_EQ(weights->tensor("u").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(weights->tensor("u").status().message(),
            "m.gguf has no tensor u; use the model from another source");
  EXPECT_EQ(weights->tensor("t", 4, 2).status().message(),
            "m.gguf: tensor t is [2, 4] where the model's sizes need [4, 2]; use the model from "
            "another source");
  EXPECT_EQ(weights->meta_u32("absent").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(weights->meta_u32("half").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(weights->meta_u32("negative").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(weights->meta_u32("list").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(weights->meta_bool("half").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(weights->meta_string("half").status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(weights->meta_f32("general.architecture").status().code(), StatusCode::kCorrupt);
  EXPECT_TRUE(weights->has_meta("half"));
  EXPECT_FALSE(weights->has_meta("absent"));
}

class Folder : public testing::Test {
 protected:
  Folder() {
    folder.write("config.json", config);
    for (const char* name : {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
                             "model.layers.0.self_attn.A"}) {
      const bool is_vector = std::string_view(name).ends_with(".A");
      tensors.emplace_back(name, test::random_rows(DType::kBF16, is_vector ? 1 : 3, 4, random));
    }
  }

  void add(const std::string& name, SafetensorsWriter* writer) const {
    for (const auto& [tensor, data] : tensors) {
      if (tensor != name && !name.empty()) continue;
      const bool is_vector = data.size() == 8;
      writer->add(tensor, "BF16", is_vector ? std::vector<int64_t>{4} : std::vector<int64_t>{3, 4},
                  data);
    }
  }

  void expect_all(const Weights& weights) const {
    EXPECT_TRUE(holds(*weights.tensor("token_embd.weight", 3, 4), tensors[0].second));
    EXPECT_TRUE(holds(*weights.tensor("blk.0.attn_q.weight", 3, 4), tensors[1].second));
    EXPECT_TRUE(holds(*weights.tensor("blk.0.nosa_a", 1, 4), tensors[2].second));
  }

  TempFolder folder;
  test::Random random;
  std::vector<std::pair<std::string, Bytes>> tensors;
};

TEST_F(Folder, GivesTensorsOfOneFileByTheirCanonicalNames) {
  SafetensorsWriter writer;
  add("", &writer);
  writer.add("model.layers.0.self_attn.position_ids", "I64", {1}, Bytes(8));
  folder.write("model.safetensors", writer.finish());
  for (const std::string& path : {folder.path(), folder.path() + "/"}) {
    const auto weights = opened(path);
    EXPECT_EQ(weights->kind(), WeightsKind::kFolder);
    EXPECT_EQ(weights->architecture(), "llama");
    EXPECT_EQ(weights->rope_pairing(), RopePairing::kHalfSplit);
    EXPECT_EQ(weights->tensors().size(), 3u);
    expect_all(*weights);
  }
}

TEST_F(Folder, ReadsConfigByPath) {
  folder.write("model.safetensors", SafetensorsWriter().finish());
  const auto weights = opened(folder.path());
  EXPECT_EQ(*weights->meta_u32("num_hidden_layers"), 2u);
  EXPECT_EQ(*weights->meta_f32("rms_norm_eps"), 1e-6f);
  EXPECT_EQ(*weights->meta_bool("tie_word_embeddings"), false);
  EXPECT_EQ(*weights->meta_u32_array("eos_token_id"), (std::vector<uint32_t>{2, 73440}));
  EXPECT_EQ(*weights->meta_u32_array("bos_token_id"), (std::vector<uint32_t>{1}));
  EXPECT_EQ(*weights->meta_string("rope_scaling.rope_type"), "longrope");
  EXPECT_EQ(*weights->meta_f32_array("rope_scaling.short_factor"), (std::vector<float>{1, 2.5}));
  EXPECT_EQ(*weights->meta_f32("rope_scaling.factor"), 4.0f);
  EXPECT_FALSE(weights->has_meta("head_dim"));
  EXPECT_EQ(weights->meta_u32("head_dim").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(weights->meta_u32("rope_scaling").status().code(), StatusCode::kCorrupt);
  EXPECT_FALSE(weights->has_meta("rope_scaling.nothing.at.all"));
}

TEST_F(Folder, GivesTensorsOfShards) {
  SafetensorsWriter one;
  SafetensorsWriter two;
  add("model.embed_tokens.weight", &one);
  add("model.layers.0.self_attn.q_proj.weight", &two);
  add("model.layers.0.self_attn.A", &two);
  folder.write("one.safetensors", one.finish());
  folder.write("two.safetensors", two.finish());
  folder.write("model.safetensors.index.json", R"({"weight_map": {
    "model.embed_tokens.weight": "one.safetensors",
    "model.layers.0.self_attn.q_proj.weight": "two.safetensors",
    "model.layers.0.self_attn.A": "two.safetensors"}})");
  expect_all(*opened(folder.path()));

  std::filesystem::remove(folder.path_of("two.safetensors"));
  expect_refused(folder.path(), StatusCode::kNotFound, "two.safetensors does not exist");
  folder.write("two.safetensors", one.finish());
  expect_refused(folder.path(), StatusCode::kCorrupt, "two.safetensors lacks tensor");
}

TEST_F(Folder, CopiesTensorsThatAreNotAligned) {
  SafetensorsWriter writer;
  writer.add("pad", "U8", {1}, Bytes(1));
  add("", &writer);
  folder.write("model.safetensors", writer.finish(1));
  const auto weights = opened(folder.path());
  for (const auto& [name, view] : weights->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 2, 0u) << name;
  }
  expect_all(*weights);
}

TEST_F(Folder, RefusesWhatItCannotRun) {
  expect_refused(folder.path(), StatusCode::kNotFound, "holds neither model.safetensors nor");
  folder.write("pytorch_model.bin", "pickle");
  expect_refused(folder.path(), StatusCode::kUnsupported, "convert them to safetensors");

  folder.write("model.safetensors",
               SafetensorsWriter().add("lm_head.weight", "F8_E4M3", {1}, Bytes(1)).finish());
  expect_refused(folder.path(), StatusCode::kUnsupported,
                 "model.safetensors stores tensor lm_head.weight as F8_E4M3");

  folder.write("config.json", "{\"model_type\": \"llama\", \"quantization_config\": {}}");
  expect_refused(folder.path(), StatusCode::kUnsupported, "quantised checkpoint");
  folder.write("config.json", "{}");
  expect_refused(folder.path(), StatusCode::kCorrupt, "does not say its model_type");
  folder.write("config.json", "[]");
  expect_refused(folder.path(), StatusCode::kCorrupt, "config.json is damaged");
  folder.write("config.json", "");
  expect_refused(folder.path(), StatusCode::kCorrupt, "config.json is damaged");
  std::filesystem::remove(folder.path_of("config.json"));
  expect_refused(folder.path(), StatusCode::kNotFound, "holds no config.json");
}

TEST_F(Folder, RefusesTwoTensorsOfOneName) {
  folder.write("model.safetensors", SafetensorsWriter()
                                        .add("model.norm.weight", "F32", {1}, Bytes(4))
                                        .add("output_norm.weight", "F32", {1}, Bytes(4))
                                        .finish());
  expect_refused(folder.path(), StatusCode::kCorrupt, "two tensors output_norm.weight");
}

}  // namespace
}  // namespace nosa
