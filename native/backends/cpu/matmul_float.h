// Products of weights expanded to float32, for any vectors `S`: the plain types, and every type
// when the backend is exact. As in matmul_quant.h sixteen rows lie in the lanes, and a result is a
// chain of additions over the columns in order. Columns go by stretches whose panel fits the first
// cache; the sums wait in the output in between.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends/cpu/ops.h"
#include "backends/cpu/token_tiles.h"
#include "backends/cpu/unpack.h"
#include "core/dequantize.h"

namespace nosa::cpu {
namespace {

/// A multiple of every type's block.
inline constexpr int64_t stretch_cols = 256;

template <typename S>
class FloatProduct {
 public:
  static void run(const MatmulSlice& slice) {
    const WeightView& weight = *slice.weight;
    auto* rows = reinterpret_cast<float*>(slice.scratch);
    float* panel = rows + panel_rows * stretch_cols;
    for (int64_t row = slice.row_begin; row < slice.row_end; row += panel_rows) {
      const int n_rows = static_cast<int>(std::min<int64_t>(panel_rows, slice.row_end - row));
      for (int64_t col = 0; col < weight.cols; col += stretch_cols) {
        const int64_t n_cols = std::min(stretch_cols, weight.cols - col);
        pack(weight, {row, n_rows, col, n_cols}, rows, panel);
        const auto tile_bytes = [&](int width) { return float_tile_bytes(width, weight.cols); };
        for_each_tile(slice.n_tokens, tile_bytes, [&](int first, int width, int64_t offset) {
          const auto* x = reinterpret_cast<const float*>(slice.tokens + offset) + col * width;
          multiply(slice, {row, n_rows, col, n_cols}, panel, x, first, width);
        });
      }
    }
  }

 private:
  using F = typename S::F;

  struct Piece {
    int64_t row;
    int n_rows;
    int64_t col;
    int64_t n_cols;
  };

  /// Fills panel [n_cols][16] with a piece of the weight.
  static void pack(const WeightView& weight, const Piece& piece, float* rows, float* panel) {
    switch (weight.dtype) {
      case DType::kQ8_0:
        return unpack<FormatQ8_0>(weight, piece, rows, panel);
      case DType::kQ4_0:
        return unpack<FormatQ4_0>(weight, piece, rows, panel);
      case DType::kQ4_1:
        return unpack<FormatQ4_1>(weight, piece, rows, panel);
      case DType::kQ5_0:
        return unpack<FormatQ5_0>(weight, piece, rows, panel);
      case DType::kQ5_1:
        return unpack<FormatQ5_1>(weight, piece, rows, panel);
      case DType::kQ4_K:
        return unpack<FormatQ4_K>(weight, piece, rows, panel);
      case DType::kQ5_K:
        return unpack<FormatQ5_K>(weight, piece, rows, panel);
      case DType::kQ6_K:
        return unpack<FormatQ6_K>(weight, piece, rows, panel);
      case DType::kF32:
      case DType::kF16:
      case DType::kBF16:
        break;
    }
    for (int r = 0; r < panel_rows; ++r) {
      float* to = rows + r * stretch_cols;
      if (r < piece.n_rows) {
        expand(weight, weight.row(piece.row + r), piece.col, piece.n_cols, to);
      } else {
        std::memset(to, 0, stretch_cols * sizeof(float));
      }
    }
    for (int64_t c = 0; c < piece.n_cols; c += 8) {
      S::transpose_16x8_to(reinterpret_cast<const std::byte*>(rows + c), stretch_cols * 4,
                           reinterpret_cast<std::byte*>(panel + c * panel_rows));
    }
  }

  /// A plain row as floats.
  static void expand(const WeightView& weight, const std::byte* row, int64_t col, int64_t n_cols,
                     float* out) {
    const std::byte* at = row + row_bytes(weight.dtype, col);
    int64_t i = 0;
    if (weight.dtype == DType::kF32) {
      std::memcpy(out, at, static_cast<size_t>(n_cols) * sizeof(float));
      return;
    }
    const auto* halves = reinterpret_cast<const uint16_t*>(at);
    if (weight.dtype == DType::kF16) {
      for (; i + S::lanes <= n_cols; i += S::lanes) S::store(out + i, S::load_f16(halves + i));
    } else if (weight.dtype == DType::kBF16) {
      for (; i + S::lanes <= n_cols; i += S::lanes) S::store(out + i, S::load_bf16(halves + i));
    }
    dequantize_row(weight.dtype, at + row_bytes(weight.dtype, i), n_cols - i, out + i);
  }

