#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "core/half.h"
#include "kernels/reference/attention.h"
#include "support/random.h"
#include "support/sanitized.h"

namespace nosa::test {

/// Extents of KV blocks, full of NaN until something is written.
class KvMemory {
 public:
  KvMemory(DType dtype, int head_dim, int n_extents)
      : dtype_(dtype), head_dim_(head_dim), n_extents_(n_extents) {
    const size_t n_values = static_cast<size_t>(n_extents * 2 * kBlockTokens * head_dim);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    if (dtype == DType::kF32) {
      floats_.assign(n_values, nan);
    } else {
      halves_.assign(n_values, f32_to_f16(nan));
    }
  }

  std::vector<std::byte*> extents() {
    std::vector<std::byte*> all;
    const int64_t n = int64_t{2} * kBlockTokens * head_dim_ * block_bytes(dtype_);
    for (int i = 0; i < n_extents_; ++i) all.push_back(data() + i * n);
    return all;
  }

  /// `row` counts the keys, then the values of an extent.
  float value(int extent, int row, int d) const {
    const size_t at = index(extent, row, d);
    return dtype_ == DType::kF32 ? floats_[at] : f16_to_f32(halves_[at]);
  }

  void set(int extent, int row, int d, float value) {
    const size_t at = index(extent, row, d);
    if (dtype_ == DType::kF32) {
      floats_[at] = value;
    } else {
      halves_[at] = f32_to_f16(value);
    }
  }

  float rounded(float value) const {
    return dtype_ == DType::kF32 ? value : f16_to_f32(f32_to_f16(value));
  }

 private:
  size_t index(int extent, int row, int d) const {
    return (static_cast<size_t>(extent) * 2 * kBlockTokens + static_cast<size_t>(row)) *
               static_cast<size_t>(head_dim_) +
           static_cast<size_t>(d);
  }
  std::byte* data() {
    return dtype_ == DType::kF32 ? reinterpret_cast<std::byte*>(floats_.data())
                                 : reinterpret_cast<std::byte*>(halves_.data());
  }

  DType dtype_;
  int head_dim_;
  int n_extents_;
  std::vector<float> floats_;
  std::vector<uint16_t> halves_;
};

struct AttentionShape {
  int n_tokens = 1;
  int n_heads = 1;
  int n_kv_heads = 1;
  int head_dim = 64;
  int n_context = 0;
  int own_start = 0;
  int n_pool = 0;   // blocks that tokens pick from
  int n_picks = 0;  // of each token
  DType kv_dtype = DType::kF16;
  float bias_deviation = 0.0f;  // 0: no bias at all
  float key_offset = 0.0f;      // a constant part of all keys, as attention biases give

