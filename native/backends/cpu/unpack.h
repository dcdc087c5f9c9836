// Quantised blocks of 16 rows, unpacked with the rows in the lanes of the vectors `S`.
//
// Packed words are transposed first and taken apart then, so that one instruction serves 16 rows.
// For each group of 32 columns a format writes to the panel (see matmul_quant.h)
//
//   levels [8][16 rows][4 columns], scale [16 rows], second [16 rows]
//
//   value = scale level            symmetric formats, levels around 0
//   value = scale level + second   affine formats, levels from 0
//   value = (scale, second) level  Q6_K: one for the first, one for the last 16 columns
//
// `kShift` is added to the levels: instructions that want unsigned weights get them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends/cpu/ops.h"
#include "backends/cpu/token_tiles.h"
#include "core/quant_blocks.h"

namespace nosa::cpu {
namespace {

/// Bytes of 32 columns of a panel.
inline constexpr int64_t panel_levels_bytes = panel_rows * quant_values;
inline constexpr int64_t panel_block_bytes = panel_levels_bytes + 2 * panel_rows * 4;

enum class Grouping {
  kSymmetric32,
  kSymmetric16,
  kAffine32,
};

/// The same block of 16 rows: `at` is the first row's, the others follow `stride` bytes apart.
struct BlockColumn {
  const std::byte* at;
  int64_t stride;
};

/// Words of 16 rows with the rows innermost: [n][16].
template <int n>
struct Words {
  alignas(64) uint32_t of[n][panel_rows];
};

template <typename S>
Words<8> words8(BlockColumn blocks, int64_t offset) {
  Words<8> words;
  S::transpose_16x8_to(blocks.at + offset, blocks.stride, reinterpret_cast<std::byte*>(words.of));
  return words;
}

template <typename S>
Words<4> words4(BlockColumn blocks, int64_t offset) {
  Words<4> words;
  S::transpose_16x4_to(blocks.at + offset, blocks.stride, reinterpret_cast<std::byte*>(words.of));
  return words;
}

/// A 2- or 4-byte field of 16 rows.
template <typename T>
struct Fields {
  alignas(64) T of[panel_rows];
};

template <typename T>
[[gnu::always_inline]] inline Fields<T> fields(BlockColumn blocks, int64_t offset) {
  Fields<T> all;
  for (int r = 0; r < panel_rows; ++r) {
    std::memcpy(&all.of[r], blocks.at + r * blocks.stride + offset, sizeof(T));
  }
  return all;
}

/// Calls fn(first lane) for each vector of the 16 rows.
template <typename S, typename Fn>
[[gnu::always_inline]] inline void for_lanes(Fn&& fn) {
  for (int lane = 0; lane < panel_rows; lane += S::lanes) fn(lane);
}

template <typename S>
[[gnu::always_inline]] inline void put_level(std::byte* panel, int word, int lane,
                                             typename S::I levels) {
  S::store_i(panel + 64 * word + 4 * lane, levels);
}

template <typename S>
[[gnu::always_inline]] inline void put_scale(std::byte* panel, int which, int lane,
                                             typename S::F scale) {
  S::store(reinterpret_cast<float*>(panel + panel_levels_bytes) + which * panel_rows + lane, scale);
}

/// Each byte's low, or high, four bits.
template <typename S>
[[gnu::always_inline]] inline typename S::I low4(typename S::I bytes) {
  return S::and_i(bytes, S::set1_i(0x0f0f0f0f));
}
template <typename S>
[[gnu::always_inline]] inline typename S::I high4(typename S::I bytes) {
  return low4<S>(S::template shift_right<4>(bytes));
}

/// A scale that is a binary16 field of each block.
template <typename S>
[[gnu::always_inline]] inline void put_half(std::byte* panel, int which, BlockColumn blocks,
                                            int64_t offset) {
  if constexpr (requires { S::load_f16_apart(blocks.at, blocks.stride); }) {
    for_lanes<S>([&](int lane) {
      const std::byte* at = blocks.at + lane * blocks.stride + offset;
      put_scale<S>(panel, which, lane, S::load_f16_apart(at, blocks.stride));
    });
  } else {
    const Fields<uint16_t> halves = fields<uint16_t>(blocks, offset);
    for_lanes<S>(
        [&](int lane) { put_scale<S>(panel, which, lane, S::load_f16(halves.of + lane)); });
  }
}

struct FormatQ8_0 {
  using Block = BlockQ8_0;
  static constexpr Grouping grouping = Grouping::kSymmetric32;
  static constexpr int groups = 1;
  static constexpr int zero = 0;
  static constexpr int levels_max = 127;

  template <typename S, int kShift>
  static void unpack(BlockColumn blocks, std::byte* panel) {
    const Words<8> qs = words8<S>(blocks, offsetof(Block, qs));
    for (int j = 0; j < 8; ++j) {
      for_lanes<S>([&](int lane) {
        put_level<S>(panel, j, lane, S::add8(S::load_i(qs.of[j] + lane), kShift));
      });
    }
    put_scales<S>(blocks, panel);
  }

