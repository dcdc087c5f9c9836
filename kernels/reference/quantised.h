// Quantised weights one value at a time, in double: what every implementation is compared with.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/half.h"
#include "core/tensor_view.h"

namespace nosa::reference {

namespace detail {

inline int byte_at(const std::byte* at, int64_t i) { return std::to_integer<int>(at[i]); }

inline int signed_byte_at(const std::byte* at, int64_t i) {
  return static_cast<int8_t>(byte_at(at, i));
}

inline uint16_t u16_at(const std::byte* at, int64_t i) {
  return static_cast<uint16_t>(byte_at(at, i) | byte_at(at, i + 1) << 8);
}

inline double f16_at(const std::byte* at, int64_t i) { return f16_to_f32(u16_at(at, i)); }

/// Value i of 32 that lie as four-bit levels in 16 bytes: low nibbles first, then the high ones.
inline int nibble_at(const std::byte* at, int i) {
  return byte_at(at, i % 16) >> (i / 16 * 4) & 15;
}

/// Bit i of a little-endian bit string.
inline int bit_at(const std::byte* at, int i) { return byte_at(at, i / 8) >> (i % 8) & 1; }

/// The 6-bit scale (`which` 0) or minimum (`which` 1) of group 0 .. 7 of a k-quant block.
inline int k_scale_at(const std::byte* packed, int group, int which) {
  if (group < 4) return byte_at(packed, group + 4 * which) & 63;
  const int low = byte_at(packed, group + 4) >> (4 * which) & 15;
  const int high = byte_at(packed, group - 4 + 4 * which) >> 6;
  return low + 16 * high;
}

/// Value i of a block, by the formula of its type in core/quant_blocks.h; offsets are spelled out
/// here, so that the two do not share a mistake.
inline double block_value(DType dtype, const std::byte* b, int i) {
  switch (dtype) {
    case DType::kF32: {
      const uint32_t low = u16_at(b, 0);
      const uint32_t high = u16_at(b, 2);
      return std::bit_cast<float>(low | high << 16);
    }
    case DType::kF16:
      return f16_at(b, 0);
    case DType::kBF16:
      return bf16_to_f32(u16_at(b, 0));
    case DType::kQ8_0:
      return f16_at(b, 0) * signed_byte_at(b, 2 + i);
    case DType::kQ4_0:
      return f16_at(b, 0) * (nibble_at(b + 2, i) - 8);
    case DType::kQ4_1:
      return f16_at(b, 0) * nibble_at(b + 4, i) + f16_at(b, 2);
    case DType::kQ5_0:
      return f16_at(b, 0) * (nibble_at(b + 6, i) + 16 * bit_at(b + 2, i) - 16);
    case DType::kQ5_1:
      return f16_at(b, 0) * (nibble_at(b + 8, i) + 16 * bit_at(b + 4, i)) + f16_at(b, 2);
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const bool five = dtype == DType::kQ5_K;
      const int group = i / 32;
      const int l = i % 32;
      const int low = byte_at(b, (five ? 48 : 16) + 32 * (group / 2) + l) >> (group % 2 * 4) & 15;
      const int high = five ? byte_at(b, 16 + l) >> group & 1 : 0;
      return f16_at(b, 0) * k_scale_at(b + 4, group, 0) * (low + 16 * high) -
             f16_at(b, 2) * k_scale_at(b + 4, group, 1);
    }
    case DType::kQ6_K: {
      const int half = i / 128;
      const int quarter = i % 128 / 32;
      const int l = i % 32;
      const int low = byte_at(b, 64 * half + 32 * (quarter % 2) + l) >> (quarter / 2 * 4) & 15;
      const int high = byte_at(b, 128 + 32 * half + l) >> (2 * quarter) & 3;
      return f16_at(b, 208) * signed_byte_at(b, 192 + i / 16) * (low + 16 * high - 32);
    }
  }
  return 0.0;
}

}  // namespace detail

/// Weight [row, col] of a matrix of any type.
inline double weight_value(const WeightView& weight, int64_t row, int64_t col) {
  const int64_t per_block = block_values(weight.dtype);
  const std::byte* block =
      weight.data + row * weight.row_bytes() + col / per_block * block_bytes(weight.dtype);
  return detail::block_value(weight.dtype, block, static_cast<int>(col % per_block));
}

}  // namespace nosa::reference
