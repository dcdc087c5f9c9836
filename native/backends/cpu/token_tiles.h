// Activations as the products of cpu/ read them.
//
// The tokens of a call are cut into tiles of 16 and, for what is left, of 8, 4, 2 and 1. A tile
// lies column block by column block, so that a product reads it from front to back.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nosa::cpu {

inline constexpr int tile_tokens_max = 16;

/// Columns that share a scale in a quantised tile.
inline constexpr int quant_values = 32;

/// Width of the tile that starts where `n_left` tokens are left.
constexpr int tile_width(int n_left) {
  int width = tile_tokens_max;
  while (width > n_left) width /= 2;
  return width;
}

/// Where the parts of one record lie: `width` tokens and 32 columns.
///
///   int8   q     [width][32]
///   float  scale [width]      x = scale q
///   int32  start [width]      a multiple of the sum of q that depends on the instruction set
///   int32  start_lo [width], start_hi [width]   the same over the first and the last 16 columns
///   float  offset[width]      scale times the sum of q
struct QuantRecord {
  int width;

  constexpr int64_t scale_at() const { return int64_t{quant_values} * width; }
  constexpr int64_t start_at() const { return scale_at() + 4 * width; }
  constexpr int64_t start_lo_at() const { return scale_at() + 8 * width; }
  constexpr int64_t start_hi_at() const { return scale_at() + 12 * width; }
  constexpr int64_t offset_at() const { return scale_at() + 16 * width; }
  constexpr int64_t bytes() const { return (int64_t{quant_values + 20} * width + 63) / 64 * 64; }
};

/// Bytes of a quantised tile. REQUIRES: n_cols is a multiple of 32.
constexpr int64_t quant_tile_bytes(int width, int64_t n_cols) {
  return QuantRecord{width}.bytes() * (n_cols / quant_values);
}

/// Bytes of a plain tile: float32 [n_cols][width], on a cache line.
constexpr int64_t float_tile_bytes(int width, int64_t n_cols) {
  return (n_cols * width * 4 + 63) / 64 * 64;
}

/// Calls fn(first token, width, offset in bytes) for each tile of `n_tokens`; `bytes(width)` is a
/// tile's size. Returns the size of all tiles.
template <typename Bytes, typename Fn>
int64_t for_each_tile(int n_tokens, Bytes&& bytes, Fn&& fn) {
  int64_t offset = 0;
  for (int first = 0; first < n_tokens;) {
    const int width = tile_width(n_tokens - first);
    fn(first, width, offset);
    offset += bytes(width);
    first += width;
  }
  return offset;
}

}  // namespace nosa::cpu
