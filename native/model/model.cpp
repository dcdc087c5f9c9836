#include "model/model.h"

#include <utility>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cuda/cuda_backend.h"
#include "kv/side_car.h"
#include "model/fingerprint.h"

namespace nosa {
namespace {

/// Tensors with fewer rows are norms, biases and eviction heads, not factors of a product.
constexpr int64_t matrix_rows_min = 16;

}  // namespace

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

  model->open_device(options);
  if (Status status = model->open_backend(options); !status.ok()) return status;

  Result<std::unique_ptr<Llama>> llama =
      Llama::create(*model->weights_, model->adapter_.get(), model->config_, model->kv_shape_,
                    *model->backend_);
  if (!llama.ok()) return llama.status();
  model->llama_ = *std::move(llama);
  model->fingerprint_ = model_fingerprint(*model->weights_, model->adapter_.get(), model->config_,
                                          model->kv_shape_);
  return model;
}

// The whole network on the GPU, if it was asked for and takes it.
void Model::open_device(const ModelOptions& options) {
  if (options.cuda_library.empty() || options.precision == Precision::kF32) return;
  Result<std::unique_ptr<DeviceNetwork>> device = DeviceNetwork::create(options.cuda_library, *weights_, adapter_.get(), config_,
                                                                        kv_shape_, options.n_threads, options.gpu_keeps_choices);
  if (device.ok()) {
    device_network_ = *std::move(device);
  } else {
    gpu_problem_ = device.status().message();
  }
}

// The cores; where the GPU does not take the whole network, it may still take products.
Status Model::open_backend(const ModelOptions& options) {
  const bool exact = options.precision == Precision::kF32;
  cpu::CpuBackend::Options backend_options;
  backend_options.n_threads = options.n_threads;
  backend_options.kernels = options.kernels;
  backend_options.exact = exact;
  Result<std::unique_ptr<cpu::CpuBackend>> opened = cpu::CpuBackend::create(backend_options);
  if (!opened.ok()) return opened.status();
  std::unique_ptr<cpu::CpuBackend> cpu = *std::move(opened);
  if (!options.cuda_library.empty() && !exact && device_network_ == nullptr) {
    std::vector<WeightView> matrices;
    for (const auto& [name, view] : weights_->tensors()) {
      if (view.rows >= matrix_rows_min) matrices.push_back(view);
    }
    Result<std::unique_ptr<CudaBackend>> gpu = CudaBackend::create(options.cuda_library, matrices, cpu);
    if (gpu.ok()) {
      backend_ = *std::move(gpu);
      gpu_problem_.clear();
      return {};
    }
    gpu_problem_ = gpu.status().message();
  }
  backend_ = std::move(cpu);
  return {};
}

double Model::side_car_bytes_per_token() const { return SideCar::bytes_per_token(kv_shape_); }

}  // namespace nosa
