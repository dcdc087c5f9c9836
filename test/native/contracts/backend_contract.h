// What every Backend promises. Include once in a test file for an implementation and instantiate:
//
//   INSTANTIATE_TEST_SUITE_P(Cpu, BackendContract, testing::ValuesIn(subjects()), subject_name);
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "contracts/attention_case.h"
#include "core/dequantize.h"
#include "core/half.h"
#include "kv/block.h"
#include "kv/selection.h"
#include "kernels/reference/matmul.h"
#include "kernels/reference/rms_norm.h"
#include "kernels/reference/rope.h"
#include "kernels/reference/selection.h"
#include "kernels/reference/silu_mul.h"
#include "support/quantised_rows.h"
#include "support/random.h"

namespace nosa::test {

/// One implementation, and how far it may be from the reference.
struct BackendSubject {
  std::string name;
  std::function<std::unique_ptr<Backend>(int n_threads)> create;
  bool quantises_input = false;   // products with quantised weights quantise x to 8 bits
  double attention_error = 2e-6;  // root mean square, for ordinary logits and values of size 1
};

inline void PrintTo(const BackendSubject& subject, std::ostream* out) { *out << subject.name; }

inline std::string subject_name(const testing::TestParamInfo<BackendSubject>& info) {
  return info.param.name;
}

/// Memory whose contents show when something was not written, or was read.
inline std::vector<float> poisoned(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n), std::numeric_limits<float>::quiet_NaN());
}

class BackendContract : public testing::TestWithParam<BackendSubject> {
 protected:
  std::unique_ptr<Backend> create(int n_threads) { return GetParam().create(n_threads); }

  /// A weight with random contents that owns its bytes.
  struct Weight {
    Bytes bytes;
    WeightView view;
  };

  Weight weight(DType dtype, int64_t rows, int64_t cols) {
    Weight w;
    w.bytes = random_rows(dtype, rows, cols, random_);
    w.view = {.data = w.bytes.data(), .dtype = dtype, .rows = rows, .cols = cols};
    return w;
  }

  /// Whole numbers up to 127 with a 127 in every 32: 8 bits in blocks of 32 hold them exactly.
  std::vector<float> whole_numbers(int64_t n_tokens, int64_t n_cols) {
    std::vector<float> x(static_cast<size_t>(n_tokens * n_cols));
    for (size_t i = 0; i < x.size(); ++i) {
      const bool extreme = static_cast<int64_t>(i) % n_cols % 32 == 5;
      x[i] = static_cast<float>(extreme ? (random_.bits() % 2 == 0 ? 127 : -127)
                                        : random_.between(-127, 127));
    }
    return x;
  }

  void expect_products(const WeightView& w, const std::vector<float>& x, int n_tokens,
                       const float* bias, const std::vector<float>& got, double error_max) {
    const auto expected = reference::matmul(w, x.data(), n_tokens, bias);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_LE(std::fabs(got[i] - expected[i].value), error_max * expected[i].magnitude + 1e-30)
          << dtype_name(w.dtype) << " rows " << w.rows << " cols " << w.cols << " n_tokens "
          << n_tokens << " at " << i << ": " << got[i] << " for " << expected[i].value;
    }
  }

  Random random_;
};

TEST_P(BackendContract, ProductsOfExactlyRepresentableInputsMatchTheReference) {
  const auto backend = create(2);
  for (const DType dtype : all_dtypes) {
    for (const int64_t rows : {1, 15, 16, 17, 50}) {
      for (const int n_tokens : {1, 2, 3, 7, 16, 29}) {
        const int64_t cols = 256 * random_.between(1, 3);
        const Weight w = weight(dtype, rows, cols);
        const auto x = whole_numbers(n_tokens, cols);
        const auto bias = random_.normals(rows);
        const bool with_bias = random_.bits() % 2 == 0;
        auto out = poisoned(n_tokens * rows);
        const MatmulTarget target{&w.view, with_bias ? bias.data() : nullptr, out.data()};
        backend->matmul({&target, 1}, x.data(), n_tokens);
        expect_products(w.view, x, n_tokens, target.bias, out, 2e-6);
      }
    }
  }
}