  std::string describe() const {
    return "n_tokens " + std::to_string(n_tokens) + " heads " + std::to_string(n_heads) + "/" +
           std::to_string(n_kv_heads) + " x " + std::to_string(head_dim) + " context " +
           std::to_string(n_context) + " own_start " + std::to_string(own_start) + " picks " +
           std::to_string(n_picks) + "/" + std::to_string(n_pool) + " " +
           dtype_name(kv_dtype);
  }
};

/// Shapes of the models that Nosa runs and odd ones, with random lengths.
inline std::vector<AttentionShape> attention_shapes(Random& random) {
  struct Heads {
    int n_heads, n_kv_heads, head_dim;
  };
  std::vector<AttentionShape> shapes;
  for (const Heads heads : {Heads{9, 3, 64}, Heads{14, 2, 64}, Heads{12, 2, 128}, Heads{4, 4, 16},
                            Heads{5, 1, 80}, Heads{32, 2, 32}}) {
    if (kSanitized && heads.n_heads % 5 != 0 && heads.n_heads != 9) continue;
    for (int variant = 0; variant < 5; ++variant) {
      AttentionShape shape{
          .n_heads = heads.n_heads, .n_kv_heads = heads.n_kv_heads, .head_dim = heads.head_dim};
      // Decoding, a few tokens, a chunk; without and with context, over the border of a block.
      shape.n_tokens = static_cast<int>(variant % 3 == 0   ? 1
                                        : variant % 3 == 1 ? random.between(2, 20)
                                                           : random.between(30, 70));
      shape.n_context =
          static_cast<int>(variant < 2 ? 0 : random.between(1, variant == 3 ? 40 : 9));
      shape.own_start = static_cast<int>(variant == 0 ? 0 : random.between(0, 150));
      shape.kv_dtype = variant == 4 ? DType::kF32 : DType::kF16;
      shape.bias_deviation = variant % 2 == 0 ? 0.0f : 1.0f;
      if (variant >= 2) {
        shape.n_pool = static_cast<int>(random.between(1, 50));
        shape.n_picks = static_cast<int>(random.between(1, std::min(shape.n_pool, 40)));
      }
      shapes.push_back(shape);
    }
  }
  return shapes;
}

/// Random queries, keys, values and biases of a shape, with NaN wherever no token is.
class AttentionCase {
 public:
  AttentionCase(const AttentionShape& shape, Random& random)
      : shape_(shape),
        n_own_((shape.own_start + shape.n_tokens + kBlockTokens - 1) / kBlockTokens),
        kv_(shape.kv_dtype, shape.head_dim, shape.n_kv_heads * n_blocks()),
        q_(random.normals(int64_t{shape.n_tokens} * shape.n_heads * shape.head_dim)),
        bias_(random.normals(int64_t{shape.n_kv_heads} * n_blocks() * kBlockTokens,
                             shape.bias_deviation)) {
    for (int b = 0; b < shape.n_context; ++b) {
      n_in_block_.push_back(static_cast<int>(b % 3 == 1 ? random.between(1, 64) : 64));
    }
    for (int b = 0; b < n_own_; ++b) {
      const int n_own_tokens = shape.own_start + shape.n_tokens;
      n_in_block_.push_back(std::min(kBlockTokens, n_own_tokens - b * kBlockTokens));
    }
    for (int b = 0; b < shape.n_pool; ++b) {
      n_in_block_.push_back(static_cast<int>(b % 4 == 1 ? random.between(1, 64) : 64));
    }
    for (int i = 0; i < shape.n_kv_heads * shape.n_tokens; ++i) {
      // Some ascending few of the pool.
      int n_left = shape.n_picks;
      for (int b = 0; b < shape.n_pool; ++b) {
        if (random.between(1, shape.n_pool - b) > n_left) continue;
        picks_.push_back(b);
        n_left -= 1;
      }
    }
    const auto offsets = random.normals(shape.head_dim, shape.key_offset);
    for (int e = 0; e < shape.n_kv_heads * n_blocks(); ++e) {
      for (int j = 0; j < n_in_block_[static_cast<size_t>(e % n_blocks())]; ++j) {
        for (int d = 0; d < shape.head_dim; ++d) {
          kv_.set(e, j, d, kv_.rounded(random.normal() + offsets[static_cast<size_t>(d)]));
          kv_.set(e, kBlockTokens + j, d, kv_.rounded(random.normal()));
        }
      }
    }
  }

  /// Attends tokens [first, first + n), as a chunk that was stored up to its own end.
  std::vector<float> run(Backend& backend, int first = 0, int n = -1,
                         float* block_mass = nullptr) const {
    if (n < 0) n = shape_.n_tokens - first;
    const int n_own_tokens = shape_.own_start + first + n;
    const int n_own = (n_own_tokens + kBlockTokens - 1) / kBlockTokens;
    KvMemory kv = kv_;
    const std::vector<std::byte*> extents = kv.extents();
    std::vector<KvBlockRef> context;
    std::vector<KvBlockRef> own;
    for (int h = 0; h < shape_.n_kv_heads; ++h) {
      for (int b = 0; b < shape_.n_context + n_own; ++b) {
        const int extent = h * n_blocks() + b;
        KvBlockRef block;
        block.extent = extents[static_cast<size_t>(extent)];
        if (shape_.bias_deviation != 0.0f) block.token_bias = bias_.data() + extent * kBlockTokens;
        block.n_tokens = n_in_block_[static_cast<size_t>(b)];
        if (b < shape_.n_context) {
          context.push_back(block);
          continue;
        }
        const int begin = (b - shape_.n_context) * kBlockTokens;
        block.n_tokens = std::min(kBlockTokens, n_own_tokens - begin);
        // The chunk's own future was not stored yet: nothing may depend on it.
        for (int j = block.n_tokens; j < kBlockTokens; ++j) {
          for (int d = 0; d < shape_.head_dim; ++d) {
            kv.set(extent, j, d, std::numeric_limits<float>::quiet_NaN());
            kv.set(extent, kBlockTokens + j, d, std::numeric_limits<float>::quiet_NaN());
          }
        }
        own.push_back(block);
      }
    }
    // Of the pool, what these tokens picked.
    std::vector<KvBlockRef> picked;
    std::vector<int32_t> picked_begin = {0};
    std::vector<int32_t> picks;
    for (int h = 0; h < shape_.n_kv_heads; ++h) {
      std::vector<int32_t> index(static_cast<size_t>(shape_.n_pool), -1);
      for (int i = 0; i < n * shape_.n_picks; ++i) index[picks_of(h, first)[i]] = 0;
      for (int b = 0; b < shape_.n_pool; ++b) {
        if (index[static_cast<size_t>(b)] < 0) continue;
        index[static_cast<size_t>(b)] = static_cast<int32_t>(picked.size()) - picked_begin.back();
        const int extent = h * n_blocks() + shape_.n_context + n_own_ + b;
        const float* bias = shape_.bias_deviation == 0.0f ? nullptr : bias_.data() + extent * kBlockTokens;
        picked.push_back({extents[static_cast<size_t>(extent)], bias,
                          n_in_block_[static_cast<size_t>(extent % n_blocks())]});
      }
      for (int i = 0; i < n * shape_.n_picks; ++i) picks.push_back(index[picks_of(h, first)[i]]);
      picked_begin.push_back(static_cast<int32_t>(picked.size()));
    }
    const int64_t row = int64_t{shape_.n_heads} * shape_.head_dim;
    std::vector<float> out(static_cast<size_t>(n * row), std::numeric_limits<float>::quiet_NaN());
    backend.attend({.q = q_.data() + first * row,
                    .out = out.data(),
                    .n_tokens = n,
                    .n_heads = shape_.n_heads,
                    .n_kv_heads = shape_.n_kv_heads,
                    .head_dim = shape_.head_dim,
                    .own_start = shape_.own_start + first,
                    .scale = scale(),
                    .kv_dtype = shape_.kv_dtype,
                    .context = context,
                    .own = own,
                    .picked = picked,
                    .picked_begin = picked_begin,
                    .picks = picks,
                    .n_picks = shape_.n_picks,
                    .block_mass = block_mass});
    return out;
  }

