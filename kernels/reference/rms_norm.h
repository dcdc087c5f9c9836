#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace nosa::reference {

/// out[t, i] = x[t, i] / sqrt(mean(x[t]^2) + eps) * weight[i], in double precision.
///
/// x and the result are [n_tokens, n_embd], weight [n_embd].
inline std::vector<double> rms_norm(const float* x, const float* weight, int n_tokens, int n_embd,
                                    double eps) {
  std::vector<double> out;
  out.reserve(static_cast<size_t>(n_tokens) * static_cast<size_t>(n_embd));
  for (int t = 0; t < n_tokens; ++t) {
    const float* row = x + static_cast<size_t>(t) * static_cast<size_t>(n_embd);
    double squares = 0.0;
    for (int i = 0; i < n_embd; ++i) squares += static_cast<double>(row[i]) * row[i];
    const double factor = 1.0 / std::sqrt(squares / n_embd + eps);
    for (int i = 0; i < n_embd; ++i) out.push_back(row[i] * factor * weight[i]);
  }
  return out;
}

}  // namespace nosa::reference
