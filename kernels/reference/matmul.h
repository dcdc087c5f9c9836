#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/dequantize.h"
#include "core/tensor_view.h"

namespace nosa::reference {

/// A product and the size of what was summed for it, which is what an error is measured against.
struct Dot {
  double value = 0.0;
  double magnitude = 0.0;  // sum of the terms' absolute values
};

/// out[t, r] = sum_c weight[r, c] x[t, c] + bias[r], in double precision.
///
/// x [n_tokens, cols]; bias [rows] or null; the result is [n_tokens, rows].
inline std::vector<Dot> matmul(const WeightView& weight, const float* x, int n_tokens,
                               const float* bias) {
  std::vector<float> row(static_cast<size_t>(weight.cols));
  std::vector<Dot> out(static_cast<size_t>(n_tokens * weight.rows));
  for (int64_t r = 0; r < weight.rows; ++r) {
    dequantize_row(weight.dtype, weight.row(r), weight.cols, row.data());
    for (int t = 0; t < n_tokens; ++t) {
      Dot& dot = out[static_cast<size_t>(t * weight.rows + r)];
      for (int64_t c = 0; c < weight.cols; ++c) {
        const double term =
            static_cast<double>(row[static_cast<size_t>(c)]) * x[t * weight.cols + c];
        dot.value += term;
        dot.magnitude += std::fabs(term);
      }
      if (bias != nullptr) {
        dot.value += bias[r];
        dot.magnitude += std::fabs(bias[r]);
      }
    }
  }
  return out;
}

/// Adds scale sum_i b[i, r] sum_c a[i, c] x[t, c] to a product of n_tokens rows.
///
/// a [rank, cols], b [rank, rows].
inline void add_low_rank(const WeightView& a, const WeightView& b, double scale, const float* x,
                         int n_tokens, std::vector<Dot>& out) {
  const std::vector<Dot> inner = matmul(a, x, n_tokens, nullptr);
  for (int64_t i = 0; i < a.rows; ++i) {
    std::vector<float> row(static_cast<size_t>(b.cols));
    dequantize_row(b.dtype, b.row(i), b.cols, row.data());
    for (int64_t t = 0; t < n_tokens; ++t) {
      const Dot& part = inner[static_cast<size_t>(t * a.rows + i)];
      for (int64_t r = 0; r < b.cols; ++r) {
        Dot& dot = out[static_cast<size_t>(t * b.cols + r)];
        const double factor = scale * row[static_cast<size_t>(r)];
        dot.value += factor * part.value;
        dot.magnitude += std::fabs(factor) * part.magnitude;
      }
    }
  }
}

}  // namespace nosa::reference