TEST_P(BackendContract, ProductsMatchTheReferenceForUpTo300TokensAndManyColumns) {
  const auto backend = create(2);
  for (const DType dtype : all_dtypes) {
    const int64_t rows = random_.between(1, 40);
    const int n_tokens = static_cast<int>(random_.between(100, 300));
    const Weight w = weight(dtype, rows, 2304);
    const auto x = random_.normals(n_tokens * w.view.cols);
    auto out = poisoned(n_tokens * rows);
    const MatmulTarget target{&w.view, nullptr, out.data()};
    backend->matmul({&target, 1}, x.data(), n_tokens);
    const bool rounded = GetParam().quantises_input && block_values(dtype) > 1;
    expect_products(w.view, x, n_tokens, nullptr, out, rounded ? 5e-3 : 2e-6);
  }
}

TEST_P(BackendContract, ProductsOfTheLargestLevelsWithTheLargestValuesDoNotOverflow) {
  const auto backend = create(2);
  for (const DType dtype : all_dtypes) {
    if (block_values(dtype) == 1) continue;
    for (const int n_tokens : {1, 2, 3, 4, 5, 8, 17}) {
      const int64_t rows = 37;
      const int64_t cols = 512;
      const Bytes bytes = extreme_rows(dtype, rows, cols, random_);
      const WeightView view{bytes.data(), dtype, rows, cols};
      std::vector<float> x(static_cast<size_t>(n_tokens * cols));
      for (size_t i = 0; i < x.size(); ++i) x[i] = i / size_t(cols) % 2 == 0 ? 127.0f : -127.0f;
      auto out = poisoned(n_tokens * rows);
      const MatmulTarget target{&view, nullptr, out.data()};
      backend->matmul({&target, 1}, x.data(), n_tokens);
      // Sums of one sign: float32 rounds all of them the same way. An overflow is off by a third.
      expect_products(view, x, n_tokens, nullptr, out, 5e-5);
    }
  }
}

TEST_P(BackendContract, PlainWeightsMayHaveAnyNumberOfColumns) {
  const auto backend = create(1);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t cols : {1, 7, 33, 300}) {
      const Weight w = weight(dtype, 19, cols);
      const auto x = random_.normals(5 * cols);
      auto out = poisoned(5 * 19);
      const MatmulTarget target{&w.view, nullptr, out.data()};
      backend->matmul({&target, 1}, x.data(), 5);
      expect_products(w.view, x, 5, nullptr, out, 2e-6);
    }
  }
}

TEST_P(BackendContract, AGroupOfWeightsOfDifferentTypesSharesItsInput) {
  const auto backend = create(2);
  const int64_t cols = 512;
  std::vector<Weight> weights;
  std::vector<std::vector<float>> outs;
  const int n_tokens = static_cast<int>(random_.between(1, 40));
  for (const DType dtype : all_dtypes) {
    weights.push_back(weight(dtype, random_.between(1, 70), cols));
    outs.push_back(poisoned(n_tokens * weights.back().view.rows));
  }
  std::vector<MatmulTarget> targets;
  for (size_t i = 0; i < weights.size(); ++i) {
    targets.push_back({&weights[i].view, nullptr, outs[i].data()});
  }
  const auto x = whole_numbers(n_tokens, cols);
  backend->matmul(targets, x.data(), n_tokens);
  for (size_t i = 0; i < weights.size(); ++i) {
    expect_products(weights[i].view, x, n_tokens, nullptr, outs[i], 2e-6);
  }
}

