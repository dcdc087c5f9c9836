#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/status.h"
#include "core/thread_pool.h"
#include "cuda/model_source.h"
#include "formats/weights.h"
#include "model/adapter.h"
#include "model/config.h"

namespace nosa {

/// A model's weights as the GPU's runner takes them. Matrices stay where they are in `weights`; vectors are expanded here.
///
/// An adapter's low-rank updates are added to the matrices, which then are 16-bit floats: a product of its own for each
/// would cost a step two launches more, at batch 1 as much as all the bytes that this takes.
class DeviceSource {
 public:
  /// `weights` and `adapter`, or null for none, must outlive the result; `n_threads` add the updates. Fails as
  /// Llama::create() does, or as ThreadPool::create().
  static Result<std::unique_ptr<DeviceSource>> create(const Weights& weights, const ModelConfig& config,
                                                      const Adapter* adapter = nullptr, int n_threads = 1);

  const cuda::ModelSource& source() const { return source_; }

 private:
  DeviceSource() = default;
  Status load(const Weights& weights, const ModelConfig& config, const Adapter* adapter);
  Status load_heads(const Weights& weights, int layer, const ModelConfig& config);
  void update(int layer, const Adapter& adapter, ThreadPool& pool);
  void add(cuda::LinearSource& linear, const LowRankUpdate* update, ThreadPool& pool);
  Result<const float*> vector(const Weights& weights, const std::string& name, int rows, int cols);
  Result<cuda::LinearSource> linear(const Weights& weights, const std::string& stem, int n_rows, int n_cols);

  cuda::ModelSource source_;
  std::deque<std::vector<float>> vectors_;  // Never moved: the source points into them.
  std::deque<std::vector<uint16_t>> updated_;  // Likewise.
};

}  // namespace nosa
