// Products of quantised weights with quantised tokens, for any vectors `S`.
//
// Sixteen rows of the weight, a panel, lie in the lanes of the vectors. For 32 columns there are
// eight vectors of 16 rows x 4 levels; one instruction multiplies such a vector with four values of
// a token and adds within each lane. After 32 columns a lane's sum, an exact integer, is scaled and
// added to the row's float sum. So a result is a chain of additions over the column blocks in
// order, the same for every number of tokens and rows.
//
// The panel is put together once for all tokens of the call, from blocks that lie a row apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backends/cpu/ops.h"
#include "backends/cpu/token_tiles.h"
#include "backends/cpu/unpack.h"
#include "core/check.h"

namespace nosa::cpu {
namespace {

template <typename S, typename Format>
class QuantProduct {
 public:
  static void run(const MatmulSlice& slice) {
    const WeightView& weight = *slice.weight;
    constexpr int64_t first_bytes_max = 16384;
    prefetch(weight.row(slice.row_begin),
             std::min(panel_rows * weight.row_bytes(), first_bytes_max));
    for (int64_t row = slice.row_begin; row < slice.row_end; row += panel_rows) {
      const int n_rows = static_cast<int>(std::min<int64_t>(panel_rows, slice.row_end - row));
      pack(weight, row, n_rows, slice.scratch);
      const auto tile_bytes = [&](int width) { return quant_tile_bytes(width, weight.cols); };
      for_each_tile(slice.n_tokens, tile_bytes, [&](int first, int width, int64_t offset) {
        multiply(slice, row, n_rows, first, width, slice.tokens + offset);
      });
    }
  }

  /// Asks for memory that is needed soon. The product of one token is as fast as the memory, and
  /// sixteen short rows are more streams than the processor foresees by itself.
  static void prefetch(const std::byte* at, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes; i += 64) S::prefetch(at + i);
  }

 private:
  using F = typename S::F;
  using I = typename S::I;

  static constexpr bool symmetric = Format::grouping != Grouping::kAffine32;
  static constexpr bool by_16 = Format::grouping == Grouping::kSymmetric16;
  static constexpr int shift = symmetric ? S::level_shift(Format::zero) : 0;
  /// Levels that are not negative and have at most 6 bits: some instruction sets are faster then.
  static constexpr bool small = !symmetric || (Format::zero != 0 && shift == Format::zero);

  /// Fills the panel of `n_rows` rows from `first_row`; the rows missing to 16 repeat the last.
  static void pack(const WeightView& weight, int64_t first_row, int n_rows, std::byte* panel) {
    constexpr int64_t values = Format::groups * quant_values;
    constexpr int64_t block_size = sizeof(typename Format::Block);
    BlockColumn blocks = {weight.row(first_row), weight.row_bytes()};
    const std::byte* next_panel = blocks.at + panel_rows * blocks.stride;
    for (int64_t block = 0; block < weight.cols / values; ++block) {
      prefetch(next_panel, panel_rows * block_size);
      next_panel += panel_rows * block_size;
      unpack_rows<S, Format, shift>(blocks, n_rows, panel);
      blocks.at += block_size;
      panel += Format::groups * panel_block_bytes;
    }
  }

  static void multiply(const MatmulSlice& slice, int64_t row, int n_rows, int first, int width,
                       const std::byte* tile) {
    for (int lane = 0; lane < n_rows; lane += S::lanes) {
      const int n_lanes = std::min(S::lanes, n_rows - lane);
      const MatmulSlice& s = slice;
      const std::byte* panel = slice.scratch + 4 * lane;
      for (int t = 0; t < width;) {
        const Part part = {panel, lane,      tile,       QuantRecord{width},
                           t,     first + t, row + lane, n_lanes};
        t += widest(s, part, width - t);
      }
    }
  }

  /// Some tokens of a tile and as many rows as a vector has lanes.
  struct Part {
    const std::byte* panel;
    int lane;
    const std::byte* tile;
    QuantRecord record;
    int token_in_tile;
    int token;
    int64_t row;
    int n_lanes;
  };

  /// Multiplies as many of the `n_left` tokens as the registers hold; returns how many.
  static int widest(const MatmulSlice& slice, const Part& part, int n_left) {
    if constexpr (S::tile_tokens >= 16) {
      if (n_left >= 16) return product<16>(slice, part);
    }
    if constexpr (S::tile_tokens >= 8) {
      if (n_left >= 8) return product<8>(slice, part);
    }
    if (n_left >= 4) return product<4>(slice, part);
    if (n_left >= 2) return product<2>(slice, part);
    return product<1>(slice, part);
  }

