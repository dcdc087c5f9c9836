#include "kv/side_car.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/check.h"
#include "core/half.h"
#include "kv/selection.h"

namespace nosa {
namespace {

/// What a whole side-car begins with in a file.
constexpr std::byte whole_mark{1};

/// sum[i] += row[i], `row` in the KV type.
void add_row(const std::byte* row, DType dtype, std::span<float> sum) {
  if (dtype == DType::kF32) {
    const float* values = reinterpret_cast<const float*>(row);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
    return;
  }
  const uint16_t* values = reinterpret_cast<const uint16_t*>(row);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += f16_to_f32(values[i]);
}

/// Copies the keys of windows [first, end) between tiles and rows [end - first, head_dim], either way.
template <size_t kValueBytes, typename Tiles, typename Rows>
void copy_keys(Tiles* tiles, Rows* rows, size_t head_dim, size_t first, size_t end) {
  constexpr bool to_rows = std::is_const_v<Tiles>;
  for (size_t m = first; m < end; ++m) {
    Tiles* column = tiles + (m / kTileWindows * head_dim * kTileWindows + m % kTileWindows) * kValueBytes;
    Rows* row = rows + (m - first) * head_dim * kValueBytes;
    for (size_t d = 0; d < head_dim; ++d) {
      auto* in_tile = column + d * kTileWindows * kValueBytes;
      auto* in_row = row + d * kValueBytes;
      if constexpr (to_rows) {
        std::memcpy(in_row, in_tile, kValueBytes);
      } else {
        std::memcpy(in_tile, in_row, kValueBytes);
      }
    }
  }
}

/// To `n` values. Vectors grow by an eighth: doubling would leave half of what a budget pays for unused.
template <typename T>
void grow(std::vector<T>& values, size_t n) {
  constexpr size_t least = 8;
  if (n > values.capacity()) values.reserve(n + std::max(least, n / 8));
  values.resize(n);
}

}  // namespace

SideCar::SideCar(const KvShape& shape)
    : shape_(shape), layers_(size_t(shape.n_layers)), sum_(size_t(shape.head_dim)) {
  for (Layer& layer : layers_) layer.heads.resize(size_t(shape.n_kv_heads));
}

double SideCar::bytes_per_token(const KvShape& shape) {
  const double key_bytes = double(shape.head_dim) * double(shape.value_bytes());
  const double packed_bytes = shape.dtype == DType::kF16 ? PackedKeys::bytes_per_window(shape.head_dim) : 0.0;
  const double head_bytes = (key_bytes + packed_bytes + sizeof(float)) / kWindowStride + sizeof(float);
  return head_bytes * shape.extents_per_block();
}

void SideCar::append(int layer, const BlockTable& table, int n_tokens,
                     std::span<const float> scores) {
  const int first = windows_in(layers_[layer].n_tokens);
  append_scores(layer, n_tokens, scores);
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    for (int window = first; window < windows_in(n_tokens); ++window) {
      append_window(layer, head, table, window);
    }
  }
}

void SideCar::append(int layer, int n_tokens, std::span<const float> scores, const std::byte* keys,
                     std::span<const float> window_scores) {
  const size_t first = size_t(windows_in(layers_[layer].n_tokens));
  const size_t end = size_t(windows_in(n_tokens));
  const size_t n_new = end - first;
  CHECK(window_scores.size() == n_new * size_t(shape_.n_kv_heads));
  append_scores(layer, n_tokens, scores);
  for (size_t i = 0; n_new > 0 && i < size_t(shape_.n_kv_heads); ++i) {
    Head& head = layers_[layer].heads[i];
    const auto mine = window_scores.subspan(i * n_new, n_new);
    grow(head.window_scores, end);
    std::ranges::copy(mine, head.window_scores.begin() + int64_t(first));
    grow(head.compressed_keys, lines_for(end));
    read_keys(keys + i * n_new * key_bytes(), first, end, head);
  }
}

// Takes in the tokens up to `n_tokens`, but not the windows that they complete.
void SideCar::append_scores(int layer, int n_tokens, std::span<const float> scores) {
  Layer& state = layers_[layer];
  const int n_new = n_tokens - state.n_tokens;
  CHECK(n_new >= 0);
  CHECK(scores.size() == size_t(n_new) * size_t(shape_.n_kv_heads));
  if (n_new > 0) unpack();
  for (int head = 0; head < shape_.n_kv_heads; ++head) {
    auto& tokens = state.heads[head].token_scores;
    const auto mine = scores.subspan(size_t(head) * n_new, size_t(n_new));
    grow(tokens, size_t(blocks_for(n_tokens)) * kBlockTokens);
    std::copy(mine.begin(), mine.end(), tokens.begin() + state.n_tokens);
  }
  state.n_tokens = n_tokens;
}

