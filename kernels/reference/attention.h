#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace nosa::reference {

/// What one query sees of one KV head.
struct VisibleKeys {
  std::vector<float> k;     // [n_keys, head_dim]
  std::vector<float> v;     // [n_keys, head_dim]
  std::vector<float> bias;  // [n_keys], added to the scaled logits
};

struct AttentionResult {
  std::vector<double> out;      // [head_dim]
  std::vector<double> weights;  // [n_keys], the softmax
};

/// out = sum_j softmax_j(scale q . k[j] + bias[j]) v[j], in double precision.
///
/// q [head_dim]. REQUIRES: at least one key.
inline AttentionResult attention(std::span<const float> q, const VisibleKeys& keys, double scale) {
  const size_t head_dim = q.size();
  const size_t n_keys = keys.bias.size();
  AttentionResult result{std::vector<double>(head_dim, 0.0), std::vector<double>(n_keys, 0.0)};
  double peak = -std::numeric_limits<double>::infinity();
  for (size_t j = 0; j < n_keys; ++j) {
    double dot = 0.0;
    for (size_t d = 0; d < head_dim; ++d) {
      dot += static_cast<double>(q[d]) * keys.k[j * head_dim + d];
    }
    result.weights[j] = scale * dot + keys.bias[j];
    peak = std::max(peak, result.weights[j]);
  }
  double total = 0.0;
  for (double& weight : result.weights) total += weight = std::exp(weight - peak);
  for (size_t j = 0; j < n_keys; ++j) {
    result.weights[j] /= total;
    for (size_t d = 0; d < head_dim; ++d) {
      result.out[d] += result.weights[j] * keys.v[j * head_dim + d];
    }
  }
  return result;
}

}  // namespace nosa::reference
