// Quantised blocks of a row as 8-bit levels and float scales, one struct a format:
//
//   value[i] = scale[g] level[i] + offset[g]       groups g of 32 values
//
// Symmetric formats have signed levels around 0 and no offset; Q6_K has a scale for each 16 values
// and puts the second in the place of the offset. `S::f16` converts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/quant_blocks.h"

namespace nosa::cpu {
namespace {

enum class Grouping {
  kSymmetric32,  // one scale
  kSymmetric16,  // a scale for the first and one for the last 16 values
  kAffine32,     // a scale and an offset
};

[[gnu::always_inline]] inline uint16_t half_at(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

/// `zero`: levels lie in [-zero, 255 - zero], or within int8 where it is 0. `shift` is added to the
/// levels, so that instructions that want unsigned weights get them.
struct FormatQ8_0 {
  using Block = BlockQ8_0;
  static constexpr Grouping grouping = Grouping::kSymmetric32;
  static constexpr int groups = 1;
  static constexpr int zero = 0;
  static void levels(const std::byte* at, uint8_t shift, uint8_t* out) {
    const auto* qs = reinterpret_cast<const uint8_t*>(at + offsetof(Block, qs));
    for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(qs[i] + shift);
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float*) {
    scale[0] = S::f16(half_at(at + offsetof(Block, d)));
  }
};

[[gnu::always_inline]] inline void nibbles(const std::byte* at, uint8_t shift, uint8_t* out) {
  const auto* qs = reinterpret_cast<const uint8_t*>(at);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<uint8_t>((qs[i] & 15) + shift);
    out[i + 16] = static_cast<uint8_t>((qs[i] >> 4) + shift);
  }
}

[[gnu::always_inline]] inline void nibbles_and_fifth_bits(const std::byte* qs_at,
                                                          const std::byte* qh_at, uint8_t shift,
                                                          uint8_t* out) {
  const auto* qs = reinterpret_cast<const uint8_t*>(qs_at);
  const auto* qh = reinterpret_cast<const uint8_t*>(qh_at);
  uint8_t high[32];
  for (int i = 0; i < 32; ++i) high[i] = static_cast<uint8_t>(((qh[i / 8] >> (i % 8)) & 1) << 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<uint8_t>(((qs[i] & 15) | high[i]) + shift);
    out[i + 16] = static_cast<uint8_t>(((qs[i] >> 4) | high[i + 16]) + shift);
  }
}

struct FormatQ4_0 {
  using Block = BlockQ4_0;
  static constexpr Grouping grouping = Grouping::kSymmetric32;
  static constexpr int groups = 1;
  static constexpr int zero = 8;
  static void levels(const std::byte* at, uint8_t shift, uint8_t* out) {
    nibbles(at + offsetof(Block, qs), static_cast<uint8_t>(shift - zero), out);
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float*) {
    scale[0] = S::f16(half_at(at + offsetof(Block, d)));
  }
};

struct FormatQ5_0 {
  using Block = BlockQ5_0;
  static constexpr Grouping grouping = Grouping::kSymmetric32;
  static constexpr int groups = 1;
  static constexpr int zero = 16;
  static void levels(const std::byte* at, uint8_t shift, uint8_t* out) {
    nibbles_and_fifth_bits(at + offsetof(Block, qs), at + offsetof(Block, qh),
                           static_cast<uint8_t>(shift - zero), out);
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float*) {
    scale[0] = S::f16(half_at(at + offsetof(Block, d)));
  }
};

struct FormatQ4_1 {
  using Block = BlockQ4_1;
  static constexpr Grouping grouping = Grouping::kAffine32;
  static constexpr int groups = 1;
  static constexpr int zero = 0;
  static void levels(const std::byte* at, uint8_t, uint8_t* out) {
    nibbles(at + offsetof(Block, qs), 0, out);
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float* offset) {
    scale[0] = S::f16(half_at(at + offsetof(Block, d)));
    offset[0] = S::f16(half_at(at + offsetof(Block, m)));
  }
};

struct FormatQ5_1 {
  using Block = BlockQ5_1;
  static constexpr Grouping grouping = Grouping::kAffine32;
  static constexpr int groups = 1;
  static constexpr int zero = 0;
  static void levels(const std::byte* at, uint8_t, uint8_t* out) {
    nibbles_and_fifth_bits(at + offsetof(Block, qs), at + offsetof(Block, qh), 0, out);
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float* offset) {
    scale[0] = S::f16(half_at(at + offsetof(Block, d)));
    offset[0] = S::f16(half_at(at + offsetof(Block, m)));
  }
};

/// The scales and offsets of the eight groups of a Q4_K or Q5_K block.
template <typename S, typename Block>
[[gnu::always_inline]] inline void k_scales(const std::byte* at, float* scale, float* offset) {
  const float d = S::f16(half_at(at + offsetof(Block, d)));
  const float dmin = S::f16(half_at(at + offsetof(Block, dmin)));
  // The layout of k_scale_min(), four groups at a time: three words of four bytes.
  uint32_t words[3];
  std::memcpy(words, at + offsetof(Block, scales), sizeof(words));
  constexpr uint32_t six = 0x3f3f3f3f;
  constexpr uint32_t four = 0x0f0f0f0f;
  constexpr uint32_t two = 0x30303030;
  const uint32_t packed[4] = {words[0] & six, (words[2] & four) | ((words[0] >> 2) & two),
                              words[1] & six, ((words[2] >> 4) & four) | ((words[1] >> 2) & two)};
  uint8_t bytes[16];
  std::memcpy(bytes, packed, sizeof(bytes));
  for (int g = 0; g < 8; ++g) {
    scale[g] = d * static_cast<float>(bytes[g]);
    offset[g] = -dmin * static_cast<float>(bytes[g + 8]);
  }
}

struct FormatQ4_K {
  using Block = BlockQ4_K;
  static constexpr Grouping grouping = Grouping::kAffine32;
  static constexpr int groups = 8;
  static constexpr int zero = 0;
  static void levels(const std::byte* at, uint8_t, uint8_t* out) {
    const auto* qs = reinterpret_cast<const uint8_t*>(at + offsetof(Block, qs));
    for (int pair = 0; pair < 4; ++pair) {
      for (int i = 0; i < 32; ++i) {
        out[64 * pair + i] = qs[32 * pair + i] & 15;
        out[64 * pair + 32 + i] = qs[32 * pair + i] >> 4;
      }
    }
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float* offset) {
    k_scales<S, Block>(at, scale, offset);
  }
};

struct FormatQ5_K {
  using Block = BlockQ5_K;
  static constexpr Grouping grouping = Grouping::kAffine32;
  static constexpr int groups = 8;
  static constexpr int zero = 0;
  static void levels(const std::byte* at, uint8_t, uint8_t* out) {
    const auto* qs = reinterpret_cast<const uint8_t*>(at + offsetof(Block, qs));
    const auto* qh = reinterpret_cast<const uint8_t*>(at + offsetof(Block, qh));
    for (int pair = 0; pair < 4; ++pair) {
      for (int i = 0; i < 32; ++i) {
        const int high = qh[i] >> (2 * pair);
        out[64 * pair + i] =
            static_cast<uint8_t>((qs[32 * pair + i] & 15) | ((high & 1) << 4));
        out[64 * pair + 32 + i] =
            static_cast<uint8_t>((qs[32 * pair + i] >> 4) | ((high & 2) << 3));
      }
    }
  }
  template <typename S>
  static void scales(const std::byte* at, float* scale, float* offset) {
    k_scales<S, Block>(at, scale, offset);
  }
};

struct FormatQ6_K {
  using Block = BlockQ6_K;
  static constexpr Grouping grouping = Grouping::kSymmetric16;
  static constexpr int groups = 8;
  static constexpr int zero = 32;
  static void levels(const std::byte* at, uint8_t shift, uint8_t* out) {
    const auto up = static_cast<uint8_t>(shift - zero);
    for (int half = 0; half < 2; ++half) {
      const auto* ql = reinterpret_cast<const uint8_t*>(at + offsetof(Block, ql)) + 64 * half;
      const auto* qh = reinterpret_cast<const uint8_t*>(at + offsetof(Block, qh)) + 32 * half;
      uint8_t* to = out + 128 * half;
      for (int i = 0; i < 32; ++i) {
        to[i] = static_cast<uint8_t>(((ql[i] & 15) | ((qh[i] & 3) << 4)) + up);
        to[i + 32] = static_cast<uint8_t>(((ql[i + 32] & 15) | ((qh[i] & 12) << 2)) + up);
        to[i + 64] = static_cast<uint8_t>(((ql[i] >> 4) | (qh[i] & 48)) + up);
        to[i + 96] = static_cast<uint8_t>(((ql[i + 32] >> 4) | ((qh[i] & 192) >> 2)) + up);
      }
    }
  }
  template <typename S>
  static void scales(const std::byte* at, float* first, float* second) {
    const float d = S::f16(half_at(at + offsetof(Block, d)));
    const auto* scales = reinterpret_cast<const int8_t*>(at + offsetof(Block, scales));
    for (int g = 0; g < 8; ++g) {
      first[g] = d * static_cast<float>(scales[2 * g]);
      second[g] = d * static_cast<float>(scales[2 * g + 1]);
    }
  }
};

}  // namespace
}  // namespace nosa::cpu
