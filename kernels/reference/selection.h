// NOSA's selection in plain loops and double precision, by the two top-k passes of arXiv 2510.13602
// and its released code: an independent second opinion for native/kv/selection and the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace nosa::reference {

struct SelectionConstants {
  int total_blocks = 64;
  int query_blocks = 16;
  int sink_blocks = 1;
  int window_blocks = 17;
};

/// Indices of the `count` largest values; ties go to the higher index.
inline std::vector<int32_t> top_indices(const std::vector<double>& values, int count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a > b;
  });
  order.resize(std::min<size_t>(order.size(), size_t(count)));
  return order;
}

/// Mean of `n_values` vectors of `width`, the compressed key of a window.
inline std::vector<double> window_mean(const double* rows, int n_rows, int width) {
  std::vector<double> mean(width, 0.0);
  for (int r = 0; r < n_rows; ++r) {
    for (int i = 0; i < width; ++i) mean[i] += rows[r * width + i] / n_rows;
  }
  return mean;
}

/// Scores of windows by one KV head's group of queries, summed over the group after each head's own softmax.
///   queries [n_group, head_dim], compressed [n_windows, head_dim]
inline std::vector<double> window_scores(const std::vector<double>& queries,
                                         const std::vector<double>& compressed, int n_group,
                                         int head_dim, double scale) {
  const int n_windows = int(compressed.size()) / head_dim;
  std::vector<double> total(n_windows, 0.0);
  for (int g = 0; g < n_group; ++g) {
    std::vector<double> logits(n_windows);
    double peak = -std::numeric_limits<double>::infinity();
    for (int m = 0; m < n_windows; ++m) {
      double dot = 0.0;
      for (int i = 0; i < head_dim; ++i) {
        dot += queries[g * head_dim + i] * compressed[m * head_dim + i];
      }
      logits[m] = dot * scale;
      peak = std::max(peak, logits[m]);
    }
    double sum = 0.0;
    for (const double logit : logits) sum += std::exp(logit - peak);
    for (int m = 0; m < n_windows; ++m) total[m] += std::exp(logits[m] - peak) / sum;
  }
  return total;
}

/// Highest of the windows that overlap each block: a max pool of stride 4 over windows 4b-1 .. 4b+3.
inline std::vector<double> pool(const std::vector<double>& windows, int n_blocks) {
  std::vector<double> pooled(n_blocks, -std::numeric_limits<double>::infinity());
  for (int b = 0; b < n_blocks; ++b) {
    for (int m = 4 * b - 1; m <= 4 * b + 3; ++m) {
      if (m >= 0 && m < int(windows.size())) pooled[b] = std::max(pooled[b], windows[m]);
    }
  }
  return pooled;
}

/// The chosen blocks, ascending. `forced[b]` says sink or window.
///   1. forced scores become +inf in both rankings; the query's pass takes sink + window - 1 + query blocks;
///   2. those become +inf in the eviction ranking, whose top `total_blocks` is the answer.
inline std::vector<int32_t> nosa_blocks(std::vector<double> query_scores,
                                        std::vector<double> eviction_scores,
                                        const std::vector<bool>& forced,
                                        const SelectionConstants& c) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (size_t b = 0; b < forced.size(); ++b) {
    if (forced[b]) query_scores[b] = eviction_scores[b] = kInf;
  }
  const int first_pass = c.sink_blocks + c.window_blocks - 1 + c.query_blocks;
  for (const int32_t b : top_indices(query_scores, first_pass)) eviction_scores[b] = kInf;
  auto chosen = top_indices(eviction_scores, c.total_blocks);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace nosa::reference
