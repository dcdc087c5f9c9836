#include "kv/side_car.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "core/half.h"
#include "kernels/reference/selection.h"
#include "kv/selection.h"

namespace nosa {
namespace {

/// A sequence with random keys in its blocks, and the same keys as the store rounded them, in double.
struct Keys {
  KvShape shape;
  BlockStore store;
  BlockTable table;
  std::mt19937 rng{std::random_device{}()};

  Keys(const KvShape& s, int n_tokens)
      : shape(s), store({.extent_bytes = s.extent_bytes()}), table(store, s) {
    EXPECT_TRUE(table.grow(blocks_for(n_tokens)).ok());
    std::normal_distribution<float> normal;
    for (int layer = 0; layer < s.n_layers; ++layer) {
      for (int head = 0; head < s.n_kv_heads; ++head) {
        for (int token = 0; token < n_tokens; ++token) {
          for (int i = 0; i < s.head_dim; ++i) set(layer, head, token, i, normal(rng));
        }
      }
    }
  }

  std::byte* at(int layer, int head, int token, int i) {
    const Result<std::byte*> extent = table.writable_extent(layer, head, token / kBlockTokens);
    return extent.value() + (size_t(token % kBlockTokens) * shape.head_dim + i) * shape.value_bytes();
  }
  void set(int layer, int head, int token, int i, float value) {
    if (shape.dtype == DType::kF32) {
      std::memcpy(at(layer, head, token, i), &value, 4);
    } else {
      const uint16_t half = f32_to_f16(value);
      std::memcpy(at(layer, head, token, i), &half, 2);
    }
  }
  double get(int layer, int head, int token, int i) {
    return load(at(layer, head, token, i));
  }
  double load(const std::byte* from) const {
    if (shape.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, from, 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, from, 2);
    return f16_to_f32(half);
  }
  /// A value of a compressed key.
  const std::byte* in_tile(const SideCar& car, int layer, int head, int window, int i) const {
    const size_t place = size_t(window / kTileWindows * shape.head_dim + i) * kTileWindows + size_t(window % kTileWindows);
    return car.compressed_keys(layer, head) + place * shape.value_bytes();
  }
  bool same(const SideCar& a, const SideCar& b, int layer, int head, int n_windows) const {
    for (int m = 0; m < n_windows; ++m) {
      for (int i = 0; i < shape.head_dim; ++i) {
        const auto* in_a = in_tile(a, layer, head, m, i);
        if (std::memcmp(in_a, in_tile(b, layer, head, m, i), size_t(shape.value_bytes())) != 0) return false;
      }
    }
    return true;
  }
  std::vector<float> scores(int n_tokens) {
    std::normal_distribution<float> normal;
    std::vector<float> drawn(size_t(shape.n_kv_heads) * n_tokens);
    for (auto& score : drawn) score = normal(rng);
    return drawn;
  }
};

class SideCarTest : public testing::TestWithParam<DType> {};

TEST_P(SideCarTest, WindowsAreMeansOfStoredKeysHoweverTheTokensArrive) {
  const KvShape shape{.n_layers = 2, .n_kv_heads = 3, .head_dim = 16, .dtype = GetParam()};
  constexpr int kTokens = 333;
  Keys keys(shape, kTokens);
  SideCar car(shape);
  std::vector<std::vector<float>> scores(shape.n_kv_heads);
  int done = 0;
  for (const int step : {0, 1, 30, 1, 15, 64, 1, 128, 93}) {
    const auto fresh = keys.scores(step);
    for (int layer = 0; layer < shape.n_layers; ++layer) car.append(layer, keys.table, done + step, fresh);
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      scores[head].insert(scores[head].end(), fresh.begin() + head * step, fresh.begin() + (head + 1) * step);
    }
    done += step;
  }
  ASSERT_EQ(done, kTokens);
  const double tolerance = GetParam() == DType::kF32 ? 1e-6 : 1e-3;
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    ASSERT_EQ(car.n_windows(layer), windows_in(kTokens));
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      for (int m = 0; m < windows_in(kTokens); ++m) {
        double score = 0.0;
        for (int j = 0; j < kWindowTokens; ++j) score += scores[head][16 * m + j] / kWindowTokens;
        EXPECT_NEAR(car.window_scores(layer, head)[m], score, 1e-5);
        for (int i = 0; i < shape.head_dim; ++i) {
          double mean = 0.0;
          for (int j = 0; j < kWindowTokens; ++j) mean += keys.get(layer, head, 16 * m + j, i) / kWindowTokens;
          EXPECT_NEAR(keys.load(keys.in_tile(car, layer, head, m, i)), mean, tolerance);
        }
      }
    }
  }
}

TEST_P(SideCarTest, ATruncatedAndRegrownSideCarEqualsAFreshOne) {
  const KvShape shape{.n_layers = 1, .n_kv_heads = 2, .head_dim = 16, .dtype = GetParam()};
  constexpr int kTokens = 200;
  Keys keys(shape, kTokens);
  const auto scores = keys.scores(kTokens);
  SideCar fresh(shape);
  fresh.append(0, keys.table, kTokens, scores);
  for (const int cut : {0, 31, 32, 47, 48, 100, 199}) {
    SideCar cut_back = fresh;
    cut_back.truncate(cut);
    ASSERT_EQ(cut_back.n_windows(0), windows_in(cut));
    std::vector<float> rest;
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      rest.insert(rest.end(), scores.begin() + head * kTokens + cut, scores.begin() + (head + 1) * kTokens);
    }
    cut_back.append(0, keys.table, kTokens, rest);
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      EXPECT_TRUE(keys.same(cut_back, fresh, 0, head, fresh.n_windows(0)));
      EXPECT_TRUE(std::ranges::equal(cut_back.window_scores(0, head), fresh.window_scores(0, head)));
      EXPECT_TRUE(std::ranges::equal(cut_back.token_scores(0, head), fresh.token_scores(0, head)));
    }
  }
}

