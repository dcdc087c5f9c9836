// What the walks of random commands share: the tiny models they compute, and the verdict on each token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/choice_log.h"
#include "support/random.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace nosa::walk {

/// Log-probabilities closer than this may swap: 16-bit operands and keys on the GPU, 32-bit ones on the cores.
inline constexpr double rounding = 0.02;
inline constexpr size_t n_sequences_max = 6;
inline constexpr int n_vocab = 320;

/// The value, or the end of the program with the reason: after a broken call nothing that follows means anything.
inline void must(const Status& status, const char* what) {
  if (status.ok()) return;
  std::printf("%s: %s\n", what, status.message().c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result, const char* what) {
  must(result.status(), what);
  return *std::move(result);
}

struct TinyShape {
  bool nosa_heads;
  int head_dim;
  int n_heads;
  const char* architecture;
};

/// Writes a model of this shape with random weights; gives its path.
inline std::string write_model(const TinyShape& shape, const test::TempFolder& folder) {
  test::Random random;
  test::TinyOptions options;
  options.architecture = shape.architecture;
  options.dtype = DType::kF16;
  options.n_layers = 2;
  options.n_embd = 256;
  options.n_ff = 512;
  options.n_heads = shape.n_heads;
  options.head_dim = shape.head_dim;
  options.n_vocab = n_vocab;
  options.nosa = shape.nosa_heads;
  const test::TinyModel tiny(options, random);
  // GGUF has no place for eviction heads; a folder has.
  return shape.nosa_heads ? tiny.write_folder(folder, "tiny", 1) : tiny.write_gguf(folder, "tiny.gguf");
}

inline int pick(std::mt19937_64& random, int from, int to) { return std::uniform_int_distribution<int>(from, to)(random); }

inline std::vector<uint32_t> random_tokens(std::mt19937_64& random, int n) {
  std::vector<uint32_t> tokens(size_t(n), 0);
  for (uint32_t& token : tokens) token = uint32_t(pick(random, 0, n_vocab - 1));
  return tokens;
}

/// Of NOSA_SEED, or a new one; printed.
inline std::mt19937_64 seeded() {
  const char* given = std::getenv("NOSA_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return std::mt19937_64(seed);
}

/// The value below which `share` of `values` lie, 0 of none; puts them in order.
inline double at(std::vector<double>& values, double share) {
  if (values.empty()) return 0.0;
  std::ranges::sort(values);
  return values[size_t(share * double(values.size() - 1))];
}

/// By how much the GPU's choice of blocks may be worse than the cores' own, as a share of the scores that decide: scores are
/// exponents of products of 16-bit operands there.
inline constexpr double choice_rounding = 0.05;

struct Tolerance {
  double margin = rounding;          // Log-probabilities closer than this may swap.
  double choice = choice_rounding;   // Of scores, as a share.
};

/// Steps by what became of them.
struct Verdicts {
  explicit Verdicts(const Tolerance& of = {}) : bounds(of) {}

  Tolerance bounds;
  int steps = 0;
  int same = 0;
  int close = 0;  // Different, but no further apart than rounding.
  int wrong = 0;
  std::vector<double> errors;
  ChoiceVerdict choices;
  std::string told;  // Of the first that were wrong, what led to them.

  /// Whether each token and each choice is one that rounding explains. REQUIRES: a walk of some steps.
  bool good() const {
    const bool chosen_well = choices.n_invalid == 0 && std::ranges::all_of(choices.regrets, [&](double r) { return r <= bounds.choice; });
    return steps > 0 && wrong == 0 && chosen_well;
  }

  void print_choices() {
    if (choices.n_followed == 0 && choices.n_own == 0) return;
    const auto n_beyond = std::ranges::count_if(choices.regrets, [&](double r) { return !(r <= bounds.choice); });
    std::printf("  of %lld choices %zu other than the cores', worse by p50 %.2g p99 %.2g max %.2g of the scores, %td beyond rounding (%.2g); "
                "%lld invalid, %lld not told\n",
                static_cast<long long>(choices.n_followed), choices.regrets.size(), at(choices.regrets, 0.5), at(choices.regrets, 0.99),
                at(choices.regrets, 1.0), n_beyond, bounds.choice, static_cast<long long>(choices.n_invalid),
                static_cast<long long>(choices.n_own));
    if (!told.empty()) std::printf("%s", told.c_str());
  }

  /// `margin` is how far apart the two best are where numbers are exact, `error` that of the best one's log-probability.
  void add(bool is_same, double margin, double error, const std::string& before) {
    if (!is_same && margin > bounds.margin && wrong < 8) {
      char line[160];
      std::snprintf(line, sizeof(line), "  step %d is wrong: margin %.3g, error %.3g; before it: ", steps, margin, error);
      told += line + before + "\n";
    }
    steps += 1;
    errors.push_back(error);
    if (is_same) {
      same += 1;
    } else if (margin <= bounds.margin) {
      close += 1;
    } else {
      wrong += 1;
    }
  }
};

}  // namespace nosa::walk
