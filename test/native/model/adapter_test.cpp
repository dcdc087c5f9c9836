#include "model/adapter.h"

#include <gtest/gtest.h>

#include <functional>

#include "model/model.h"
#include "support/quantised_rows.h"
#include "support/tiny_adapter.h"

namespace nosa::test {
namespace {

class AdapterFile : public testing::Test {
 protected:
  /// Opens the tiny model with the adapter after `edit` has changed it.
  Result<std::unique_ptr<Model>> open(const std::function<void(TinyAdapter&)>& edit,
                                      const std::string& base_sha256 = TinyAdapter::base_sha256) {
    TinyAdapter changed = adapter;
    edit(changed);
    ModelOptions options;
    options.path = base_path;
    options.adapter = changed.write(folder, "adapter.safetensors");
    options.base_sha256 = base_sha256;
    return Model::open(options);
  }

  void expect_refused(const std::function<void(TinyAdapter&)>& edit, StatusCode code,
                      const std::string& part) {
    const Status status = open(edit).status();
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }

  Random random;
  TempFolder folder;
  TinyModel base{{}, random};
  TinyAdapter adapter{base, 4, random};
  std::string base_path = base.write_gguf(folder, "tiny.gguf");
};

TEST_F(AdapterFile, OfAnotherModelOrFormatIsRefusedInOneSentence) {
  const auto nothing = [](TinyAdapter&) {};
  ASSERT_TRUE(open(nothing).ok()) << open(nothing).status().message();
  const Status other = open(nothing, std::string(64, 'a')).status();
  EXPECT_EQ(other.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(other.message().find("made for another model"), std::string::npos) << other.message();
  EXPECT_EQ(open(nothing, "").status().code(), StatusCode::kInvalidArgument);
  expect_refused([](TinyAdapter& a) { a.metadata["format"] = "nosa-adapter-2"; },
                 StatusCode::kUnsupported, "another format (nosa-adapter-2)");
  expect_refused([](TinyAdapter& a) { a.metadata["format"] = "pt"; }, StatusCode::kCorrupt,
                 "is not a NOSA adapter");
  expect_refused([](TinyAdapter& a) { a.metadata.clear(); }, StatusCode::kCorrupt,
                 "is not a NOSA adapter");
  expect_refused([](TinyAdapter& a) { a.metadata.erase("base_sha256"); }, StatusCode::kCorrupt,
                 "base_sha256");
  expect_refused([](TinyAdapter& a) { a.metadata["rank"] = "four"; }, StatusCode::kCorrupt, "rank");
  expect_refused([](TinyAdapter& a) { a.metadata["rank"] = "-4"; }, StatusCode::kCorrupt, "rank");
  expect_refused([](TinyAdapter& a) { a.metadata["alpha"] = "nan"; }, StatusCode::kCorrupt, "alpha");
}

TEST_F(AdapterFile, WithTensorsThatDoNotFitIsRefused) {
  expect_refused([](TinyAdapter& a) { a.metadata["rank"] = "8"; }, StatusCode::kCorrupt, "lora_a");
  expect_refused([](TinyAdapter& a) { a.tensors.erase("model.layers.1.self_attn.A"); },
                 StatusCode::kCorrupt, "nosa_a");
  expect_refused([](TinyAdapter& a) { a.tensors.erase("model.layers.1.mlp.up_proj.lora_B.weight"); },
                 StatusCode::kCorrupt, "lora_b");
  expect_refused(
      [](TinyAdapter& a) {
        a.tensors["model.layers.2.self_attn.A"] = a.tensors["model.layers.1.self_attn.A"];
      },
      StatusCode::kInvalidArgument, "layers or parts that the model lacks");
  expect_refused(
      [this](TinyAdapter& a) {
        a.tensors["model.layers.0.self_attn.q_proj.lora_A.weight"] = {
            "F32", {4, 64}, random_rows(DType::kF32, 4, 64, random)};
      },
      StatusCode::kCorrupt, "BF16");
}

TEST_F(AdapterFile, NeedNotUpdateEverything) {
  EXPECT_TRUE(open([](TinyAdapter& a) {
                a.tensors.erase("model.layers.0.mlp.up_proj.lora_A.weight");
                a.tensors.erase("model.layers.0.mlp.up_proj.lora_B.weight");
              }).ok());
}

TEST_F(AdapterFile, IsPartOfTheKeyUnderWhichKvIsReused) {
  ModelOptions plain;
  plain.path = base_path;
  const std::string without = Model::open(plain).value()->fingerprint();
  const auto nothing = [](TinyAdapter&) {};
  const std::string with = open(nothing).value()->fingerprint();
  EXPECT_NE(with, without);
  EXPECT_EQ(with, open(nothing).value()->fingerprint());
  // One bit in the middle of one update, or the factor they all have.
  const auto flipped = [](TinyAdapter& a) {
    Bytes& bytes = a.tensors["model.layers.1.mlp.down_proj.lora_B.weight"].bytes;
    bytes[bytes.size() / 2 | 1] ^= std::byte(1);
  };
  EXPECT_NE(with, open(flipped).value()->fingerprint());
  EXPECT_NE(with, open([](TinyAdapter& a) { a.metadata["alpha"] = "0.125"; }).value()->fingerprint());
  EXPECT_EQ(with, open([](TinyAdapter& a) { a.metadata["notes"] = "x"; }).value()->fingerprint());
}

TEST_F(AdapterFile, SaysWhatACompletionShowsFirst) {
  const auto order_of = [this](const std::string& order) {
    return open([&](TinyAdapter& a) { a.metadata["completion_order"] = order; }).value()->completion_order();
  };
  EXPECT_EQ(open([](TinyAdapter&) {}).value()->completion_order(), CompletionOrder::kPrefixFirst);
  EXPECT_EQ(order_of("prefix-first"), CompletionOrder::kPrefixFirst);
  EXPECT_EQ(order_of("suffix-first"), CompletionOrder::kSuffixFirst);
  for (const char* unknown : {"suffix-last", "Suffix-first", ""}) {
    expect_refused([&](TinyAdapter& a) { a.metadata["completion_order"] = unknown; }, StatusCode::kUnsupported,
                   "adapter.safetensors was made for a newer Nosa");
  }
  // KV is the same in either order.
  const auto suffix_first = [](TinyAdapter& a) { a.metadata["completion_order"] = "suffix-first"; };
  EXPECT_EQ(open(suffix_first).value()->fingerprint(), open([](TinyAdapter&) {}).value()->fingerprint());
}

TEST_F(AdapterFile, IsNotForAModelThatIsNosaByItself) {
  TinyOptions options;
  options.nosa = true;
  const TinyModel native(options, random);
  ModelOptions model;
  model.path = native.write_folder(folder, "native", 1);
  EXPECT_EQ(Model::open(model).value()->selection_source(), SelectionSource::kNative);
  model.adapter = adapter.write(folder, "adapter.safetensors");
  model.base_sha256 = TinyAdapter::base_sha256;
  EXPECT_EQ(Model::open(model).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nosa::test