TEST_P(SideCarTest, WhatIsWrittenInPiecesReadsAsTheWhole) {
  const KvShape shape{.n_layers = 2, .n_kv_heads = 2, .head_dim = 16, .dtype = GetParam()};
  constexpr int kTokens = 900;
  Keys keys(shape, kTokens);
  const auto scores = keys.scores(kTokens);
  SideCar whole(shape);
  for (int layer = 0; layer < shape.n_layers; ++layer) whole.append(layer, keys.table, kTokens, scores);
  std::vector<std::byte> bytes;
  whole.write(bytes);
  SideCar read(shape);
  ASSERT_TRUE(read.read(bytes, kTokens));
  EXPECT_FALSE(read.read(std::span(bytes).first(bytes.size() - 1), kTokens));

  SideCar joined(shape);
  int from = 0;
  for (const int to : {0, 20, 64, 333, 640, 641, kTokens}) {
    std::vector<std::byte> piece;
    whole.write_range(from, to, piece);
    if (!piece.empty()) {
      EXPECT_FALSE(joined.read_range(std::span(piece).first(piece.size() - 1), from, to));
    }
    ASSERT_TRUE(joined.read_range(piece, from, to));
    from = to;
  }
  for (const SideCar* copy : {&read, &joined}) {
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      ASSERT_EQ(copy->n_windows(layer), whole.n_windows(layer));
      for (int head = 0; head < shape.n_kv_heads; ++head) {
        EXPECT_TRUE(keys.same(*copy, whole, layer, head, whole.n_windows(layer)));
        EXPECT_TRUE(std::ranges::equal(copy->window_scores(layer, head), whole.window_scores(layer, head)));
        EXPECT_TRUE(std::ranges::equal(copy->token_scores(layer, head), whole.token_scores(layer, head)));
      }
    }
    std::vector<std::byte> again;
    copy->write(again);
    EXPECT_EQ(again, bytes);
  }
}

TEST_P(SideCarTest, PackedKeysAreWithinHalfAStepAndGoWhenTokensComeOrGo) {
  const KvShape shape{.n_layers = 2, .n_kv_heads = 2, .head_dim = 48, .dtype = GetParam()};
  // Windows that fill groups, and a tile of which five are there.
  constexpr int group_windows = PackedKeysView::kGroupTiles * kTileWindows;
  constexpr int kTokens = 16 * (2 * group_windows + 5) + kWindowTokens - kWindowStride;
  Keys keys(shape, kTokens + 64);
  // A dimension far from 0, one that never varies, and one of a single large key.
  for (int token = 0; token < kTokens; ++token) {
    keys.set(1, 0, token, 3, 100.0f + float(keys.get(1, 0, token, 3)));
    keys.set(1, 0, token, 4, -7.0f);
  }
  for (int token = 640; token < 700; ++token) keys.set(1, 0, token, 5, 60000.0f);
  const auto scores = keys.scores(kTokens);
  SideCar car(shape);
  for (int layer = 0; layer < shape.n_layers; ++layer) car.append(layer, keys.table, kTokens, scores);
  const size_t bytes_before = car.bytes();
  std::vector<std::byte> saved_before;
  car.write(saved_before);
  EXPECT_EQ(car.packed_keys(0, 0).codes, nullptr);

  car.pack();
  std::vector<std::byte> saved;
  car.write(saved);
  EXPECT_EQ(saved, saved_before);
  if (GetParam() == DType::kF32) {
    EXPECT_EQ(car.packed_keys(0, 0).codes, nullptr);
    EXPECT_EQ(car.bytes(), bytes_before);
    return;
  }
  EXPECT_GT(car.bytes(), bytes_before);
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const PackedKeysView packed = car.packed_keys(layer, head);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(packed.codes) % 64, 0u);
      for (int m = 0; m < windows_in(kTokens); ++m) {
        for (int i = 0; i < shape.head_dim; ++i) {
          const float* centres = packed.ranges + size_t(m / group_windows) * 2 * shape.head_dim;
          const double step = centres[shape.head_dim + i];
          const int column = m / kTileWindows * (shape.head_dim / 4) + i / 4;
          const int place = (column * kTileWindows + m % kTileWindows) * 4 + i % 4;
          const auto code = std::to_integer<int8_t>(packed.codes[place]);
          const double exact = keys.load(keys.in_tile(car, layer, head, m, i));
          ASSERT_NE(code, -128);
          ASSERT_NEAR(centres[i] + step * code, exact, 0.501 * step + 1e-6 * std::abs(exact)) << m << " " << i;
        }
      }
    }
  }

  // Nothing new changes nothing; a token does.
  const std::byte* codes = car.packed_keys(1, 1).codes;
  car.truncate(kTokens);
  car.append(0, keys.table, kTokens, {});
  EXPECT_EQ(car.packed_keys(1, 1).codes, codes);
  SideCar longer = car;
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    longer.append(layer, keys.table, kTokens + 1, keys.scores(1));
    EXPECT_EQ(longer.packed_keys(layer, 1).codes, nullptr);
  }
  car.truncate(kTokens - 1);
  EXPECT_EQ(car.packed_keys(1, 1).codes, nullptr);
  car.truncate(10);
  car.pack();
  EXPECT_EQ(car.packed_keys(1, 1).codes, nullptr);
}

INSTANTIATE_TEST_SUITE_P(KvTypes, SideCarTest, testing::Values(DType::kF16, DType::kF32));

}  // namespace
}  // namespace nosa
