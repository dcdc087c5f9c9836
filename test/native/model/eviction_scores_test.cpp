#include "model/eviction_scores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "support/random.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"

namespace nosa::test {
namespace {

constexpr KvShape shape{2, 2, 16, DType::kF32};

Bytes floats(const std::vector<float>& values) {
  Bytes bytes;
  for (const float value : values) append(value, &bytes);
  return bytes;
}

/// Eviction heads of both layers in a folder; `layers` of them are written.
std::unique_ptr<Weights> write_heads(const TempFolder& folder, const std::vector<float>& a,
                                     const std::vector<float>& delta, const std::vector<int>& layers,
                                     int64_t n_delta_rows = 2) {
  SafetensorsWriter file;
  for (const int layer : layers) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".self_attn.";
    file.add(prefix + "A", "F32", {2}, floats(a));
    file.add(prefix + "delta.weight", "F32", {n_delta_rows, int64_t(delta.size()) / n_delta_rows}, floats(delta));
  }
  std::filesystem::create_directory(folder.path_of("m"));
  folder.write("m/config.json", "{\"model_type\": \"llama\"}");
  folder.write("m/model.safetensors", file.finish());
  return Weights::open(folder.path_of("m")).value();
}

TEST(EvictionScores, AreASoftplusOfAllValueHeadsTimesA) {
  Random random;
  const TempFolder folder;
  const std::vector<float> a = {0.75f, -1.5f};
  const std::vector<float> delta = random.normals(2 * 32);
  const auto weights = write_heads(folder, a, delta, {0, 1});
  EXPECT_TRUE(EvictionScores::present_in(*weights));
  const EvictionScores scores = EvictionScores::from_weights(*weights, shape).value();
  EXPECT_TRUE(scores.additive());

  constexpr int n_tokens = 5;
  const std::vector<float> k = random.normals(n_tokens * 32);
  std::vector<float> v = random.normals(n_tokens * 32);
  for (int i = 0; i < 32; ++i) v[size_t(i)] *= 1000.0f;  // Where e^x has long overflowed.
  std::vector<float> out(2 * n_tokens, std::nanf(""));
  scores.compute(1, k.data(), v.data(), n_tokens, out.data());
  for (int h = 0; h < 2; ++h) {
    for (int t = 0; t < n_tokens; ++t) {
      double u = 0;
      double size = 1;  // Of what is added up: its terms may cancel.
      for (int i = 0; i < 32; ++i) {
        const double term = double(delta[size_t(h * 32 + i)]) * v[size_t(t * 32 + i)];
        u += term;
        size += std::abs(term);
      }
      const double softplus = std::max(u, 0.0) + std::log1p(std::exp(-std::abs(u)));
      EXPECT_NEAR(out[size_t(h * n_tokens + t)], a[size_t(h)] * softplus, 4e-6 * size);
      std::vector<float> alone(2, std::nanf(""));
      scores.compute(1, k.data() + t * 32, v.data() + t * 32, 1, alone.data());
      EXPECT_EQ(alone[size_t(h)], out[size_t(h * n_tokens + t)]);  // A token's score is its own.
    }
  }
}

TEST(EvictionScores, HeadsThatAreMissingOrMisshapenAreRefused) {
  Random random;
  const std::vector<float> delta = random.normals(2 * 32);
  for (const std::vector<int>& layers : {std::vector<int>{0}, std::vector<int>{1}}) {
    const TempFolder folder;
    const auto weights = write_heads(folder, {1, 1}, delta, layers);
    EXPECT_TRUE(EvictionScores::present_in(*weights));
    EXPECT_EQ(EvictionScores::from_weights(*weights, shape).status().code(), StatusCode::kCorrupt);
  }
  const TempFolder folder;
  const auto weights = write_heads(folder, {1, 1}, delta, {0, 1}, 4);
  EXPECT_EQ(EvictionScores::from_weights(*weights, shape).status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace nosa::test
