#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace nosa {
namespace {

Status bad_value(const char* what, double value) {
  return Status::unsupported("RoPE with " + std::string(what) + " = " + std::to_string(value) +
                             " is not supported.");
}

Status require_positive(const char* what, double value) {
  return value > 0 && std::isfinite(value) ? Status() : bad_value(what, value);
}

// Each scheme multiplies or divides the trained frequencies in place.
struct Scale {
  const RopeConfig& config;
  std::vector<double>& freq;
  double& magnitude;

  Status operator()(const RopeUnscaled&) const { return {}; }

  Status operator()(const RopeLinear& linear) const {
    if (Status ok = require_positive("factor", linear.factor); !ok.ok()) return ok;
    for (double& f : freq) f /= linear.factor;
    return {};
  }

  Status operator()(const RopeYarn& yarn) const {
    if (Status ok = require_positive("factor", yarn.factor); !ok.ok()) return ok;
    if (Status ok = require_positive("original context", yarn.original_context); !ok.ok()) {
      return ok;
    }
    // The dimension that makes `turns` full turns within the original context.
    const auto dimension_of = [&](double turns) {
      return config.n_rotated *
             std::log(yarn.original_context / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(double(config.theta)));
    };
    double low = dimension_of(yarn.beta_fast);
    double high = dimension_of(yarn.beta_slow);
    if (yarn.whole_bounds) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, double(config.n_rotated - 1));
    const double width = high > low ? high - low : 0.001;
    for (size_t i = 0; i < freq.size(); ++i) {
      const double divided = std::clamp((double(i) - low) / width, 0.0, 1.0);
      freq[i] = freq[i] / yarn.factor * divided + freq[i] * (1 - divided);
    }
    const double own = yarn.factor > 1 ? 0.1 * std::log(double(yarn.factor)) + 1 : 1;
    magnitude = yarn.magnitude ? double(*yarn.magnitude) : own;
    return {};
  }

  Status operator()(const RopeLlama3& llama3) const {
    if (Status ok = require_positive("factor", llama3.factor); !ok.ok()) return ok;
    if (Status ok = require_positive("low_freq_factor", llama3.low_freq_factor); !ok.ok()) {
      return ok;
    }
    if (!(llama3.high_freq_factor > llama3.low_freq_factor)) {
      return bad_value("high_freq_factor", llama3.high_freq_factor);
    }
    for (double& f : freq) {
      const double turns = llama3.original_context * f / (2 * std::numbers::pi);
      const double kept = std::clamp(
          (turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor),
          0.0, 1.0);
      f = (1 - kept) * f / llama3.factor + kept * f;
    }
    return {};
  }

  Status operator()(const RopeLong& scheme) const {
    magnitude = scheme.magnitude;
    return divide("longrope factors", scheme.factors);
  }

  Status divide(const char* what, const std::vector<float>& divisors) const {
    if (divisors.size() != freq.size()) {
      return Status::unsupported("RoPE with " + std::to_string(divisors.size()) + " " + what +
                                 " where the head needs " + std::to_string(freq.size()) +
                                 " is not supported.");
    }
    for (size_t i = 0; i < freq.size(); ++i) {
      if (Status ok = require_positive(what, divisors[i]); !ok.ok()) return ok;
      freq[i] /= divisors[i];
    }
    return {};
  }
};

}  // namespace

Result<RopeTable> make_rope_table(const RopeConfig& config) {
  if (config.n_rotated <= 0 || config.n_rotated % 2 != 0) {
    return bad_value("rotated dimensions", config.n_rotated);
  }
  if (!(config.theta > 1) || !std::isfinite(config.theta)) {
    return bad_value("theta", config.theta);
  }
  std::vector<double> freq(config.n_rotated / 2);
  for (size_t i = 0; i < freq.size(); ++i) {
    freq[i] = std::pow(double(config.theta), -2.0 * double(i) / config.n_rotated);
  }

  double magnitude = 1;
  const Scale scale{config, freq, magnitude};
  if (Status ok = std::visit(scale, config.scaling); !ok.ok()) return ok;
  if (!config.divisors.empty()) {
    if (Status ok = scale.divide("frequency factors", config.divisors); !ok.ok()) return ok;
  }
  if (Status ok = require_positive("magnitude", magnitude); !ok.ok()) return ok;

  RopeTable table;
  table.inv_freq.assign(freq.begin(), freq.end());
  table.magnitude = float(magnitude);
  return table;
}

float long_rope_magnitude(float scale, float original_context) {
  if (scale <= 1) return 1;
  return float(std::sqrt(1 + std::log(double(scale)) / std::log(double(original_context))));
}

}  // namespace nosa
