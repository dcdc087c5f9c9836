#pragma once

#include <vector>

#include "core/dequantize.h"
#include "core/half.h"
#include "core/quant_blocks.h"
#include "support/bytes.h"
#include "support/random.h"

namespace nosa::test {

inline constexpr DType all_dtypes[] = {
    DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
    DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
};
static_assert(std::size(all_dtypes) == n_dtypes);

/// Rows of any type with random contents: packed from normal values where Nosa can pack; for the
/// k-quants random levels and scales, with `d` such that the values are of the same size.
/// `cols` is a multiple of block_values(dtype).
inline Bytes random_rows(DType dtype, int64_t rows, int64_t cols, Random& random,
                         float deviation = 1.0f) {
  const int64_t n_bytes = rows * row_bytes(dtype, cols);
  const auto set_f16 = [](Bytes& bytes, size_t at, float value) {
    const uint16_t bits = f32_to_f16(value);
    std::memcpy(bytes.data() + at, &bits, sizeof(bits));
  };
  if (block_values(dtype) != 256) {
    Bytes out(static_cast<size_t>(n_bytes));
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> values = random.normals(cols, deviation);
      CHECK(quantize_row(dtype, values.data(), cols, out.data() + r * row_bytes(dtype, cols)).ok());
    }
    return out;
  }
  Bytes out = random.bytes(n_bytes);
  const size_t stride = static_cast<size_t>(block_bytes(dtype));
  for (size_t at = 0; at < out.size(); at += stride) {
    const float spread = deviation * (1.0f + 0.25f * random.normal());
    if (dtype == DType::kQ6_K) {
      set_f16(out, at + offsetof(BlockQ6_K, d), spread / (74.0f * 18.5f));
    } else {
      const float levels = dtype == DType::kQ4_K ? 15.0f : 31.0f;
      set_f16(out, at + offsetof(BlockQ4_K, d), spread / (32.0f * levels / 3.0f));
      set_f16(out, at + offsetof(BlockQ4_K, dmin), spread / (32.0f / 1.5f));
    }
  }
  return out;
}

/// random_rows() of a quantised type with every level the largest that there is, or the smallest.
inline Bytes extreme_rows(DType dtype, int64_t rows, int64_t cols, Random& random) {
  Bytes out = random_rows(dtype, rows, cols, random);
  size_t first = 0;  // of the levels
  size_t n_bytes = 0;
  switch (dtype) {
    case DType::kQ6_K:
      n_bytes = offsetof(BlockQ6_K, scales);
      break;
    case DType::kQ4_K:
    case DType::kQ5_K:
      first = offsetof(BlockQ4_K, qs);
      break;
    case DType::kQ4_1:
    case DType::kQ5_1:
      first = 4;
      break;
    default:
      first = 2;
  }
  const auto stride = static_cast<size_t>(block_bytes(dtype));
  if (n_bytes == 0) n_bytes = stride - first;
  const bool largest = random.bits() % 2 == 0;
  const int level = dtype == DType::kQ8_0 ? (largest ? 0x7f : 0x80) : (largest ? 0xff : 0);
  for (size_t at = 0; at < out.size(); at += stride) {
    std::memset(out.data() + at + first, level, n_bytes);
  }
  return out;
}

/// The same rows as floats, by the reference.
inline std::vector<float> expanded(DType dtype, const Bytes& rows, int64_t cols) {
  const int64_t stride = row_bytes(dtype, cols);
  std::vector<float> out;
  for (size_t at = 0; stride > 0 && at < rows.size(); at += static_cast<size_t>(stride)) {
    std::vector<float> row(static_cast<size_t>(cols));
    dequantize_row(dtype, rows.data() + at, cols, row.data());
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

}  // namespace nosa::test
