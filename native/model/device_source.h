#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "core/status.h"
#include "cuda/model_source.h"
#include "formats/weights.h"
#include "model/config.h"

namespace nosa {

/// A model's weights as the GPU's runner takes them. Matrices stay where they are in `weights`; vectors are expanded here.
class DeviceSource {
 public:
  /// `weights` must outlive the result. Fails as Llama::create() does.
  static Result<std::unique_ptr<DeviceSource>> create(const Weights& weights, const ModelConfig& config);

  const cuda::ModelSource& source() const { return source_; }

 private:
  DeviceSource() = default;
  Status load(const Weights& weights, const ModelConfig& config);
  Result<const float*> vector(const Weights& weights, const std::string& name, int rows, int cols);
  Result<cuda::LinearSource> linear(const Weights& weights, const std::string& stem, int n_rows, int n_cols);

  cuda::ModelSource source_;
  std::deque<std::vector<float>> vectors_;  // Never moved: the source points into them.
};

}  // namespace nosa