  /// sum + the products of `n` vectors of levels with as many words of a token's values.
  template <int n>
  [[gnu::always_inline]] static inline I dots(I sum, const I* levels, const std::byte* values) {
    constexpr int levels_max = small ? Format::levels_max : 0;
    if constexpr (small &&
                  requires { S::template dot_small<n, levels_max>(sum, levels, values); }) {
      return S::template dot_small<n, levels_max>(sum, levels, values);
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) {
        sum = S::template dot4<small>(sum, levels[j], values + 4 * j);
      }
      return sum;
    }
  }

  template <int kTokens>
  static int product(const MatmulSlice& slice, const Part& part) {
    const int64_t n_blocks = slice.weight->cols / quant_values;
    const int t0 = part.token_in_tile;
    const std::byte* q = part.tile + t0 * quant_values;
    const std::byte* scale_at = part.tile + part.record.scale_at() + 4 * t0;
    const std::byte* start_at =
        part.tile + (by_16 ? part.record.start_lo_at() : part.record.start_at()) + 4 * t0;
    const std::byte* start_hi_at = part.tile + part.record.start_hi_at() + 4 * t0;
    const std::byte* offset_at = part.tile + part.record.offset_at() + 4 * t0;
    const int64_t record_bytes = part.record.bytes();
    const std::byte* panel = part.panel;
    const std::byte* scales = part.panel + panel_levels_bytes;

    F sums[kTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) sums[t] = S::zero();
    for (int64_t b = 0; b < n_blocks; ++b) {
      I w[8];
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) w[j] = S::load_i(panel + 64 * j);
      const F first = S::load(reinterpret_cast<const float*>(scales));
      F second = S::zero();
      if constexpr (Format::grouping != Grouping::kSymmetric32) {
        second = S::load(reinterpret_cast<const float*>(scales) + panel_rows);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const F token_scale = S::broadcast(scale_at + 4 * t);
        const std::byte* values = q + quant_values * t;
        I dot = symmetric ? S::start(start_at + 4 * t, shift) : S::zero_i();
        if constexpr (by_16) {
          dot = dots<4>(dot, w, values);
          sums[t] = S::fma(S::to_float(dot), S::mul(first, token_scale), sums[t]);
          dot = dots<4>(S::start(start_hi_at + 4 * t, shift), w + 4, values + quant_values / 2);
        } else {
          dot = dots<8>(dot, w, values);
        }
        const F scale = S::mul(by_16 ? second : first, token_scale);
        sums[t] = S::fma(S::to_float(dot), scale, sums[t]);
        if constexpr (!symmetric) {
          sums[t] = S::fma(second, S::broadcast(offset_at + 4 * t), sums[t]);
        }
      }
      panel += panel_block_bytes;
      scales += panel_block_bytes;
      q += record_bytes;
      scale_at += record_bytes;
      start_at += record_bytes;
      start_hi_at += record_bytes;
      offset_at += record_bytes;
    }

    const F bias =
        slice.bias == nullptr ? S::zero() : S::load_n(slice.bias + part.row, part.n_lanes);
    float* out = slice.out + part.token * slice.weight->rows + part.row;
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      S::store_n(out + t * slice.weight->rows, S::add(sums[t], bias), part.n_lanes);
    }
    return kTokens;
  }
};

/// Calls fn.operator()<Format>() for the format of a quantised type.
template <typename Fn>
void with_format(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kQ8_0:
      return fn.template operator()<FormatQ8_0>();
    case DType::kQ4_0:
      return fn.template operator()<FormatQ4_0>();
    case DType::kQ4_1:
      return fn.template operator()<FormatQ4_1>();
    case DType::kQ5_0:
      return fn.template operator()<FormatQ5_0>();
    case DType::kQ5_1:
      return fn.template operator()<FormatQ5_1>();
    case DType::kQ4_K:
      return fn.template operator()<FormatQ4_K>();
    case DType::kQ5_K:
      return fn.template operator()<FormatQ5_K>();
    case DType::kQ6_K:
      return fn.template operator()<FormatQ6_K>();
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  CHECK(false && "not a quantised type");
}

template <typename S>
void matmul_quant(const MatmulSlice& slice) {
  with_format(slice.weight->dtype, [&]<typename Format>() { QuantProduct<S, Format>::run(slice); });
}

}  // namespace
}  // namespace nosa::cpu