  /// [n_tokens, n_heads, head_dim]
  std::vector<double> expected() const {
    std::vector<double> out;
    for (int t = 0; t < shape_.n_tokens; ++t) {
      for (int h = 0; h < shape_.n_heads; ++h) {
        const auto one = attend_one(t, h, nullptr).out;
        out.insert(out.end(), one.begin(), one.end());
      }
    }
    return out;
  }

  /// The last token's softmax by blocks: [n_kv_heads, n_context + n_own + n_picks].
  std::vector<double> expected_mass() const {
    const int row = shape_.n_context + n_own_ + shape_.n_picks;
    std::vector<double> mass(static_cast<size_t>(shape_.n_kv_heads * row), 0.0);
    const int group = shape_.n_heads / shape_.n_kv_heads;
    for (int h = 0; h < shape_.n_heads; ++h) {
      std::vector<int> block_of;
      const auto one = attend_one(shape_.n_tokens - 1, h, &block_of);
      for (size_t j = 0; j < block_of.size(); ++j) {
        mass[static_cast<size_t>(h / group * row + block_of[j])] += one.weights[j] / group;
      }
    }
    return mass;
  }

 private:
  int n_blocks() const { return shape_.n_context + n_own_ + shape_.n_pool; }
  const size_t* picks_of(int kv_head, int token) const {
    return picks_.data() + (kv_head * shape_.n_tokens + token) * shape_.n_picks;
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  reference::AttentionResult attend_one(int token, int head, std::vector<int>* block_of) const {
    const int group = shape_.n_heads / shape_.n_kv_heads;
    const size_t at = static_cast<size_t>((token * shape_.n_heads + head) * shape_.head_dim);
    return reference::attention({q_.data() + at, static_cast<size_t>(shape_.head_dim)},
                                visible(token, head / group, block_of), scale());
  }

  reference::VisibleKeys visible(int token, int kv_head, std::vector<int>* block_of) const {
    reference::VisibleKeys keys;
    const int n_first = shape_.n_context + n_own_;
    for (int i = 0; i < n_first + shape_.n_picks; ++i) {
      const int b = i < n_first ? i : n_first + static_cast<int>(picks_of(kv_head, token)[i - n_first]);
      const int begin = (b - shape_.n_context) * kBlockTokens;
      int n = n_in_block_[static_cast<size_t>(b)];
      if (b >= shape_.n_context && b < n_first) n = std::min(n, shape_.own_start + token + 1 - begin);
      for (int j = 0; j < n; ++j) {
        const int extent = kv_head * n_blocks() + b;
        for (int d = 0; d < shape_.head_dim; ++d) {
          keys.k.push_back(kv_.value(extent, j, d));
          keys.v.push_back(kv_.value(extent, kBlockTokens + j, d));
        }
        keys.bias.push_back(bias_[static_cast<size_t>(extent * kBlockTokens + j)]);
        if (block_of != nullptr) block_of->push_back(i);
      }
    }
    return keys;
  }

  AttentionShape shape_;
  int n_own_;
  KvMemory kv_;
  std::vector<float> q_;
  std::vector<float> bias_;  // [n_kv_heads, n_blocks, kBlockTokens]
  std::vector<int> n_in_block_;
  std::vector<size_t> picks_;  // [n_kv_heads, n_tokens, n_picks]
};

}  // namespace nosa::test
