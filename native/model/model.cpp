#include "model/model.h"

#include <utility>

#include "backends/cpu/cpu_backend.h"
#include "kv/memory_plan.h"
#include "model/fingerprint.h"

namespace nosa {

Result<std::unique_ptr<Adapter>> Model::open_adapter(const ModelOptions& options, const Model& model) {
  if (EvictionScores::present_in(*model.weights_)) {
    return Status::invalid_argument(options.path +
                                    " is a NOSA model by itself; it takes no adapter.");
  }
  if (options.base_sha256.empty()) {
    return Status::invalid_argument(
        "An adapter needs the SHA-256 of the model file that it is used with.");
  }
  return Adapter::open(options.adapter, options.base_sha256, model.config_, model.kv_shape_);
}

Result<std::unique_ptr<Model>> Model::open(const ModelOptions& options) {
  std::unique_ptr<Model> model(new Model());
  Result<std::unique_ptr<Weights>> weights = Weights::open(options.path);
  if (!weights.ok()) return weights.status();
  model->weights_ = *std::move(weights);

  Result<ModelConfig> config = read_model_config(*model->weights_);
  if (!config.ok()) return config.status();
  model->config_ = *std::move(config);

  const bool exact = options.precision == Precision::kF32;
  model->kv_shape_.n_layers = model->config_.n_layers;
  model->kv_shape_.n_kv_heads = model->config_.n_kv_heads;
  model->kv_shape_.head_dim = model->config_.head_dim;
  model->kv_shape_.dtype = exact ? DType::kF32 : DType::kF16;

  if (!options.adapter.empty()) {
    Result<std::unique_ptr<Adapter>> adapter = open_adapter(options, *model);
    if (!adapter.ok()) return adapter.status();
    model->adapter_ = *std::move(adapter);
  }

  cpu::CpuBackend::Options backend_options;
  backend_options.n_threads = options.n_threads;
  backend_options.kernels = options.kernels;
  backend_options.exact = exact;
  Result<std::unique_ptr<cpu::CpuBackend>> backend = cpu::CpuBackend::create(backend_options);
  if (!backend.ok()) return backend.status();
  model->backend_ = *std::move(backend);

  Result<std::unique_ptr<Llama>> llama =
      Llama::create(*model->weights_, model->adapter_.get(), model->config_, model->kv_shape_,
                    *model->backend_);
  if (!llama.ok()) return llama.status();
  model->llama_ = *std::move(llama);
  model->fingerprint_ = model_fingerprint(*model->weights_, model->adapter_.get(), model->config_,
                                          model->kv_shape_);
  return model;
}

double Model::side_car_bytes_per_token() const {
  constexpr int64_t n_tokens = 1 << 20;  // Enough for windows that are not complete not to matter.
  return double(side_car_bytes(kv_shape_, n_tokens, true)) / double(n_tokens);
}

}  // namespace nosa
