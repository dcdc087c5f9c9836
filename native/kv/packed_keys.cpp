#include "kv/packed_keys.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/check.h"

namespace nosa {
namespace {

constexpr int code_max = 127;
constexpr int dims_together = 4;  // of a window: four bytes of a line

/// As f16_to_f32() for what is finite, in a form that compilers turn into vectors.
float finite_half(uint16_t half) {
  const uint32_t magnitude = uint32_t(half & 0x7fffu) << 13;
  const uint32_t sign = uint32_t(half & 0x8000u) << 16;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) |
                              sign);
}

/// The whole number nearest to x as a byte, for |x| <= 127. Ties go to even.
uint32_t byte_of(float x) {
  constexpr float fraction_ends = 0x1.8p23f;
  return std::bit_cast<uint32_t>(x + fraction_ends) & 0xffu;
}

}  // namespace

PackedKeys::PackedKeys(const uint16_t* tiles, int n_windows, int head_dim) {
  CHECK(head_dim % dims_together == 0);
  if (n_windows == 0) return;
  const int n_tiles = (n_windows + kTileWindows - 1) / kTileWindows;
  const int n_groups = (n_tiles + PackedKeysView::kGroupTiles - 1) / PackedKeysView::kGroupTiles;
  const size_t tile_values = size_t(head_dim) * kTileWindows;
  codes_.resize(size_t(n_tiles) * tile_values / sizeof(Line));
  ranges_.resize(size_t(n_groups) * 2 * size_t(head_dim));

  std::vector<float> values(tile_values);
  std::vector<float> least(tile_values);
  std::vector<float> most(tile_values);
  // What is behind the last window gets that window's key, and so changes no range.
  const auto load = [&](int tile) {
    const uint16_t* from = tiles + size_t(tile) * tile_values;
    for (size_t i = 0; i < tile_values; ++i) values[i] = finite_half(from[i]);
    const int n = std::min(kTileWindows, n_windows - tile * kTileWindows);
    for (size_t row = 0; n < kTileWindows && row < tile_values; row += kTileWindows) {
      std::fill_n(values.begin() + int64_t(row) + n, kTileWindows - n, values[row + size_t(n) - 1]);
    }
  };
  for (int group = 0; group < n_groups; ++group) {
    const int first = group * PackedKeysView::kGroupTiles;
    const int end = std::min(n_tiles, first + PackedKeysView::kGroupTiles);
    std::ranges::fill(least, std::numeric_limits<float>::infinity());
    std::ranges::fill(most, -std::numeric_limits<float>::infinity());
    for (int tile = first; tile < end; ++tile) {
      load(tile);
      for (size_t i = 0; i < tile_values; ++i) {
        least[i] = std::min(least[i], values[i]);
        most[i] = std::max(most[i], values[i]);
      }
    }
    float* centres = ranges_.data() + size_t(group) * 2 * size_t(head_dim);
    float* steps = centres + head_dim;
    for (int d = 0; d < head_dim; ++d) {
      const auto row = int64_t{d} * kTileWindows;
      const float low = *std::min_element(least.begin() + row, least.begin() + row + kTileWindows);
      const float high = *std::max_element(most.begin() + row, most.begin() + row + kTileWindows);
      centres[d] = 0.5f * (low + high);
      steps[d] = (high - low) / (2 * code_max);
    }
    for (int tile = first; tile < end; ++tile) {
      load(tile);
      auto* words =
          reinterpret_cast<uint32_t*>(codes_.data()) + size_t(tile) * tile_values / dims_together;
      for (int d = 0; d < head_dim; ++d) {
        const float* row = values.data() + size_t(d) * kTileWindows;
        const float per_step = steps[d] > 0.0f ? 1.0f / steps[d] : 0.0f;
        uint32_t* to = words + size_t(d / dims_together) * kTileWindows;
        const int shift = d % dims_together * 8;
        for (int m = 0; m < kTileWindows; ++m) {
          const float code =
              std::clamp((row[m] - centres[d]) * per_step, -float(code_max), float(code_max));
          to[m] |= byte_of(code) << shift;
        }
      }
    }
  }
}

PackedKeysView PackedKeys::view() const {
  if (codes_.empty()) return {};
  return {codes_.front().bytes.data(), ranges_.data()};
}

double PackedKeys::bytes_per_window(int head_dim) {
  constexpr double group_windows = double(PackedKeysView::kGroupTiles) * kTileWindows;
  return double(head_dim) * (1.0 + 2 * sizeof(float) / group_windows);
}

}  // namespace nosa