  template <typename S>
  static void put_scales(BlockColumn blocks, std::byte* panel) {
    put_half<S>(panel, 0, blocks, offsetof(Block, d));
  }
};

/// The formats of 4 or 5 bits in blocks of 32. `kZero`: the level that means 0.
template <typename BlockType, int kBits, bool kAffine>
struct FormatOf32 {
  using Block = BlockType;
  static constexpr Grouping grouping = kAffine ? Grouping::kAffine32 : Grouping::kSymmetric32;
  static constexpr int groups = 1;
  static constexpr int zero = kAffine ? 0 : 1 << (kBits - 1);
  static constexpr int levels_max = (1 << kBits) - 1;

  template <typename S, int kShift>
  static void unpack(BlockColumn blocks, std::byte* panel) {
    const Words<4> qs = words4<S>(blocks, offsetof(Block, qs));
    Fields<uint32_t> fifth_bits;
    if constexpr (kBits == 5) fifth_bits = fields<uint32_t>(blocks, offsetof(Block, qh));
    for_lanes<S>([&](int lane) {
      typename S::I high = S::zero_i();
      if constexpr (kBits == 5) high = S::load_i(fifth_bits.of + lane);
      typename S::I upper[4];
      for (int j = 0; j < 4; ++j) {
        const typename S::I bytes = S::load_i(qs.of[j] + lane);
        put_level<S>(panel, j, lane, level<S, kShift>(low4<S>(bytes), high, j));
        upper[j] = high4<S>(bytes);
      }
      for (int j = 0; j < 4; ++j) {
        put_level<S>(panel, j + 4, lane, level<S, kShift>(upper[j], high, j + 4));
      }
    });
    put_scales<S>(blocks, panel);
  }

  template <typename S>
  static void put_scales(BlockColumn blocks, std::byte* panel) {
    put_half<S>(panel, 0, blocks, offsetof(Block, d));
    if constexpr (kAffine) put_half<S>(panel, 1, blocks, offsetof(Block, m));
  }

 private:
  template <typename S, int kShift>
  [[gnu::always_inline]] static inline typename S::I level(typename S::I four_bits,
                                                           typename S::I high, int word) {
    typename S::I bytes = four_bits;
    if constexpr (kBits == 5) {
      bytes = S::or_i(bytes, S::spread_to_bit4(S::shift_right_by(high, 4 * word)));
    }
    return S::add8(bytes, kShift - zero);
  }
};

using FormatQ4_0 = FormatOf32<BlockQ4_0, 4, false>;
using FormatQ4_1 = FormatOf32<BlockQ4_1, 4, true>;
using FormatQ5_0 = FormatOf32<BlockQ5_0, 5, false>;
using FormatQ5_1 = FormatOf32<BlockQ5_1, 5, true>;

/// Q4_K and Q5_K.
template <typename BlockType, int kBits>
struct FormatOfK {
  using Block = BlockType;
  static constexpr Grouping grouping = Grouping::kAffine32;
  static constexpr int groups = 8;
  static constexpr int zero = 0;
  static constexpr int levels_max = (1 << kBits) - 1;

  template <typename S, int kShift>
  static void unpack(BlockColumn blocks, std::byte* panel) {
    Words<8> high;
    if constexpr (kBits == 5) high = words8<S>(blocks, offsetof(Block, qh));
    for (int pair = 0; pair < 4; ++pair) {
      const Words<8> qs = words8<S>(blocks, offsetof(Block, qs) + 32 * pair);
      std::byte* even = panel + 2 * pair * panel_block_bytes;
      std::byte* odd = even + panel_block_bytes;
      for (int j = 0; j < 8; ++j) {
        for_lanes<S>([&](int lane) {
          const typename S::I bytes = S::load_i(qs.of[j] + lane);
          typename S::I low = low4<S>(bytes);
          typename S::I up = high4<S>(bytes);
          if constexpr (kBits == 5) {
            const typename S::I bits = S::shift_right_by(S::load_i(high.of[j] + lane), 2 * pair);
            low = S::or_i(low, S::template shift_left<4>(S::and_i(bits, S::set1_i(0x01010101))));
            up = S::or_i(up, S::template shift_left<3>(S::and_i(bits, S::set1_i(0x02020202))));
          }
          put_level<S>(even, j, lane, low);
          put_level<S>(odd, j, lane, up);
        });
      }
    }
    put_scales<S>(blocks, panel);
  }