void SideCar::append_window(int layer, int kv_head, const BlockTable& table, int window) {
  Head& head = layers_[layer].heads[kv_head];
  const int first_token = window * kWindowStride;

  std::fill(sum_.begin(), sum_.end(), 0.0f);
  float score = 0.0f;
  for (int token = first_token; token < first_token + kWindowTokens; ++token) {
    const std::byte* keys = table.extent(layer, kv_head, token / kBlockTokens);
    add_row(keys + size_t(token % kBlockTokens) * key_bytes(), shape_.dtype, sum_);
    score += head.token_scores[token];
  }
  grow(head.window_scores, size_t(window) + 1);
  head.window_scores.back() = score / kWindowTokens;

  row_.resize(key_bytes());
  for (int i = 0; i < shape_.head_dim; ++i) {
    const float mean = sum_[i] / kWindowTokens;
    if (shape_.dtype == DType::kF32) {
      std::memcpy(row_.data() + size_t(i) * 4, &mean, 4);
    } else {
      const uint16_t half = f32_to_f16(mean);
      std::memcpy(row_.data() + size_t(i) * 2, &half, 2);
    }
  }
  grow(head.compressed_keys, lines_for(size_t(window) + 1));
  read_keys(row_.data(), size_t(window), size_t(window) + 1, head);
}

size_t SideCar::lines_for(size_t n_windows) const {
  const size_t n_tiles = (n_windows + kTileWindows - 1) / kTileWindows;
  return (n_tiles * kTileWindows * key_bytes() + sizeof(Line) - 1) / sizeof(Line);
}

// The keys of windows [first, end) as rows.
void SideCar::write_keys(const Head& head, size_t first, size_t end, std::vector<std::byte>& out) const {
  const size_t at = out.size();
  out.resize(at + (end - first) * key_bytes());
  const auto* tiles = reinterpret_cast<const std::byte*>(head.compressed_keys.data());
  const auto copy = shape_.dtype == DType::kF32 ? copy_keys<4, const std::byte, std::byte>
                                                : copy_keys<2, const std::byte, std::byte>;
  copy(tiles, out.data() + at, size_t(shape_.head_dim), first, end);
}

// The reverse. REQUIRES: the tiles are there.
void SideCar::read_keys(const std::byte* from, size_t first, size_t end, Head& head) const {
  auto* tiles = reinterpret_cast<std::byte*>(head.compressed_keys.data());
  const auto copy = shape_.dtype == DType::kF32 ? copy_keys<4, std::byte, const std::byte>
                                                : copy_keys<2, std::byte, const std::byte>;
  copy(tiles, from, size_t(shape_.head_dim), first, end);
}

void SideCar::truncate(int n_tokens) {
  for (Layer& layer : layers_) {
    if (layer.n_tokens <= n_tokens) continue;
    unpack();
    layer.n_tokens = n_tokens;
    const size_t n_windows = size_t(windows_in(n_tokens));
    for (Head& head : layer.heads) {
      head.compressed_keys.resize(lines_for(n_windows));
      head.window_scores.resize(n_windows);
      head.token_scores.resize(size_t(blocks_for(n_tokens)) * kBlockTokens);
    }
  }
}

void SideCar::pack() {
  if (is_packed_ || shape_.dtype != DType::kF16) return;
  is_packed_ = true;
  for (Layer& layer : layers_) {
    CHECK(layer.n_tokens == layers_[0].n_tokens);
    for (Head& head : layer.heads) {
      const auto* tiles = reinterpret_cast<const uint16_t*>(head.compressed_keys.data());
      head.packed_keys = PackedKeys(tiles, windows_in(layer.n_tokens), shape_.head_dim);
    }
  }
}

void SideCar::unpack() {
  if (!is_packed_) return;
  is_packed_ = false;
  for (Layer& layer : layers_) {
    for (Head& head : layer.heads) head.packed_keys = PackedKeys();
  }
}

int SideCar::n_windows(int layer) const { return windows_in(layers_[layer].n_tokens); }

const std::byte* SideCar::compressed_keys(int layer, int kv_head) const {
  return reinterpret_cast<const std::byte*>(layers_[layer].heads[kv_head].compressed_keys.data());
}

PackedKeysView SideCar::packed_keys(int layer, int kv_head) const {
  return layers_[layer].heads[kv_head].packed_keys.view();
}

