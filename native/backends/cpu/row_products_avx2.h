// Products of quantised weights with one or a few tokens, for AVX2. Only ops_avx2.cpp includes
// this.
//
// A panel (matmul_quant.h) pays for turning rows into lanes once for all tokens of a call: with few
// tokens that is most of the work. Here a vector holds 16 columns of two rows as they lie in
// memory, row i in its low and row i + 4 in its high half, and what is turned is sums: those of
// eight rows become the lanes of one vector. They stay in 16 bits for as long as they fit. Sums of
// a block are exact integers and are scaled and added in the same order, so every bit is as the
// panel's.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "backends/cpu/matmul_quant.h"
#include "backends/cpu/ops.h"
#include "backends/cpu/simd_avx2.h"
#include "backends/cpu/token_tiles.h"
#include "backends/cpu/unpack.h"

namespace nosa::cpu {
namespace {

/// A group of 32 columns of two rows, levels moved up by Format::zero.
struct RowPair {
  __m256i first;  // columns 0 to 15 of the one row, then of the other; or all of the one row
  __m256i last;   // columns 16 to 31 of both; or all of the other row
};

/// 16 bytes of each row.
[[gnu::always_inline]] inline __m256i load_pair(const std::byte* a, const std::byte* b) {
  const auto half = [](const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(half(a)), half(b), 1);
}

[[gnu::always_inline]] inline __m256i low_nibbles(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}

/// Bits of bytes moved up by `kBy`, or down; some come from the neighbouring byte.
template <int kBy>
[[gnu::always_inline]] inline __m256i moved(__m256i bytes) {
  return kBy >= 0 ? _mm256_slli_epi16(bytes, kBy < 0 ? 0 : kBy)
                  : _mm256_srli_epi16(bytes, kBy < 0 ? -kBy : 0);
}

/// Reads a group of a block of two rows: group `k` of those from `group` on, a multiple of
/// `period`. `whole`: a vector is a row's 32 columns, as short blocks are not read at a stroke.
template <typename Format>
struct RowPairs;

template <>
struct RowPairs<FormatQ8_0> {
  static constexpr bool whole = false;
  static constexpr int period = 1;

  template <int k>
  static RowPair read(const std::byte* a, const std::byte* b, int) {
    constexpr int64_t at = offsetof(BlockQ8_0, qs);
    return {load_pair(a + at, b + at), load_pair(a + at + 16, b + at + 16)};
  }
};

template <typename Block, int kBits, bool kAffine>
struct RowPairs<FormatOf32<Block, kBits, kAffine>> {
  static constexpr bool whole = false;
  static constexpr int period = 1;

  template <int k>
  static RowPair read(const std::byte* a, const std::byte* b, int) {
    constexpr int64_t at = offsetof(Block, qs);
    const __m256i bytes = load_pair(a + at, b + at);
    const RowPair four_bits = {low_nibbles(bytes), low_nibbles(_mm256_srli_epi16(bytes, 4))};
    if constexpr (kBits == 4) {
      return four_bits;
    } else {
      // The field is the first four bytes of what is read; each of them is eight levels' bits.
      const __m256i field = load_pair(a + offsetof(Block, qh), b + offsetof(Block, qh));
      return {_mm256_or_si256(four_bits.first,
                              fifth_bits(field, 0x0000000000000000, 0x0101010101010101)),
              _mm256_or_si256(four_bits.last,
                              fifth_bits(field, 0x0202020202020202, 0x0303030303030303))};
    }
  }

 private:
  /// Byte i is 16 where bit i % 8 of the byte that is named for it is set.
  static __m256i fifth_bits(__m256i field, int64_t low, int64_t high) {
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const __m256i spread = _mm256_shuffle_epi8(field, _mm256_setr_epi64x(low, high, low, high));
    const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit_of), bit_of);
    return _mm256_and_si256(is_set, _mm256_set1_epi8(16));
  }
};

template <typename Block, int kBits>
struct RowPairs<FormatOfK<Block, kBits>> {
  static constexpr bool whole = true;
  static constexpr int period = kBits == 4 ? 2 : 8;

  template <int k>
  static RowPair read(const std::byte* a, const std::byte* b, int group) {
    return {levels<k>(a, group + k), levels<k>(b, group + k)};
  }

 private:
  template <int k>
  static __m256i levels(const std::byte* block, int group) {
    __m256i bytes = Avx2::load_i(block + offsetof(Block, qs) + 32 * (group / 2));
    if constexpr (k % 2 == 1) bytes = _mm256_srli_epi16(bytes, 4);
    if constexpr (kBits == 4) {
      return low_nibbles(bytes);
    } else {
      const __m256i field = Avx2::load_i(block + offsetof(Block, qh));
      const __m256i bit = _mm256_and_si256(moved<4 - k>(field), _mm256_set1_epi8(16));
      return _mm256_or_si256(low_nibbles(bytes), bit);
    }
  }
};