  /// The layout of k_scale_min(): d and dmin in the first word, then three words of packed scales.
  template <typename S>
  static void put_scales(BlockColumn blocks, std::byte* panel) {
    static_assert(offsetof(Block, d) == 0 && offsetof(Block, scales) == 4);
    using I = typename S::I;
    const Words<4> head = words4<S>(blocks, 0);
    for_lanes<S>([&](int lane) {
      const I both = S::load_i(head.of[0] + lane);
      const I a = S::load_i(head.of[1] + lane);
      const I b = S::load_i(head.of[2] + lane);
      const I c = S::load_i(head.of[3] + lane);
      const typename S::F d = S::low_half(both);
      const typename S::F minus_dmin =
          S::sub(S::zero(), S::low_half(S::template shift_right<16>(both)));
      const I six = S::set1_i(0x3f3f3f3f);
      const I two = S::set1_i(0x30303030);
      const I scales[2] = {S::and_i(a, six),
                           S::or_i(low4<S>(c), S::and_i(S::template shift_right<2>(a), two))};
      const I mins[2] = {S::and_i(b, six),
                         S::or_i(high4<S>(c), S::and_i(S::template shift_right<2>(b), two))};
      const I byte = S::set1_i(0xff);
      for (int g = 0; g < groups; ++g) {
        std::byte* at = panel + g * panel_block_bytes;
        const I scale = S::and_i(S::shift_right_by(scales[g / 4], 8 * (g % 4)), byte);
        const I min = S::and_i(S::shift_right_by(mins[g / 4], 8 * (g % 4)), byte);
        put_scale<S>(at, 0, lane, S::mul(d, S::to_float(scale)));
        put_scale<S>(at, 1, lane, S::mul(minus_dmin, S::to_float(min)));
      }
    });
  }
};

using FormatQ4_K = FormatOfK<BlockQ4_K, 4>;
using FormatQ5_K = FormatOfK<BlockQ5_K, 5>;

struct FormatQ6_K {
  using Block = BlockQ6_K;
  static constexpr Grouping grouping = Grouping::kSymmetric16;
  static constexpr int groups = 8;
  static constexpr int zero = 32;
  static constexpr int levels_max = 63;

  template <typename S, int kShift>
  static void unpack(BlockColumn blocks, std::byte* panel) {
    using I = typename S::I;
    for (int half = 0; half < 2; ++half) {
      const Words<8> low[2] = {words8<S>(blocks, offsetof(Block, ql) + 64 * half),
                               words8<S>(blocks, offsetof(Block, ql) + 64 * half + 32)};
      const Words<8> high = words8<S>(blocks, offsetof(Block, qh) + 32 * half);
      for (int j = 0; j < 8; ++j) {
        for_lanes<S>([&](int lane) {
          const I bits = S::load_i(high.of[j] + lane);
          const I two = S::set1_i(0x03030303);
          for (int k = 0; k < 4; ++k) {
            const I bytes = S::load_i(low[k % 2].of[j] + lane);
            const I four_bits = k < 2 ? low4<S>(bytes) : high4<S>(bytes);
            const I top = S::and_i(S::shift_right_by(bits, 2 * k), two);
            const I levels = S::or_i(four_bits, S::template shift_left<4>(top));
            put_level<S>(panel + (4 * half + k) * panel_block_bytes, j, lane,
                         S::add8(levels, kShift - zero));
          }
        });
      }
    }
    put_scales<S>(blocks, panel);
  }

  template <typename S>
  static void put_scales(BlockColumn blocks, std::byte* panel) {
    using I = typename S::I;
    const Words<4> scales = words4<S>(blocks, offsetof(Block, scales));
    put_half<S>(panel, 0, blocks, offsetof(Block, d));  // kept there until the groups have theirs
    for_lanes<S>([&](int lane) {
      const typename S::F d =
          S::load(reinterpret_cast<const float*>(panel + panel_levels_bytes) + lane);
      for (int s = 0; s < 2 * groups; ++s) {
        const I word = S::load_i(scales.of[s / 4] + lane);
        const I scale = S::signed_byte(word, s % 4);
        put_scale<S>(panel + s / 2 * panel_block_bytes, s % 2, lane, S::mul(d, S::to_float(scale)));
      }
    });
  }
};

/// Format::unpack for `n_rows` rows; those missing to 16 repeat the last, and nothing after it is
/// read.
template <typename S, typename Format, int kShift>
void unpack_rows(BlockColumn blocks, int n_rows, std::byte* panel) {
  constexpr int64_t block_size = sizeof(typename Format::Block);
  if (n_rows == panel_rows) return Format::template unpack<S, kShift>(blocks, panel);
  std::byte copies[panel_rows * block_size];
  for (int r = 0; r < panel_rows; ++r) {
    const std::byte* from = blocks.at + (r < n_rows ? r : n_rows - 1) * blocks.stride;
    std::memcpy(copies + r * block_size, from, block_size);
  }
  Format::template unpack<S, kShift>({copies, block_size}, panel);
}

}  // namespace
}  // namespace nosa::cpu
