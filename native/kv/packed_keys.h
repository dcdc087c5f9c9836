#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/block_tokens.h"

namespace nosa {

/// Where packed keys lie.
struct PackedKeysView {
  /// Windows whose keys share a centre and a step in each dimension: so many tiles from window 0
  /// on, and so on.
  static constexpr int kGroupTiles = 8;

  const std::byte* codes =
      nullptr;  ///< int8 tiles [head_dim / 4, kTileWindows, 4], aligned to 64 bytes
  const float* ranges = nullptr;  ///< [n_groups, 2, head_dim]: centres, then steps
};

/// Compressed keys of one KV head in 8 bits, of windows that stay as they are.
///
///   key[m, d] ~ centre[d] + step[d] code[m, d]     code in -127 .. 127
///
/// A centre and a step for each dimension, since some dimensions of a model's keys vary little
/// around a large value. Every code is within half a step of its key.
class PackedKeys {
 public:
  PackedKeys() = default;

  /// Of `n_windows` keys in binary16, none of them infinite: tiles [head_dim, kTileWindows], of
  /// which the last may hold fewer windows and then anything else. REQUIRES: head_dim is a multiple
  /// of 4.
  PackedKeys(const uint16_t* tiles, int n_windows, int head_dim);

  /// Of no window: both null.
  PackedKeysView view() const;

  size_t bytes() const {
    return codes_.capacity() * sizeof(Line) + ranges_.capacity() * sizeof(float);
  }

  /// What a window takes, in the long run.
  static double bytes_per_window(int head_dim);

 private:
  struct alignas(64) Line {
    std::array<std::byte, 64> bytes = {};
  };
  std::vector<Line> codes_;
  std::vector<float> ranges_;
};

}  // namespace nosa
