#include "core/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/random.h"

namespace nosa {
namespace {

/// The value of a finite pattern by the definition of the format.
double finite_value(int sign, int exponent, int mantissa, int bias, int mantissa_bits) {
  const double fraction = std::ldexp(mantissa, -mantissa_bits) + (exponent == 0 ? 0.0 : 1.0);
  const double magnitude = std::ldexp(fraction, (exponent == 0 ? 1 : exponent) - bias);
  return sign != 0 ? -magnitude : magnitude;
}

TEST(Half, EveryF16PatternExpandsToItsValue) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    const float value = f16_to_f32(half);
    ASSERT_EQ(std::signbit(value), bits >> 15 != 0);
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(value), mantissa != 0);
      ASSERT_EQ(std::isinf(value), mantissa == 0);
      continue;
    }
    ASSERT_EQ(value, finite_value(bits >> 15, exponent, mantissa, 15, 10)) << bits;
  }
}

TEST(Half, EveryF16ValueRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(f32_to_f16(value), half);
    }
  }
}

TEST(Half, BetweenTwoF16ValuesTheNearerWinsAndTiesGoToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const auto high = static_cast<uint16_t>(bits + 1);
    const float middle = (f16_to_f32(low) + f16_to_f32(high)) / 2;  // Exact in float.
    ASSERT_EQ(f32_to_f16(middle), bits % 2 == 0 ? low : high);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e30f)), high);
    ASSERT_EQ(f32_to_f16(-middle), (bits % 2 == 0 ? low : high) | 0x8000);
  }
}

TEST(Half, F16OverflowsToInfinityFromHalfAStepAboveTheLargest) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7c00);
}

TEST(Half, EveryBf16ValueRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto bf16 = static_cast<uint16_t>(bits);
    const float value = bf16_to_f32(bf16);
    const int exponent = bits >> 7 & 255;
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value))));
      continue;
    }
    if (exponent != 255) {
      ASSERT_EQ(value, finite_value(bits >> 15, exponent, bits & 127, 127, 7));
    }
    ASSERT_EQ(f32_to_bf16(value), bf16);
  }
}

TEST(Half, BetweenTwoBf16ValuesTheNearerWinsAndTiesGoToEven) {
  test::Random random;
  for (int i = 0; i < 10000; ++i) {
    const auto bits = static_cast<uint16_t>(random.between(0, 0x7f7e));
    const float middle = std::bit_cast<float>(static_cast<uint32_t>(bits) << 16 | 0x8000u);
    const auto next = static_cast<uint16_t>(bits + 1);
    ASSERT_EQ(f32_to_bf16(middle), bits % 2 == 0 ? bits : next);
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, INFINITY)), next);
  }
}

}  // namespace
}  // namespace nosa
