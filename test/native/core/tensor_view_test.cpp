#include "core/tensor_view.h"

#include <gtest/gtest.h>

#include <vector>

namespace nosa {
namespace {

TEST(WeightView, StepsThroughRowsByWholeBlocks) {
  std::vector<std::byte> data(3 * 2 * 144);
  const WeightView view{data.data(), DType::kQ4_K, 3, 512};
  EXPECT_EQ(view.row_bytes(), 288);
  EXPECT_EQ(view.size_bytes(), static_cast<int64_t>(data.size()));
  EXPECT_EQ(view.row(2), data.data() + 576);
}

TEST(TensorView, AcceptsItsOwnSizes) {
  std::vector<float> data(6);
  const TensorView view(data.data(), DType::kF32, {{"n_tokens", 2}, {"n_embd", 3}});
  EXPECT_EQ(view.n_values(), 6);
  EXPECT_EQ(view.size_bytes(), 24);
  EXPECT_EQ(view.as<float>(), data.data());
  EXPECT_TRUE(view.expect("x", DType::kF32, {{"n_tokens", 2}, {"n_embd", 3}}).ok());
}

TEST(TensorView, NamesTheSizeThatDiffers) {
  std::vector<float> data(6);
  const TensorView view(data.data(), DType::kF32, {{"n_tokens", 2}, {"n_embd", 3}});
  const Status sizes = view.expect("x", DType::kF32, {{"n_tokens", 2}, {"n_embd", 4}});
  EXPECT_EQ(sizes.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sizes.message(), "x has n_embd = 3 where 4 is needed");
  EXPECT_EQ(view.expect("x", DType::kF16, {{"n_tokens", 2}, {"n_embd", 3}}).message(),
            "x has type F32 where F16 is needed");
  EXPECT_EQ(view.expect("x", DType::kF32, {{"n_tokens", 2}}).message(),
            "x has 2 dimensions where 1 are needed");
}

TEST(TensorView, MayBeEmpty) {
  const TensorView view(nullptr, DType::kF32, {{"n_tokens", 0}, {"n_embd", 3}});
  EXPECT_EQ(view.n_values(), 0);
  EXPECT_EQ(view.size_bytes(), 0);
}

TEST(TensorViewDeathTest, RefusesTheWrongElementType) {
  float value = 0;
  const TensorView view(&value, DType::kF32, {{"n", 1}});
  EXPECT_DEATH((void)view.as<uint16_t>(), "CHECK failed");
}

}  // namespace
}  // namespace nosa
