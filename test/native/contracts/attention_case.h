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
  DType kv_dtype = DType::kF16;
  float bias_deviation = 0.0f;  // 0: no bias at all
  float key_offset = 0.0f;      // a constant part of all keys, as attention biases give

  std::string describe() const {
    return "n_tokens " + std::to_string(n_tokens) + " heads " + std::to_string(n_heads) + "/" +
           std::to_string(n_kv_heads) + " x " + std::to_string(head_dim) + " context " +
           std::to_string(n_context) + " own_start " + std::to_string(own_start) + " " +
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
        kv_(shape.kv_dtype, shape.head_dim, shape.n_kv_heads * (shape.n_context + n_own_)),
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

  /// The last token's softmax by blocks: [n_kv_heads, n_context + n_own].
  std::vector<double> expected_mass() const {
    std::vector<double> mass(static_cast<size_t>(shape_.n_kv_heads * n_blocks()), 0.0);
    const int group = shape_.n_heads / shape_.n_kv_heads;
    for (int h = 0; h < shape_.n_heads; ++h) {
      std::vector<int> block_of;
      const auto one = attend_one(shape_.n_tokens - 1, h, &block_of);
      for (size_t j = 0; j < block_of.size(); ++j) {
        mass[static_cast<size_t>(h / group * n_blocks() + block_of[j])] += one.weights[j] / group;
      }
    }
    return mass;
  }

 private:
  int n_blocks() const { return shape_.n_context + n_own_; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  reference::AttentionResult attend_one(int token, int head, std::vector<int>* block_of) const {
    const int group = shape_.n_heads / shape_.n_kv_heads;
    const size_t at = static_cast<size_t>((token * shape_.n_heads + head) * shape_.head_dim);
    return reference::attention({q_.data() + at, static_cast<size_t>(shape_.head_dim)},
                                visible(token, head / group, block_of), scale());
  }

  reference::VisibleKeys visible(int token, int kv_head, std::vector<int>* block_of) const {
    reference::VisibleKeys keys;
    for (int b = 0; b < n_blocks(); ++b) {
      const int begin = (b - shape_.n_context) * kBlockTokens;
      int n = n_in_block_[static_cast<size_t>(b)];
      if (b >= shape_.n_context) n = std::min(n, shape_.own_start + token + 1 - begin);
      for (int j = 0; j < n; ++j) {
        const int extent = kv_head * n_blocks() + b;
        for (int d = 0; d < shape_.head_dim; ++d) {
          keys.k.push_back(kv_.value(extent, j, d));
          keys.v.push_back(kv_.value(extent, kBlockTokens + j, d));
        }
        keys.bias.push_back(bias_[static_cast<size_t>(extent * kBlockTokens + j)]);
        if (block_of != nullptr) block_of->push_back(b);
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
};

}  // namespace nosa::test