TEST_P(BackendContract, LowRankUpdatesAddTheirProductToSomeWeightsOfAGroup) {
  const auto one = create(1);
  const auto two = create(2);
  for (const DType dtype : {DType::kQ4_K, DType::kQ8_0, DType::kF32}) {
    for (const int rank : {1, 8, 13}) {
      const int64_t cols = 256 * random_.between(1, 3);
      const int n_tokens = static_cast<int>(random_.between(1, 40));
      const Weight weights[] = {weight(dtype, random_.between(1, 90), cols),
                                weight(dtype, random_.between(1, 90), cols),
                                weight(dtype, random_.between(1, 90), cols)};
      // The one in the middle has none.
      std::vector<Weight> factors;
      std::vector<LowRankUpdate> updates;
      for (const Weight& w : weights) {
        factors.push_back(weight(DType::kBF16, rank, cols));
        factors.push_back(weight(DType::kBF16, rank, w.view.rows));
      }
      for (size_t i = 0; i < 3; ++i) {
        updates.push_back({rank, 1.75f, reinterpret_cast<const uint16_t*>(factors[2 * i].view.data),
                           reinterpret_cast<const uint16_t*>(factors[2 * i + 1].view.data)});
      }
      const auto x = whole_numbers(n_tokens, cols);
      const auto run = [&](Backend& backend, int first, int n) {
        std::vector<std::vector<float>> outs;
        std::vector<MatmulTarget> targets;
        for (const Weight& w : weights) outs.push_back(poisoned(n * w.view.rows));
        for (size_t i = 0; i < 3; ++i) {
          targets.push_back({&weights[i].view, nullptr, outs[i].data(), i == 1 ? nullptr : &updates[i]});
        }
        backend.matmul(targets, x.data() + first * cols, n);
        return outs;
      };
      const auto together = run(*two, 0, n_tokens);
      for (size_t i = 0; i < 3; ++i) {
        auto expected = reference::matmul(weights[i].view, x.data(), n_tokens, nullptr);
        if (i != 1) {
          reference::add_low_rank(factors[2 * i].view, factors[2 * i + 1].view, 1.75, x.data(),
                                  n_tokens, expected);
        }
        for (size_t at = 0; at < expected.size(); ++at) {
          ASSERT_LE(std::fabs(together[i][at] - expected[at].value), 3e-6 * expected[at].magnitude)
              << dtype_name(dtype) << " rank " << rank << " target " << i << " at " << at;
        }
      }
      // A token alone has the same bits.
      const int t = static_cast<int>(random_.between(0, n_tokens - 1));
      const auto alone = run(*one, t, 1);
      for (size_t i = 0; i < 3; ++i) {
        const float* row = together[i].data() + t * weights[i].view.rows;
        ASSERT_EQ(0, std::memcmp(alone[i].data(), row, alone[i].size() * 4));
      }
    }
  }
}

TEST_P(BackendContract, NoTokensAndNoTargetsAreNothingToDo) {
  const auto backend = create(2);
  const Weight w = weight(DType::kQ8_0, 16, 32);
  auto out = poisoned(16);
  const MatmulTarget target{&w.view, nullptr, out.data()};
  backend->matmul({&target, 1}, nullptr, 0);
  backend->matmul({}, nullptr, 1);
  backend->rms_norm(nullptr, nullptr, 0, 32, 1e-5f, nullptr);
  backend->silu_mul(nullptr, nullptr, 0);
  backend->add(nullptr, nullptr, 0);
  backend->embed(w.view, {}, nullptr);
  EXPECT_TRUE(std::ranges::all_of(out, [](float value) { return std::isnan(value); }));
}

TEST_P(BackendContract, AProductHasTheSameBitsForAnyThreadsAndAnyOtherTokens) {
  const auto one = create(1);
  const auto two = create(2);
  for (const DType dtype : all_dtypes) {
    const int n_tokens = static_cast<int>(random_.between(2, 70));
    const int64_t rows = random_.between(30, 200);
    const Weight w = weight(dtype, rows, 768);
    const auto x = random_.normals(n_tokens * w.view.cols);
    auto together = poisoned(n_tokens * rows);
    const MatmulTarget target{&w.view, nullptr, together.data()};
    two->matmul({&target, 1}, x.data(), n_tokens);
    for (int t = 0; t < n_tokens;) {
      // One, two and four at first: few tokens may have loops of their own.
      const int wanted = t == 0 ? 1 : t == 1 ? 2 : t == 3 ? 4 : static_cast<int>(random_.between(1, 20));
      const int n = std::min(n_tokens - t, wanted);
      auto alone = poisoned(n * rows);
      const MatmulTarget part{&w.view, nullptr, alone.data()};
      one->matmul({&part, 1}, x.data() + t * w.view.cols, n);
      ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + t * rows, alone.size() * 4))
          << dtype_name(dtype) << " tokens " << t << " to " << t + n << " of " << n_tokens;
      t += n;
    }
  }
}

