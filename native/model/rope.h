#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "core/status.h"

namespace nosa {

/// Frequencies as trained.
struct RopeUnscaled {};

/// Every frequency divided by one factor.
struct RopeLinear {
  float factor = 1.0f;
};

/// YaRN (Peng et al., arXiv 2309.00071): dimensions that turn often keep their frequency, those that
/// turn seldom are divided by `factor`, and a ramp joins the two.
struct RopeYarn {
  float factor = 1.0f;
  float original_context = 0.0f;  ///< Positions of the unscaled training.
  float beta_fast = 32.0f;        ///< Turns within it above which a dimension is kept.
  float beta_slow = 1.0f;         ///< Turns below which it is divided.
  bool whole_bounds = true;       ///< Rounds the ends of the ramp outward to whole dimensions.
  std::optional<float> magnitude; ///< 0.1 ln(factor) + 1 when absent.
};

/// Llama 3.1's scheme: by wavelength against the trained context.
struct RopeLlama3 {
  float factor = 1.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  float original_context = 0.0f;
};

/// LongRoPE (Ding et al., arXiv 2402.13753): one divisor a dimension.
struct RopeLong {
  std::vector<float> factors;      ///< [n_rotated / 2]
  float magnitude = 1.0f;
};

struct RopeConfig {
  float theta = 10000.0f;
  int n_rotated = 0;  ///< Leading dimensions of a head that rotate; even.
  std::variant<RopeUnscaled, RopeLinear, RopeYarn, RopeLlama3, RopeLong> scaling;
  std::vector<float> divisors;  ///< [n_rotated / 2] of the file's own, or empty.
};

/// What the rotation needs: angle(position, i) = position * inv_freq[i].
struct RopeTable {
  std::vector<float> inv_freq;  ///< [n_rotated / 2]
  float magnitude = 1.0f;       ///< Multiplies cos and sin.
};

/// Fails with kUnsupported, naming the value, when a number makes no sense (a factor that is not
/// positive, a list of the wrong length).
Result<RopeTable> make_rope_table(const RopeConfig& config);

/// LongRoPE's own magnitude: sqrt(1 + ln(scale) / ln(original)) for a context `scale` times the
/// original one, 1 when it is not longer.
float long_rope_magnitude(float scale, float original_context);

}  // namespace nosa