std::span<const float> SideCar::window_scores(int layer, int kv_head) const {
  return layers_[layer].heads[kv_head].window_scores;
}

std::span<const float> SideCar::token_scores(int layer, int kv_head) const {
  const Layer& state = layers_[layer];
  return {state.heads[kv_head].token_scores.data(), size_t(state.n_tokens)};
}

size_t SideCar::bytes() const {
  size_t total = 0;
  for (const Layer& layer : layers_) {
    for (const Head& head : layer.heads) {
      total += head.compressed_keys.capacity() * sizeof(Line) + head.packed_keys.bytes();
      total += (head.window_scores.capacity() + head.token_scores.capacity()) * sizeof(float);
    }
  }
  return total;
}

void SideCar::write(std::vector<std::byte>& out) const {
  const auto append = [&](const auto& values, size_t n) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    out.insert(out.end(), bytes, bytes + n * sizeof(values[0]));
  };
  out.push_back(whole_mark);
  for (const Layer& layer : layers_) {
    CHECK(layer.n_tokens == layers_[0].n_tokens);
    for (const Head& head : layer.heads) {
      write_keys(head, 0, head.window_scores.size(), out);
      append(head.window_scores, head.window_scores.size());
      append(head.token_scores, size_t(layer.n_tokens));
    }
  }
}

bool SideCar::read(std::span<const std::byte> bytes, int n_tokens) {
  if (bytes.empty() || bytes[0] != whole_mark) return false;
  const size_t n_windows = size_t(windows_in(n_tokens));
  const size_t head_bytes = n_windows * (key_bytes() + sizeof(float)) + size_t(n_tokens) * sizeof(float);
  if (bytes.size() != 1 + head_bytes * size_t(shape_.extents_per_block())) return false;

  unpack();
  const std::byte* at = bytes.data() + 1;
  const auto take = [&](auto& values, size_t n) {
    if (n > 0) std::memcpy(values.data(), at, n * sizeof(values[0]));
    at += n * sizeof(values[0]);
  };
  for (Layer& layer : layers_) {
    layer.n_tokens = n_tokens;
    for (Head& head : layer.heads) {
      head.compressed_keys.resize(lines_for(n_windows));
      read_keys(at, 0, n_windows, head);
      at += n_windows * key_bytes();
      head.window_scores.resize(n_windows);
      take(head.window_scores, n_windows);
      head.token_scores.assign(size_t(blocks_for(n_tokens)) * kBlockTokens, 0.0f);
      take(head.token_scores, size_t(n_tokens));
    }
  }
  return true;
}

void SideCar::write_range(int from, int to, std::vector<std::byte>& out) const {
  CHECK(from <= to);
  const auto append = [&](const auto& values, size_t first, size_t end) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    out.insert(out.end(), bytes + first * sizeof(values[0]), bytes + end * sizeof(values[0]));
  };
  const size_t first = size_t(windows_in(from));
  const size_t end = size_t(windows_in(to));
  for (const Layer& layer : layers_) {
    CHECK(layer.n_tokens >= to);
    for (const Head& head : layer.heads) {
      write_keys(head, first, end, out);
      append(head.window_scores, first, end);
      append(head.token_scores, size_t(from), size_t(to));
    }
  }
}

bool SideCar::read_range(std::span<const std::byte> bytes, int from, int to) {
  CHECK(from <= to);
  const size_t first = size_t(windows_in(from));
  const size_t end = size_t(windows_in(to));
  const size_t head_bytes = (end - first) * (key_bytes() + sizeof(float)) + size_t(to - from) * sizeof(float);
  if (bytes.size() != head_bytes * size_t(shape_.extents_per_block())) return false;

  unpack();
  const std::byte* at = bytes.data();
  const auto take = [&](auto& values, size_t begin, size_t n) {
    if (n > 0) std::memcpy(values.data() + begin, at, n * sizeof(values[0]));
    at += n * sizeof(values[0]);
  };
  for (Layer& layer : layers_) {
    CHECK(layer.n_tokens == from);
    layer.n_tokens = to;
    for (Head& head : layer.heads) {
      grow(head.compressed_keys, lines_for(end));
      read_keys(at, first, end, head);
      at += (end - first) * key_bytes();
      grow(head.window_scores, end);
      take(head.window_scores, first, end - first);
      grow(head.token_scores, size_t(blocks_for(to)) * kBlockTokens);
      take(head.token_scores, size_t(from), size_t(to - from));
    }
  }
  return true;
}

}  // namespace nosa