TEST_P(BackendContract, EmbedLooksRowsUp) {
  const auto backend = create(2);
  for (const DType dtype : all_dtypes) {
    const Weight w = weight(dtype, 37, 512);
    std::vector<uint32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(static_cast<uint32_t>(random_.between(0, 36)));
    auto out = poisoned(static_cast<int64_t>(ids.size()) * 512);
    backend->embed(w.view, ids, out.data());
    const auto table = expanded(dtype, w.bytes, 512);
    for (size_t t = 0; t < ids.size(); ++t) {
      EXPECT_EQ(0, std::memcmp(out.data() + t * 512, table.data() + ids[t] * size_t{512}, 512 * 4));
    }
  }
}

TEST_P(BackendContract, RmsNormMatchesTheReferenceInAndOutOfPlace) {
  const auto backend = create(2);
  for (const int n_embd : {1, 31, 576, 1537}) {
    for (const int n_tokens : {1, 2, 65}) {
      auto x = random_.normals(int64_t{n_tokens} * n_embd, 3.0f);
      const auto scale = random_.normals(n_embd);
      const auto expected = reference::rms_norm(x.data(), scale.data(), n_tokens, n_embd, 1e-5);
      auto out = poisoned(int64_t{n_tokens} * n_embd);
      backend->rms_norm(x.data(), scale.data(), n_tokens, n_embd, 1e-5f, out.data());
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], expected[i], 2e-6 * (1.0 + std::fabs(expected[i])));
      }
      backend->rms_norm(x.data(), scale.data(), n_tokens, n_embd, 1e-5f, x.data());
      EXPECT_EQ(0, std::memcmp(x.data(), out.data(), out.size() * 4));
    }
  }
}

TEST_P(BackendContract, RopeMatchesTheReferenceAndLeavesOtherDimensionsAlone) {
  const auto backend = create(2);
  for (int round = 0; round < 12; ++round) {
    const int head_dim = static_cast<int>(16 * random_.between(1, 8));
    const int n_rotated = round % 3 == 0 ? head_dim / 2 : head_dim;
    const int n_heads = static_cast<int>(random_.between(1, 14));
    const int n_tokens = static_cast<int>(random_.between(1, 60));
    const int first = static_cast<int>(random_.between(0, 30000));
    const auto pairing = round % 2 == 0 ? RopePairing::kHalfSplit : RopePairing::kAdjacent;
    const float magnitude = round % 4 == 0 ? 1.19f : 1.0f;
    std::vector<float> inv_freq;
    for (int i = 0; i < n_rotated / 2; ++i) {
      inv_freq.push_back(static_cast<float>(std::pow(1e5, -2.0 * i / n_rotated)));
    }
    const auto x = random_.normals(int64_t{n_tokens} * n_heads * head_dim);
    auto out = x;
    backend->rope({.x = out.data(),
                   .n_tokens = n_tokens,
                   .n_heads = n_heads,
                   .head_dim = head_dim,
                   .first_position = first,
                   .inv_freq = inv_freq.data(),
                   .n_rotated = n_rotated,
                   .magnitude = magnitude,
                   .pairing = pairing});
    for (int i = 0; i < n_tokens * n_heads; ++i) {
      const auto expected =
          reference::rope(x.data() + int64_t{i} * head_dim, head_dim, first + i / n_heads,
                          inv_freq.data(), n_rotated, magnitude, pairing);
      for (int d = 0; d < head_dim; ++d) {
        ASSERT_NEAR(out[static_cast<size_t>(i * head_dim + d)], expected[static_cast<size_t>(d)],
                    2e-6 * (1.0 + std::fabs(expected[static_cast<size_t>(d)])));
      }
    }
  }
}

TEST_P(BackendContract, SiluMulMatchesTheReferenceAlsoAtExtremes) {
  const auto one = create(1);
  const auto two = create(2);
  for (const int64_t n : {1, 15, 1000, 100003}) {
    auto gate = random_.normals(n, 6.0f);
    const auto up = random_.normals(n);
    for (const float extreme : {0.0f, -1e4f, 1e4f, -88.5f, 88.5f, -104.0f}) {
      gate[static_cast<size_t>(random_.between(0, n - 1))] = extreme;
    }
    auto a = gate;
    auto b = gate;
    one->silu_mul(a.data(), up.data(), n);
    two->silu_mul(b.data(), up.data(), n);
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * 4));
    for (size_t i = 0; i < a.size(); ++i) {
      const double expected = reference::silu_mul(gate[i], up[i]);
      ASSERT_NEAR(a[i], expected, 2e-6 * std::fabs(expected) + 1e-30) << gate[i];
    }
  }
}