template <>
struct RowPairs<FormatQ6_K> {
  static constexpr bool whole = true;
  static constexpr int period = 4;

  template <int k>
  static RowPair read(const std::byte* a, const std::byte* b, int group) {
    return {levels<k>(a, group), levels<k>(b, group)};
  }

 private:
  template <int k>
  static __m256i levels(const std::byte* block, int group) {
    __m256i low = Avx2::load_i(block + offsetof(BlockQ6_K, ql) + 16 * group + 32 * (k % 2));
    if constexpr (k >= 2) low = _mm256_srli_epi16(low, 4);
    const __m256i field = Avx2::load_i(block + offsetof(BlockQ6_K, qh) + 8 * group);
    const __m256i high = _mm256_and_si256(moved<4 - 2 * k>(field), _mm256_set1_epi8(0x30));
    return _mm256_or_si256(low_nibbles(low), high);
  }
};

template <typename Format>
class RowProduct {
 public:
  /// Whether so many tokens are too few for a panel to be worth its making (bench/LEDGER.md).
  static bool pays(int n_tokens) { return n_tokens <= 2 || (n_tokens == 4 && !Pairs::whole); }

  static void run(const MatmulSlice& slice) {
    const WeightView& weight = *slice.weight;
    const int64_t n_whole = (slice.row_end - slice.row_begin) / panel_rows * panel_rows;
    const int64_t end = slice.row_begin + n_whole;
    const auto tile_bytes = [&](int width) { return quant_tile_bytes(width, weight.cols); };
    for (int64_t row = slice.row_begin; row < end; row += panel_rows) {
      for_each_tile(slice.n_tokens, tile_bytes, [&](int first, int width, int64_t offset) {
        const std::byte* tile = slice.tokens + offset;
        if (width == 4) return product<4>(slice, row, first, tile);
        if (width == 2) return product<2>(slice, row, first, tile);
        product<1>(slice, row, first, tile);
      });
    }
    if (end == slice.row_end) return;
    MatmulSlice rest = slice;
    rest.row_begin = end;
    QuantProduct<Avx2, Format>::run(rest);
  }

 private:
  using F = __m256;
  using I = __m256i;
  using Pairs = RowPairs<Format>;

  static constexpr bool affine = Format::grouping == Grouping::kAffine32;
  static constexpr bool by_16 = Format::grouping == Grouping::kSymmetric16;
  static constexpr bool is_signed = !affine && Format::zero == 0;
  static constexpr int rows = Avx2::lanes;
  static constexpr int pairs = rows / 2;