  /// Quantised rows. `levels`: scratch of a block's panel.
  template <typename Format>
  static void unpack(const WeightView& weight, const Piece& piece, float* levels, float* panel) {
    constexpr int64_t values = Format::groups * quant_values;
    constexpr int64_t block_size = sizeof(typename Format::Block);
    auto* block_panel = reinterpret_cast<std::byte*>(levels);
    const std::byte* at = weight.row(piece.row) + piece.col / values * block_size;
    for (int64_t col = 0; col < piece.n_cols; col += values, at += block_size) {
      unpack_rows<S, Format, 0>({at, weight.row_bytes()}, piece.n_rows, block_panel);
      for (int g = 0; g < Format::groups; ++g) {
        scale_levels<Format>(block_panel + g * panel_block_bytes,
                             panel + (col + g * quant_values) * panel_rows);
      }
    }
  }

  /// panel [32][16] = scale level + offset of 32 columns
  template <typename Format>
  static void scale_levels(const std::byte* block, float* panel) {
    constexpr bool affine = Format::grouping == Grouping::kAffine32;
    constexpr bool by_16 = Format::grouping == Grouping::kSymmetric16;
    const auto* scales = reinterpret_cast<const float*>(block + panel_levels_bytes);
    for (int lane = 0; lane < panel_rows; lane += S::lanes) {
      const F first = S::load(scales + lane);
      F second = S::zero();
      if constexpr (affine || by_16) second = S::load(scales + panel_rows + lane);
      for (int word = 0; word < 8; ++word) {
        const typename S::I levels = S::load_i(block + 64 * word + 4 * lane);
        for (int byte = 0; byte < 4; ++byte) {
          const F level = S::to_float(S::signed_byte(levels, byte));
          const F value = affine ? S::fma(level, first, second)
                                 : S::mul(level, by_16 && word >= 4 ? second : first);
          S::store(panel + (4 * word + byte) * panel_rows + lane, value);
        }
      }
    }
  }

  static void multiply(const MatmulSlice& slice, const Piece& piece, const float* panel,
                       const float* x, int first, int width) {
    for (int lane = 0; lane < piece.n_rows; lane += S::lanes) {
      for (int t = 0; t < width;) {
        const int n_left = width - t;
        const Part part = {panel + lane,
                           x + t,
                           width,
                           first + t,
                           piece.row + lane,
                           std::min(S::lanes, piece.n_rows - lane)};
        if (S::tile_tokens >= 16 && n_left >= 16) {
          t += product<16>(slice, piece, part);
        } else if (S::tile_tokens >= 8 && n_left >= 8) {
          t += product<8>(slice, piece, part);
        } else if (n_left >= 4) {
          t += product<4>(slice, piece, part);
        } else if (n_left >= 2) {
          t += product<2>(slice, piece, part);
        } else {
          t += product<1>(slice, piece, part);
        }
      }
    }
  }

  struct Part {
    const float* panel;
    const float* x;
    int width;
    int token;
    int64_t row;
    int n_lanes;
  };

  template <int kTokens>
  static int product(const MatmulSlice& slice, const Piece& piece, const Part& part) {
    const int64_t n_rows = slice.weight->rows;
    float* out = slice.out + part.token * n_rows + part.row;
    F sums[kTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = piece.col == 0 ? S::zero() : S::load_n(out + t * n_rows, part.n_lanes);
    }
    const float* panel = part.panel;
    const float* x = part.x;
    for (int64_t c = 0; c < piece.n_cols; ++c, panel += panel_rows, x += part.width) {
      const F w = S::load(panel);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) sums[t] = S::fma(w, S::set1(x[t]), sums[t]);
    }
    F bias = S::zero();
    const bool last = piece.col + piece.n_cols == slice.weight->cols;
    if (last && slice.bias != nullptr) bias = S::load_n(slice.bias + part.row, part.n_lanes);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      S::store_n(out + t * n_rows, S::add(sums[t], bias), part.n_lanes);
    }
    return kTokens;
  }
};

template <typename S>
void matmul_float(const MatmulSlice& slice) {
  FloatProduct<S>::run(slice);
}

}  // namespace
}  // namespace nosa::cpu