TEST_P(BackendContract, AddAddsEveryValueOnce) {
  const auto backend = create(2);
  for (const int64_t n : {1, 17, 40000}) {
    auto x = random_.normals(n);
    const auto y = random_.normals(n);
    std::vector<float> expected = x;
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += y[i];
    backend->add(x.data(), y.data(), n);
    EXPECT_EQ(x, expected);
  }
}

TEST_P(BackendContract, StoreKvWritesItsTokensAndNoOthers) {
  const auto backend = create(2);
  for (const DType dtype : {DType::kF16, DType::kF32}) {
    const int n_kv_heads = static_cast<int>(random_.between(1, 4));
    const int head_dim = static_cast<int>(16 * random_.between(1, 8));
    const int own_start = static_cast<int>(random_.between(0, 130));
    const int n_tokens = static_cast<int>(random_.between(1, 200));
    KvMemory kv(dtype, head_dim, n_kv_heads * 6);
    const std::vector<std::byte*> extents = kv.extents();
    auto k = random_.normals(int64_t{n_tokens} * n_kv_heads * head_dim, 100.0f);
    auto v = random_.normals(int64_t{n_tokens} * n_kv_heads * head_dim);
    backend->store_kv({.k = k.data(),
                       .v = v.data(),
                       .n_tokens = n_tokens,
                       .n_kv_heads = n_kv_heads,
                       .head_dim = head_dim,
                       .own_start = own_start,
                       .kv_dtype = dtype,
                       .extents = extents});
    for (int h = 0; h < n_kv_heads; ++h) {
      for (int own = 0; own < 6 * kBlockTokens; ++own) {
        const int extent = h * 6 + own / kBlockTokens;
        const int t = own - own_start;
        for (int d = 0; d < head_dim; ++d) {
          const float got_k = kv.value(extent, own % kBlockTokens, d);
          const float got_v = kv.value(extent, kBlockTokens + own % kBlockTokens, d);
          if (t < 0 || t >= n_tokens) {
            ASSERT_TRUE(std::isnan(got_k) && std::isnan(got_v));
            continue;
          }
          const size_t at = (static_cast<size_t>(t) * n_kv_heads + h) * head_dim + d;
          ASSERT_EQ(got_k, kv.rounded(k[at]));
          ASSERT_EQ(got_v, kv.rounded(v[at]));
        }
      }
    }
  }
}

TEST_P(BackendContract, StoreKvKeepsWhatHalfCannotHoldFinite) {
  const auto backend = create(1);
  KvMemory kv(DType::kF16, 16, 1);
  const std::vector<std::byte*> extents = kv.extents();
  const std::vector<float> k(16, 1e6f);
  const std::vector<float> v(16, -1e6f);
  backend->store_kv({.k = k.data(),
                     .v = v.data(),
                     .n_tokens = 1,
                     .n_kv_heads = 1,
                     .head_dim = 16,
                     .own_start = 3,
                     .kv_dtype = DType::kF16,
                     .extents = extents});
  EXPECT_EQ(kv.value(0, 3, 7), 65504.0f);
  EXPECT_EQ(kv.value(0, kBlockTokens + 3, 15), -65504.0f);
}

TEST_P(BackendContract, AttentionMatchesTheReferenceOverContextAndOwnBlocks) {
  const auto backend = create(2);
  for (const AttentionShape& shape : attention_shapes(random_)) {
    const AttentionCase c(shape, random_);
    const auto out = c.run(*backend);
    const auto expected = c.expected();
    double squares = 0.0;
    for (size_t i = 0; i < out.size(); ++i) {
      const double error = std::fabs(out[i] - expected[i]);
      ASSERT_LE(error, GetParam().attention_error * 10.0) << shape.describe() << " at " << i;
      squares += error * error;
    }
    ASSERT_LE(std::sqrt(squares / static_cast<double>(out.size())), GetParam().attention_error)
        << shape.describe();
  }
}

