#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "core/rope_pairing.h"

namespace nosa::reference {

/// One head, rotated to `position`: each pair (a, b) of the first `n_rotated` dimensions becomes
/// magnitude (a cos - b sin, b cos + a sin) with the angle position inv_freq[pair]. The rest stays.
///
/// x and the result are [head_dim], inv_freq [n_rotated / 2].
inline std::vector<double> rope(const float* x, int head_dim, int position, const float* inv_freq,
                                int n_rotated, double magnitude, RopePairing pairing) {
  std::vector<double> out(x, x + head_dim);
  for (int pair = 0; pair < n_rotated / 2; ++pair) {
    const bool adjacent = pairing == RopePairing::kAdjacent;
    const int first = adjacent ? 2 * pair : pair;
    const int second = adjacent ? first + 1 : first + n_rotated / 2;
    const double angle = static_cast<double>(position) * inv_freq[pair];
    const double cosine = magnitude * std::cos(angle);
    const double sine = magnitude * std::sin(angle);
    out[static_cast<size_t>(first)] = x[first] * cosine - x[second] * sine;
    out[static_cast<size_t>(second)] = x[second] * cosine + x[first] * sine;
  }
  return out;
}

}  // namespace nosa::reference