  /// Two products each in 16 bits.
  static I multiply(I levels, I values) {
    return is_signed
               ? _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(values, levels))
               : _mm256_maddubs_epi16(levels, values);
  }
  static I widen(I sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

  /// What each row's eight numbers of 16 bits come to, each the sum of `kProducts` products with
  /// levels up to 31, or of two with levels up to 63.
  template <int kProducts>
  static I total(const I* x) {
    const I a = _mm256_hadd_epi16(x[0], x[1]);
    const I b = _mm256_hadd_epi16(x[2], x[3]);
    if constexpr (kProducts == 4 && Format::levels_max <= 15) {
      return widen(_mm256_hadd_epi16(a, b));
    } else {
      return _mm256_hadd_epi32(widen(a), widen(b));
    }
  }

  struct Dots {
    I first;  // over 32 columns; by_16: over columns 0 to 15
    I last;   // by_16: over columns 16 to 31
  };

  /// The products of eight rows with 32 values of a token.
  [[gnu::always_inline]] static inline Dots dots(const RowPair* levels, const std::byte* values) {
    const I first = Pairs::whole ? Avx2::load_i(values) : load_pair(values, values);
    const I last = Pairs::whole ? first : load_pair(values + 16, values + 16);
    I x[pairs];
    I y[pairs];
#pragma GCC unroll 4
    for (int i = 0; i < pairs; ++i) {
      x[i] = multiply(levels[i].first, first);
      y[i] = multiply(levels[i].last, last);
      if constexpr (Pairs::whole) {
        const I both = x[i];
        x[i] = _mm256_permute2x128_si256(both, y[i], 0x20);
        y[i] = _mm256_permute2x128_si256(both, y[i], 0x31);
      }
    }
    if constexpr (by_16) return {total<2>(x), total<2>(y)};
    if constexpr (is_signed) {
#pragma GCC unroll 4
      for (int i = 0; i < pairs; ++i) x[i] = _mm256_add_epi32(widen(x[i]), widen(y[i]));
      return {_mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3])),
              x[0]};
    } else {
#pragma GCC unroll 4
      for (int i = 0; i < pairs; ++i) x[i] = _mm256_add_epi16(x[i], y[i]);
      return {total<4>(x), x[0]};
    }
  }

  /// The product of 16 rows with the tokens of a tile of that width.
  template <int kTokens>
  static void product(const MatmulSlice& slice, int64_t row, int first, const std::byte* tile) {
    constexpr QuantRecord record{kTokens};
    constexpr int64_t block_size = sizeof(typename Format::Block);
    const WeightView& weight = *slice.weight;
    const int64_t stride = weight.row_bytes();
    BlockColumn blocks = {weight.row(row), stride};
    const std::byte* ahead = blocks.at + panel_rows * stride;
    const int64_t n_blocks = weight.cols / (Format::groups * quant_values);

    F sums[2][kTokens];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) sums[half][t] = Avx2::zero();
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
      QuantProduct<Avx2, Format>::prefetch(ahead, panel_rows * block_size);
      ahead += panel_rows * block_size;
      Format::template put_scales<Avx2>(blocks, slice.scratch);
      const std::byte* scales = slice.scratch + panel_levels_bytes;
      for (int g = 0; g < Format::groups; g += Pairs::period) {
        [&]<int... k>(std::integer_sequence<int, k...>) {
          (add_group<kTokens, k>(blocks, g, scales + k * panel_block_bytes,
                                 tile + k * record.bytes(), sums),
           ...);
        }(std::make_integer_sequence<int, Pairs::period>());
        scales += Pairs::period * panel_block_bytes;
        tile += Pairs::period * record.bytes();
      }
      blocks.at += block_size;
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t out_row = row + rows * half;
      const F bias = slice.bias == nullptr ? Avx2::zero() : Avx2::load(slice.bias + out_row);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        float* out = slice.out + (first + t) * weight.rows + out_row;
        Avx2::store(out, Avx2::add(sums[half][t], bias));
      }
    }
  }

  /// Adds 32 columns of 16 rows to the sums of every token.
  template <int kTokens, int k>
  [[gnu::always_inline]] static inline void add_group(BlockColumn blocks, int group,
                                                      const std::byte* scales,
                                                      const std::byte* tile, F (*sums)[kTokens]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const std::byte* a = blocks.at + rows * half * blocks.stride;
      RowPair levels[pairs];
#pragma GCC unroll 4
      for (int i = 0; i < pairs; ++i) {
        levels[i] =
            Pairs::template read<k>(a + i * blocks.stride, a + (i + pairs) * blocks.stride, group);
      }
      add<kTokens>(levels, reinterpret_cast<const float*>(scales) + rows * half, tile, sums[half]);
    }
  }

  /// Adds 32 columns of eight rows to the sums of every token.
  template <int kTokens>
  [[gnu::always_inline]] static inline void add(const RowPair* levels, const float* scale,
                                                const std::byte* tile, F* sums) {
    constexpr QuantRecord record{kTokens};
    const F first = Avx2::load(scale);
    const F second =
        Format::grouping == Grouping::kSymmetric32 ? Avx2::zero() : Avx2::load(scale + panel_rows);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      Dots dot = dots(levels, tile + quant_values * t);
      const F token_scale = Avx2::broadcast(tile + record.scale_at() + 4 * t);
      const auto start = [&](int64_t at) { return Avx2::start(tile + at + 4 * t, Format::zero); };
      if constexpr (by_16) {
        dot.first = _mm256_add_epi32(start(record.start_lo_at()), dot.first);
        dot.last = _mm256_add_epi32(start(record.start_hi_at()), dot.last);
      } else if constexpr (!affine && !is_signed) {
        dot.first = _mm256_add_epi32(start(record.start_at()), dot.first);
      }
      sums[t] = Avx2::fma(Avx2::to_float(dot.first), Avx2::mul(first, token_scale), sums[t]);
      if constexpr (by_16) {
        sums[t] = Avx2::fma(Avx2::to_float(dot.last), Avx2::mul(second, token_scale), sums[t]);
      }
      if constexpr (affine) {
        const F offset = Avx2::broadcast(tile + record.offset_at() + 4 * t);
        sums[t] = Avx2::fma(second, offset, sums[t]);
      }
    }
  }
};

inline void matmul_quant_avx2(const MatmulSlice& slice) {
  with_format(slice.weight->dtype, [&]<typename Format>() {
    if (RowProduct<Format>::pays(slice.n_tokens)) return RowProduct<Format>::run(slice);
    QuantProduct<Avx2, Format>::run(slice);
  });
}

}  // namespace
}  // namespace nosa::cpu
