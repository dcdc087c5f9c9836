#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "support/random.h"

namespace nosa::test {
namespace {

RopeConfig config_of(decltype(RopeConfig::scaling) scaling, int n_rotated = 128,
                     float theta = 10000.0f) {
  RopeConfig config;
  config.theta = theta;
  config.n_rotated = n_rotated;
  config.scaling = std::move(scaling);
  return config;
}

double trained(const RopeConfig& config, size_t i) {
  return 1 / std::pow(double(config.theta), 2.0 * double(i) / config.n_rotated);
}

TEST(Rope, UnscaledAndLinear) {
  const RopeConfig plain = config_of(RopeUnscaled(), 64, 1e6f);
  const RopeConfig linear = config_of(RopeLinear{4.0f}, 64, 1e6f);
  const RopeTable a = make_rope_table(plain).value();
  const RopeTable b = make_rope_table(linear).value();
  ASSERT_EQ(a.inv_freq.size(), 32u);
  EXPECT_EQ(a.inv_freq[0], 1.0f);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(a.inv_freq[i] / trained(plain, i), 1, 1e-6);
    EXPECT_NEAR(b.inv_freq[i] * 4 / trained(plain, i), 1, 1e-6);
  }
  EXPECT_EQ(b.magnitude, 1.0f);
}

TEST(Rope, YarnKeepsFastDimensionsAndDividesSlowOnes) {
  // Qwen2.5's own setting: factor 4 over 32,768 positions.
  RopeYarn yarn;
  yarn.factor = 4;
  yarn.original_context = 32768;
  const RopeConfig config = config_of(yarn, 128, 1e6f);
  const RopeTable table = make_rope_table(config).value();
  EXPECT_NEAR(table.magnitude, 0.1 * std::log(4.0) + 1, 1e-6);
  // Ends of the ramp by the paper: the dimension that turns 32 times, and the one that turns once.
  const auto dimension = [&](double turns) {
    return 128 * std::log(32768 / (turns * 2 * std::numbers::pi)) / (2 * std::log(1e6));
  };
  const double low = std::floor(dimension(32));
  const double high = std::ceil(dimension(1));
  ASSERT_GT(low, 0);
  ASSERT_LT(high, 64);
  for (size_t i = 0; i < 64; ++i) {
    const double kept = double(i) <= low    ? 1
                        : double(i) >= high ? 0
                                            : 1 - (double(i) - low) / (high - low);
    const double expected = trained(config, i) * (kept + (1 - kept) / 4);
    EXPECT_NEAR(table.inv_freq[i] / expected, 1, 1e-6) << i;
  }
  yarn.magnitude = 1.25f;
  EXPECT_EQ(make_rope_table(config_of(yarn)).value().magnitude, 1.25f);
}

TEST(Rope, Llama3GoesByWavelength) {
  // Llama 3.1: factor 8, low 1, high 4, 8,192 positions.
  const RopeConfig config = config_of(RopeLlama3{8, 1, 4, 8192}, 128, 5e5f);
  const RopeTable table = make_rope_table(config).value();
  for (size_t i = 0; i < 64; ++i) {
    const double f = trained(config, i);
    const double wavelength = 2 * std::numbers::pi / f;
    double expected = f;
    if (wavelength > 8192.0 / 1) {
      expected = f / 8;
    } else if (wavelength > 8192.0 / 4) {
      const double smooth = (8192 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * f / 8 + smooth * f;
    }
    EXPECT_NEAR(table.inv_freq[i] / expected, 1, 1e-6) << i;
  }
}

TEST(Rope, ListsDivideDimensionByDimension) {
  Random random;
  RopeLong scheme;
  for (int i = 0; i < 32; ++i) scheme.factors.push_back(1 + std::abs(random.normal()) * 30);
  scheme.magnitude = long_rope_magnitude(4, 4096);
  EXPECT_NEAR(scheme.magnitude, std::sqrt(1 + std::log(4.0) / std::log(4096.0)), 1e-6);
  EXPECT_EQ(long_rope_magnitude(1, 4096), 1.0f);
  RopeConfig config = config_of(scheme, 64);
  const RopeTable table = make_rope_table(config).value();
  config.scaling = RopeUnscaled();
  config.divisors = scheme.factors;
  const RopeTable same = make_rope_table(config).value();
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(table.inv_freq[i] * scheme.factors[i] / trained(config, i), 1, 1e-6);
    EXPECT_EQ(same.inv_freq[i], table.inv_freq[i]);
  }
  EXPECT_EQ(table.magnitude, scheme.magnitude);
}

TEST(Rope, NumbersThatMakeNoSenseAreRefused) {
  EXPECT_FALSE(make_rope_table(config_of(RopeLinear{0.0f})).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeLinear{-2.0f})).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeLinear{std::nanf("")})).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeLong{{1, 2, 3}, 1})).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeLlama3{8, 4, 4, 8192})).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeUnscaled(), 63)).ok());
  EXPECT_FALSE(make_rope_table(config_of(RopeUnscaled(), 64, 0.5f)).ok());
  EXPECT_EQ(make_rope_table(config_of(RopeYarn())).status().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace nosa::test
