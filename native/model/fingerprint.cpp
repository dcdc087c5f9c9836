#include "model/fingerprint.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "kv/xxh64.h"
#include "model/rope.h"

namespace nosa {
namespace {

// Raise when the bytes of a KV block, or what they depend on, change meaning.
constexpr uint32_t layout_version = 1;
constexpr size_t sample_bytes = 4096;

class Digest {
 public:
  void add(std::span<const std::byte> bytes) {
    // The length keeps "ab" + "c" and "a" + "bc" apart.
    low_ = xxh64(bytes, low_ ^ bytes.size());
    high_ = xxh64(bytes, high_ + 0x9E3779B97F4A7C15u * (bytes.size() + 1));
  }
  template <typename T>
  void add_value(const T& value) {
    add(std::as_bytes(std::span(&value, 1)));
  }
  void add_text(const std::string& text) { add(std::as_bytes(std::span(text))); }

  std::string hex() const {
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)high_,
                  (unsigned long long)low_);
    return text;
  }

 private:
  uint64_t low_ = 1;
  uint64_t high_ = 2;
};

// The table's entry of a tensor, and its first and last `n_bytes`.
void add_tensor(const std::string& name, const WeightView& view, size_t n_bytes, Digest& digest) {
  digest.add_text(name);
  digest.add_value(int32_t(view.dtype));
  digest.add_value(view.rows);
  digest.add_value(view.cols);
  const std::span<const std::byte> bytes(view.data, size_t(view.size_bytes()));
  const size_t n = std::min(n_bytes, bytes.size());
  digest.add(bytes.first(n));
  digest.add(bytes.last(n));
}

}  // namespace

std::string model_fingerprint(const Weights& weights, const Adapter* adapter,
                              const ModelConfig& config, const KvShape& kv_shape) {
  Digest digest;
  digest.add_value(layout_version);
  digest.add_value(int32_t(kv_shape.dtype));
  digest.add_value(kv_shape.n_layers);
  digest.add_value(kv_shape.n_kv_heads);
  digest.add_value(kv_shape.head_dim);
  digest.add_value(config.rms_eps);
  digest.add_value(int32_t(config.rope_pairing));
  digest.add_value(config.n_heads);
  // The table holds every kind of scaling, and is what keys are turned by.
  if (const Result<RopeTable> rope = make_rope_table(config.rope); rope.ok()) {
    digest.add(std::as_bytes(std::span(rope->inv_freq)));
    digest.add_value(rope->magnitude);
  }
  for (const auto& [name, view] : weights.tensors()) add_tensor(name, view, sample_bytes, digest);
  if (adapter != nullptr) {
    for (const auto& [name, view] : adapter->weights().tensors()) {
      add_tensor(name, view, size_t(view.size_bytes()), digest);
    }
    // What the updates are multiplied with.
    digest.add_text(adapter->weights().meta_string("rank").value());
    digest.add_text(adapter->weights().meta_string("alpha").value());
  }
  return digest.hex();
}

}  // namespace nosa
