#include "core/dequantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/half.h"
#include "core/quant_blocks.h"

namespace nosa {
namespace {

/// Rows come straight from files, at any alignment: copied out, a block is properly aligned.
template <typename Block>
Block load_block(const std::byte* at) {
  Block block;
  std::memcpy(&block, at, sizeof(block));
  return block;
}

int nibble(const uint8_t (&qs)[16], int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

int fifth_bit(const uint8_t (&qh)[4], int i) { return ((qh[i / 8] >> (i % 8)) & 1) << 4; }

void expand(const BlockQ8_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(block.qs[i]);
}

void expand(const BlockQ4_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(nibble(block.qs, i) - 8);
}

void expand(const BlockQ4_1& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(nibble(block.qs, i)) + m;
}

void expand(const BlockQ5_0& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>((nibble(block.qs, i) | fifth_bit(block.qh, i)) - 16);
  }
}

void expand(const BlockQ5_1& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(nibble(block.qs, i) | fifth_bit(block.qh, i)) + m;
  }
}

void expand(const BlockQ4_K& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (int group = 0; group < 8; ++group) {
    const KScaleMin packed = k_scale_min(block.scales, group);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    const uint8_t* qs = block.qs + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int l = 0; l < 32; ++l) {
      out[32 * group + l] = scale * static_cast<float>((qs[l] >> shift) & 15) - min;
    }
  }
}

void expand(const BlockQ5_K& block, float* out) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (int group = 0; group < 8; ++group) {
    const KScaleMin packed = k_scale_min(block.scales, group);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    const uint8_t* qs = block.qs + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int l = 0; l < 32; ++l) {
      const int q = ((qs[l] >> shift) & 15) | (((block.qh[l] >> group) & 1) << 4);
      out[32 * group + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void expand(const BlockQ6_K& block, float* out) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int k = (i % 128) / 32;
    const int l = i % 32;
    const int low = (block.ql[64 * half + 32 * (k % 2) + l] >> (4 * (k / 2))) & 15;
    const int high = (block.qh[32 * half + l] >> (2 * k)) & 3;
    const float scale = d * static_cast<float>(block.scales[i / 16]);
    out[i] = scale * static_cast<float>((low | (high << 4)) - 32);
  }
}

template <typename Block>
void expand_row(const std::byte* row, int64_t n_values, int values_per_block, float* out) {
  const int64_t n_blocks = n_values / values_per_block;
  for (int64_t b = 0; b < n_blocks; ++b) {
    const auto block = load_block<Block>(row + b * static_cast<int64_t>(sizeof(Block)));
    expand(block, out + b * values_per_block);
  }
}

float largest_magnitude(const float* values) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(values[i]) > std::fabs(largest)) largest = values[i];
  }
  return largest;
}

/// round((value - offset) / d) held within [0, q_max]; 0 for a block without spread.
int to_level(float value, float offset, float d, int q_max) {
  if (d == 0.0f) return 0;
  return std::clamp(static_cast<int>(std::lround((value - offset) / d)), 0, q_max);
}

void set_nibble(uint8_t (&qs)[16], int i, int level) {
  qs[i % 16] = static_cast<uint8_t>(qs[i % 16] | (level & 15) << (i < 16 ? 0 : 4));
}

void set_fifth_bit(uint8_t (&qh)[4], int i, int level) {
  qh[i / 8] = static_cast<uint8_t>(qh[i / 8] | (level >> 4) << (i % 8));
}

void pack(const float* values, BlockQ8_0* block) {
  block->d = f32_to_f16(std::fabs(largest_magnitude(values)) / 127.0f);
  const float d = f16_to_f32(block->d);
  for (int i = 0; i < 32; ++i) {
    const int level = to_level(values[i], -127.0f * d, d, 254);
    block->qs[i] = static_cast<int8_t>(d == 0.0f ? 0 : level - 127);
  }
}

// The range -8 .. 7 has one level more below zero: the scale takes the sign that puts the value of
// largest magnitude there.
void pack(const float* values, BlockQ4_0* block) {
  block->d = f32_to_f16(largest_magnitude(values) / -8.0f);
  const float d = f16_to_f32(block->d);
  for (int i = 0; i < 32; ++i) set_nibble(block->qs, i, to_level(values[i], -8.0f * d, d, 15));
}

void pack(const float* values, BlockQ5_0* block) {
  block->d = f32_to_f16(largest_magnitude(values) / -16.0f);
  const float d = f16_to_f32(block->d);
  for (int i = 0; i < 32; ++i) {
    const int level = to_level(values[i], -16.0f * d, d, 31);
    set_nibble(block->qs, i, level);
    set_fifth_bit(block->qh, i, level);
  }
}