TEST_P(BackendContract, AttentionHasTheSameBitsForAnyThreadsAndAnyChunks) {
  const auto one = create(1);
  const auto two = create(2);
  for (const AttentionShape& shape : attention_shapes(random_)) {
    const AttentionCase c(shape, random_);
    const auto together = c.run(*two);
    for (int t = 0; t < shape.n_tokens;) {
      const int n = std::min(shape.n_tokens - t, static_cast<int>(random_.between(1, 40)));
      const auto alone = c.run(*one, t, n);
      const size_t row = static_cast<size_t>(shape.n_heads * shape.head_dim);
      ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + static_cast<size_t>(t) * row,
                               alone.size() * 4))
          << shape.describe() << " tokens " << t << " to " << t + n;
      t += n;
    }
  }
}

TEST_P(BackendContract, BlockMassAddsTheLastQuerysShareOfEachBlock) {
  const auto backend = create(2);
  for (const AttentionShape& shape : attention_shapes(random_)) {
    if (shape.n_picks > 0 && shape.n_tokens > 1) continue;
    const AttentionCase c(shape, random_);
    const auto expected = c.expected_mass();
    std::vector<float> mass(expected.size(), 1.0f);
    c.run(*backend, 0, shape.n_tokens, mass.data());
    for (size_t i = 0; i < mass.size(); ++i) {
      ASSERT_NEAR(mass[i], 1.0 + expected[i], GetParam().attention_error * 4.0 + 1e-6)
          << shape.describe();
    }
  }
}

TEST_P(BackendContract, AttentionHoldsWithLargeLogitsAndLargeBiases) {
  const auto backend = create(2);
  AttentionShape shape{.n_tokens = 20,
                       .n_heads = 4,
                       .n_kv_heads = 2,
                       .head_dim = 64,
                       .n_context = 3,
                       .own_start = 70};
  shape.bias_deviation = 200.0f;
  shape.key_offset = 60.0f;
  const AttentionCase c(shape, random_);
  const auto out = c.run(*backend);
  const auto expected = c.expected();
  for (size_t i = 0; i < out.size(); ++i) {
    // Biases this far apart leave one or two keys: what is left of the error is that of the values.
    ASSERT_NEAR(out[i], expected[i], 0.05) << i;
  }
}

/// Two runs of blocks with a gap between them, the second one growing as tokens go on.
struct ScoringCase {
  ScoringCase(Random& random, int n_first, int n_own_tokens)
      : group(static_cast<int>(random.between(1, 9))),
        n_kv_heads(static_cast<int>(random.between(1, 3))),
        head_dim(static_cast<int>(16 * random.between(1, 8))),
        n_tokens(static_cast<int>(random.between(1, std::min(40, n_own_tokens)))),
        own_start(n_own_tokens - n_tokens),
        dtype(random.between(0, 1) == 0 ? DType::kF16 : DType::kF32),
        packed(dtype == DType::kF16 && random.between(0, 1) == 0),
        counts{windows_in(n_first), windows_in(n_own_tokens)},
        first_windows{static_cast<int>(random.between(0, packed ? 300 : 40)), static_cast<int>(random.between(0, 20))},
        n_blocks_of{blocks_for(n_first), blocks_for(n_own_tokens)},
        n_blocks(n_blocks_of[0] + 1 + n_blocks_of[1]),
        q(random.normals(int64_t{n_tokens} * n_kv_heads * group * head_dim)) {
    for (int h = 0; h < n_kv_heads; ++h) {
      for (size_t i = 0; i < counts.size(); ++i) {
        keys.push_back(random.normals(int64_t{counts[i]} * head_dim));
        for (float& value : keys.back()) {
          if (dtype == DType::kF16) value = f16_to_f32(f32_to_f16(value));
        }
        tiles.push_back(tiled(keys.back(), first_windows[i]));
        if (packed && i == 0) pack(random);
      }
    }
  }

