#include "core/dequantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include "core/quant_blocks.h"
#include "kernels/reference/quantised.h"
#include "support/quantised_rows.h"

namespace nosa {
namespace {

class EachDType : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(All, EachDType, testing::ValuesIn(test::all_dtypes),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

/// Random bytes as blocks, with binary16 fields that are finite.
test::Bytes any_blocks(DType dtype, int64_t n_blocks, test::Random& random) {
  test::Bytes bytes = random.bytes(n_blocks * block_bytes(dtype));
  const auto make_finite = [&](size_t at, size_t step) {
    for (; at < bytes.size(); at += step) {
      bytes[at + 1] &= std::byte{0xbf};  // Clears the top bit of the exponent.
    }
  };
  const auto step = static_cast<size_t>(block_bytes(dtype));
  if (dtype == DType::kF32) return bytes;
  make_finite(dtype == DType::kQ6_K ? 208 : 0, step);
  const bool has_min = dtype == DType::kQ4_1 || dtype == DType::kQ5_1 || dtype == DType::kQ4_K ||
                       dtype == DType::kQ5_K;
  if (has_min) make_finite(2, step);
  return bytes;
}

TEST_P(EachDType, ExpandsAnyBytesAsTheReferenceDoes) {
  const DType dtype = GetParam();
  test::Random random;
  const int64_t n_blocks = random.between(1, 40);
  const int64_t cols = n_blocks * block_values(dtype);
  const test::Bytes bytes = any_blocks(dtype, n_blocks, random);
  std::vector<float> out(static_cast<size_t>(cols), NAN);
  dequantize_row(dtype, bytes.data(), cols, out.data());
  const WeightView view{bytes.data(), dtype, 1, cols};
  for (int64_t c = 0; c < cols; ++c) {
    const double expected = reference::weight_value(view, 0, c);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(out[c]));
      continue;
    }
    // Two products and one difference in float; the difference can cancel.
    const double slack = block_values(dtype) == 1 ? 0.0 : 1e-6 * 63 * 31 * 2;
    ASSERT_NEAR(out[c], expected, slack) << c;
  }
}

TEST_P(EachDType, ReadsRowsAtAnyAlignment) {
  const DType dtype = GetParam();
  test::Random random;
  const int64_t cols = 2 * block_values(dtype);
  const test::Bytes bytes = any_blocks(dtype, 2, random);
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
  std::vector<float> straight(static_cast<size_t>(cols));
  std::vector<float> odd(static_cast<size_t>(cols));
  dequantize_row(dtype, bytes.data(), cols, straight.data());
  dequantize_row(dtype, shifted.data() + 1, cols, odd.data());
  EXPECT_EQ(std::memcmp(straight.data(), odd.data(), straight.size() * sizeof(float)), 0);
}

TEST_P(EachDType, AnEmptyRowWritesNothing) {
  float poison = 42.0f;
  dequantize_row(GetParam(), nullptr, 0, &poison);
  EXPECT_EQ(poison, 42.0f);
}

/// Largest error of a value, in units of the largest magnitude (or spread) of its block.
double allowed_error(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0.0;
    case DType::kF16:
      return 1.0 / 2048;
    case DType::kBF16:
      return 1.0 / 256;
    case DType::kQ8_0:
      return 0.51 / 127;
    case DType::kQ4_0:
      return 1.01 / 8;  // The level 8 is missing opposite to the largest value.
    case DType::kQ5_0:
      return 1.01 / 16;
    case DType::kQ4_1:
      return 0.51 / 15;
    case DType::kQ5_1:
      return 0.51 / 31;
    default:
      return 0.0;
  }
}

TEST_P(EachDType, WhatWasPackedComesBackWithinHalfAStep) {
  const DType dtype = GetParam();
  if (block_values(dtype) == 256) GTEST_SKIP() << "the k-quants are read, not written";
  test::Random random;
  const int64_t cols = 32 * 50;
  const std::vector<float> values = random.normals(cols);
  test::Bytes packed(static_cast<size_t>(row_bytes(dtype, cols)));
  ASSERT_TRUE(quantize_row(dtype, values.data(), cols, packed.data()).ok());
  const std::vector<float> back = test::expanded(dtype, packed, cols);
  for (int64_t at = 0; at < cols; at += 32) {
    const auto [low, high] = std::minmax_element(&values[at], &values[at] + 32);
    const bool by_spread = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
    const double unit = by_spread ? *high - *low : std::max(std::fabs(*low), std::fabs(*high));
    // Scales and minima are rounded to binary16.
    const double slack = block_values(dtype) == 1 ? 0.0 : 0.002;
    for (int64_t i = at; i < at + 32; ++i) {
      ASSERT_NEAR(back[i], values[i], unit * (allowed_error(dtype) + slack)) << i;
    }
  }
}

TEST_P(EachDType, ZerosStayZeros) {
  const DType dtype = GetParam();
  if (block_values(dtype) == 256) GTEST_SKIP() << "the k-quants are read, not written";
  const std::vector<float> zeros(64, 0.0f);
  test::Bytes packed(static_cast<size_t>(row_bytes(dtype, 64)), std::byte{0xee});
  ASSERT_TRUE(quantize_row(dtype, zeros.data(), 64, packed.data()).ok());
  EXPECT_EQ(test::expanded(dtype, packed, 64), zeros);
}

TEST(Quantize, RefusesWhatItCannotPack) {
  std::vector<float> values(256);
  test::Bytes out(1024);
  EXPECT_EQ(quantize_row(DType::kQ4_K, values.data(), 256, out.data()).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(quantize_row(DType::kQ8_0, values.data(), 33, out.data()).code(),
            StatusCode::kInvalidArgument);
}

/// dequantize_golden.txt holds blocks and what the GGUF project's own code makes of them; a line is
/// the type, the bytes in hex and the values as hex floats. dequantize_golden.py wrote it.
TEST(Dequantize, AgreesWithTheFormatsOwnCode) {
  std::ifstream file(NOSA_TEST_SOURCE_DIR "/dequantize_golden.txt");
  ASSERT_TRUE(file.good());
  int n_lines = 0;
  for (std::string line; std::getline(file, line); ++n_lines) {
    std::istringstream words(line);
    std::string type;
    std::string hex;
    words >> type >> hex;
    const auto dtype = std::find_if(std::begin(test::all_dtypes), std::end(test::all_dtypes),
                                    [&](DType d) { return type == dtype_name(d); });
    ASSERT_NE(dtype, std::end(test::all_dtypes)) << type;
    test::Bytes block;
    for (size_t i = 0; i < hex.size(); i += 2) {
      block.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    ASSERT_EQ(static_cast<int64_t>(block.size()), block_bytes(*dtype));
    const std::vector<float> values = test::expanded(*dtype, block, block_values(*dtype));
    for (const float value : values) {
      std::string expected;
      ASSERT_TRUE(words >> expected) << type;
      ASSERT_EQ(value, std::strtof(expected.c_str(), nullptr)) << type;
    }
  }
  EXPECT_EQ(n_lines, n_dtypes * 2);
}

}  // namespace
}  // namespace nosa