void pack(const float* values, BlockQ4_1* block) {
  const auto [min, max] = std::minmax_element(values, values + 32);
  block->d = f32_to_f16((*max - *min) / 15.0f);
  block->m = f32_to_f16(*min);
  const float d = f16_to_f32(block->d);
  const float m = f16_to_f32(block->m);
  for (int i = 0; i < 32; ++i) set_nibble(block->qs, i, to_level(values[i], m, d, 15));
}

void pack(const float* values, BlockQ5_1* block) {
  const auto [min, max] = std::minmax_element(values, values + 32);
  block->d = f32_to_f16((*max - *min) / 31.0f);
  block->m = f32_to_f16(*min);
  const float d = f16_to_f32(block->d);
  const float m = f16_to_f32(block->m);
  for (int i = 0; i < 32; ++i) {
    const int level = to_level(values[i], m, d, 31);
    set_nibble(block->qs, i, level);
    set_fifth_bit(block->qh, i, level);
  }
}

template <typename Block>
void pack_row(const float* values, int64_t n_values, std::byte* out) {
  for (int64_t b = 0; b < n_values / 32; ++b) {
    Block block{};
    pack(values + 32 * b, &block);
    std::memcpy(out + b * static_cast<int64_t>(sizeof(block)), &block, sizeof(block));
  }
}

}  // namespace

void dequantize_row(DType dtype, const std::byte* row, int64_t n_values, float* out) {
  CHECK(n_values >= 0 && n_values % block_values(dtype) == 0);
  switch (dtype) {
    case DType::kF32:
      if (n_values > 0) std::memcpy(out, row, static_cast<size_t>(n_values) * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n_values; ++i) out[i] = f16_to_f32(load_block<uint16_t>(row + 2 * i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n_values; ++i) {
        out[i] = bf16_to_f32(load_block<uint16_t>(row + 2 * i));
      }
      return;
    case DType::kQ8_0:
      return expand_row<BlockQ8_0>(row, n_values, 32, out);
    case DType::kQ4_0:
      return expand_row<BlockQ4_0>(row, n_values, 32, out);
    case DType::kQ4_1:
      return expand_row<BlockQ4_1>(row, n_values, 32, out);
    case DType::kQ5_0:
      return expand_row<BlockQ5_0>(row, n_values, 32, out);
    case DType::kQ5_1:
      return expand_row<BlockQ5_1>(row, n_values, 32, out);
    case DType::kQ4_K:
      return expand_row<BlockQ4_K>(row, n_values, 256, out);
    case DType::kQ5_K:
      return expand_row<BlockQ5_K>(row, n_values, 256, out);
    case DType::kQ6_K:
      return expand_row<BlockQ6_K>(row, n_values, 256, out);
  }
}

Status quantize_row(DType dtype, const float* values, int64_t n_values, std::byte* out) {
  if (n_values < 0 || n_values % block_values(dtype) != 0) {
    return Status::invalid_argument("a row of " + std::to_string(n_values) + " values is no " +
                                    "whole number of " + dtype_name(dtype) + " blocks");
  }
  const auto store16 = [&](int64_t i, uint16_t bits) { std::memcpy(out + 2 * i, &bits, 2); };
  switch (dtype) {
    case DType::kF32:
      if (n_values > 0) std::memcpy(out, values, static_cast<size_t>(n_values) * sizeof(float));
      return {};
    case DType::kF16:
      for (int64_t i = 0; i < n_values; ++i) store16(i, f32_to_f16(values[i]));
      return {};
    case DType::kBF16:
      for (int64_t i = 0; i < n_values; ++i) store16(i, f32_to_bf16(values[i]));
      return {};
    case DType::kQ8_0:
      pack_row<BlockQ8_0>(values, n_values, out);
      return {};
    case DType::kQ4_0:
      pack_row<BlockQ4_0>(values, n_values, out);
      return {};
    case DType::kQ4_1:
      pack_row<BlockQ4_1>(values, n_values, out);
      return {};
    case DType::kQ5_0:
      pack_row<BlockQ5_0>(values, n_values, out);
      return {};
    case DType::kQ5_1:
      pack_row<BlockQ5_1>(values, n_values, out);
      return {};
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      break;
  }
  return Status::unsupported(std::string("Nosa reads ") + dtype_name(dtype) +
                             " but does not write it; use Q8_0 or Q4_0 to Q5_1");
}

}  // namespace nosa