  /// The first run of the last KV head gets packed keys: its own are these then, and nothing reads the others.
  void pack(Random& random) {
    const int n_before = first_windows[0];
    auto rows = random.normals(int64_t{n_before} * head_dim);
    // A value that all keys have in common must not take levels from what they differ by.
    for (size_t i = 0; i < keys.back().size(); ++i) {
      if (i % static_cast<size_t>(head_dim) == 1) keys.back()[i] += 30.0f;
    }
    rows.insert(rows.end(), keys.back().begin(), keys.back().end());
    const auto from = tiled(rows, 0);
    packed_keys.emplace_back(reinterpret_cast<const uint16_t*>(from.data()), n_before + counts[0], head_dim);
    tiles.back() = std::vector<std::byte>(tiles.back().size(), std::byte(0xff));
    const PackedKeysView view = packed_keys.back().view();
    for (size_t i = 0; i < keys.back().size(); ++i) {
      const int m = n_before + static_cast<int>(i) / head_dim;
      const int d = static_cast<int>(i) % head_dim;
      const float* centres = view.ranges + int64_t{m / kTileWindows / PackedKeysView::kGroupTiles} * 2 * head_dim;
      const auto* codes = view.codes + (int64_t{m / kTileWindows} * (head_dim / 4) + d / 4) * kTileWindows * 4;
      const auto code = std::to_integer<int8_t>(codes[m % kTileWindows * 4 + d % 4]);
      keys.back()[i] = centres[d] + centres[head_dim + d] * static_cast<float>(code);
    }
  }

  /// Keys as rows into tiles, from window `first` on; all else in the tiles is NaN.
  std::vector<std::byte> tiled(const std::vector<float>& rows, int first) const {
    const int n = static_cast<int>(rows.size()) / head_dim;
    const int n_tiles = (first + n + kTileWindows - 1) / kTileWindows;
    std::vector<float> values(size_t(n_tiles) * kTileWindows * head_dim, std::numeric_limits<float>::quiet_NaN());
    for (int m = 0; m < n; ++m) {
      const int tile = (first + m) / kTileWindows;
      const int column = (first + m) % kTileWindows;
      for (int d = 0; d < head_dim; ++d) {
        values[(size_t(tile) * head_dim + d) * kTileWindows + column] = rows[size_t(m) * head_dim + d];
      }
    }
    if (dtype == DType::kF32) return bytes_of(values);
    std::vector<uint16_t> halves;
    for (const float value : values) halves.push_back(f32_to_f16(value));
    return bytes_of(halves);
  }

  template <typename T>
  static std::vector<std::byte> bytes_of(const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return {bytes.begin(), bytes.end()};
  }

  /// Tokens [first, first + n): [n, n_kv_heads, n_blocks]
  std::vector<float> run(Backend& backend, int first, int n) const {
    // Blocks that only later tokens reach are not there yet.
    const int n_own_tokens = own_start + first + n;
    std::vector<WindowRun> runs;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (i % 2 == 0) {
        const PackedKeysView view = packed ? packed_keys[i / 2].view() : PackedKeysView();
        runs.push_back({tiles[i].data(), view, first_windows[0], counts[0], 0, n_blocks_of[0]});
      } else {
        runs.push_back({tiles[i].data(), {}, first_windows[1], windows_in(n_own_tokens), n_blocks_of[0] + 1,
                        blocks_for(n_own_tokens)});
      }
    }
    const int64_t row = int64_t{n_kv_heads} * group * head_dim;
    std::vector<float> out(static_cast<size_t>(n) * n_kv_heads * n_blocks,
                           std::numeric_limits<float>::quiet_NaN());
    // Whoever is told of scores finds them as they stay, once, and alone as that worker.
    std::vector<float> told(out.size(), -1.0f);
    std::vector<std::atomic<int>> inside(static_cast<size_t>(backend.n_workers()));
    const auto scored = [&](int token, int kv_head, int worker) {
      ASSERT_TRUE(worker >= 0 && worker < backend.n_workers());
      EXPECT_EQ(inside[static_cast<size_t>(worker)].fetch_add(1), 0);
      const int64_t at = (int64_t{token} * n_kv_heads + kv_head) * n_blocks;
      EXPECT_EQ(told[static_cast<size_t>(at)], -1.0f);
      std::copy_n(out.begin() + at, n_blocks, told.begin() + at);
      inside[static_cast<size_t>(worker)].fetch_sub(1);
    };
    backend.score_blocks({.q = q.data() + first * row,
                          .n_tokens = n,
                          .own_start = own_start + first,
                          .n_heads = n_kv_heads * group,
                          .n_kv_heads = n_kv_heads,
                          .head_dim = head_dim,
                          .scale = 0.2f,
                          .kv_dtype = dtype,
                          .runs = runs,
                          .n_blocks = n_blocks,
                          .out = out.data(),
                          .scored = scored});
    EXPECT_EQ(0, std::memcmp(told.data(), out.data(), out.size() * sizeof(float)));
    return out;
  }

  /// One token and KV head: [n_blocks]
  std::vector<double> expected(int token, int kv_head) const {
    const int n_own = windows_in(own_start + token + 1);
    const auto& first = keys[static_cast<size_t>(2 * kv_head)];
    const auto& own = keys[static_cast<size_t>(2 * kv_head + 1)];
    std::vector<double> compressed(first.begin(), first.end());
    compressed.insert(compressed.end(), own.begin(), own.begin() + int64_t{n_own} * head_dim);
    const auto at = q.begin() + (int64_t{token} * n_kv_heads + kv_head) * group * head_dim;
    const std::vector<double> queries(at, at + int64_t{group} * head_dim);
    const auto windows = reference::window_scores(queries, compressed, group, head_dim, 0.2f);
    std::vector<double> blocks(static_cast<size_t>(n_blocks), -std::numeric_limits<double>::infinity());
    for (int m = 0; m < counts[0] + n_own; ++m) {
      const int in_run = m < counts[0] ? m : m - counts[0];
      const int n_in_run = m < counts[0] ? n_blocks_of[0] : blocks_for(own_start + token + 1);
      const int first_block = m < counts[0] ? 0 : n_blocks_of[0] + 1;
      for (const int b : {in_run / 4, (in_run + 1) / 4}) {
        if (b >= n_in_run) continue;
        double& best = blocks[static_cast<size_t>(first_block + b)];
        best = std::max(best, windows[static_cast<size_t>(m)]);
      }
    }
    return blocks;
  }

  int group, n_kv_heads, head_dim, n_tokens, own_start;
  DType dtype;
  bool packed;
  std::array<int, 2> counts;       // windows
  std::array<int, 2> first_windows;
  std::array<int, 2> n_blocks_of;
  int n_blocks;
  std::vector<float> q;
  std::vector<std::vector<float>> keys;  // [n_kv_heads * 2], as they are in the KV type
  std::vector<std::vector<std::byte>> tiles;  // the same
  std::vector<PackedKeys> packed_keys;        // [n_kv_heads], or none
};

TEST_P(BackendContract, BlockScoresAreTheBestWindowsOfTheHeadsSoftmaxesTogether) {
  const auto backend = create(2);
  for (const int n_first : {0, 20, 64, 700, 9000}) {
    for (const int n_own : {1, 31, 32, 200, 1100}) {
      const ScoringCase c(random_, n_first, n_own);
      const auto out = c.run(*backend, 0, c.n_tokens);
      for (int t = 0; t < c.n_tokens; ++t) {
        for (int h = 0; h < c.n_kv_heads; ++h) {
          const auto expected = c.expected(t, h);
          const auto* got = out.data() + (int64_t{t} * c.n_kv_heads + h) * c.n_blocks;
          for (int b = 0; b < c.n_blocks; ++b) {
            if (std::isinf(expected[static_cast<size_t>(b)])) {
              ASSERT_EQ(got[b], -std::numeric_limits<float>::infinity()) << b;
            } else {
              // Queries are rounded for packed keys.
              ASSERT_NEAR(got[b], expected[static_cast<size_t>(b)], c.packed ? 5e-4 : 1e-5) << b;
            }
          }
        }
      }
    }
  }
}

TEST_P(BackendContract, BlockScoresHaveTheSameBitsForAnyThreadsAndAnyChunks) {
  const auto one = create(1);
  const auto two = create(2);
  for (const int n_first : {0, 333, 6000}) {
    const ScoringCase c(random_, n_first, static_cast<int>(random_.between(33, 900)));
    const auto together = c.run(*two, 0, c.n_tokens);
    for (int t = 0; t < c.n_tokens;) {
      const int n = std::min(c.n_tokens - t, static_cast<int>(random_.between(1, 20)));
      const auto alone = c.run(*one, t, n);
      const size_t row = static_cast<size_t>(c.n_kv_heads) * c.n_blocks;
      ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + static_cast<size_t>(t) * row,
                               alone.size() * 4));
      t += n;
    }
  }
}

}  // namespace nosa::test
