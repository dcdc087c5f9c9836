#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backends/backend.h"
#include "backends/cpu/cpuid.h"
#include "core/status.h"
#include "formats/weights.h"
#include "kv/block.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/device_network.h"
#include "model/llama.h"

namespace nosa {

enum class Precision {
  kFast,  ///< Quantised activations, KV in f16.
  kF32,   ///< Neither, for checking numbers.
};

/// Where the ranking of blocks comes from that no query changes.
enum class SelectionSource {
  kNative,        ///< Eviction heads in the checkpoint.
  kAdapter,       ///< Those of an adapter made for it.
  kTrainingFree,  ///< Keys alone.
};

struct ModelOptions {
  std::string path;  ///< A GGUF file, or a folder with config.json and safetensors.
  int n_threads = 1;
  Precision precision = Precision::kFast;
  cpu::KernelChoice kernels = cpu::KernelChoice::kBest;
  std::string adapter{};  ///< A NOSA adapter for this model, or empty.
  /// The CUDA part, or empty: then, and whenever the GPU cannot be used, the processor's cores do everything. Not
  /// looked at with Precision::kF32.
  std::string cuda_library{};
  /// SHA-256 of the model file, lower-case hex: an adapter belongs to one model. Hashing half a
  /// gigabyte at every start would be slow, and who downloads models knows it. Needed with an adapter.
  std::string base_sha256{};
  bool gpu_keeps_choices = false;  ///< For tests, see DeviceNetwork::create().
};

/// A loaded model: its weights, the backend that computes with them, and its network. It keeps no
/// state of a sequence.
class Model {
 public:
  /// Fails as Weights::open(), read_model_config(), Adapter::open(), Llama::create() and the backend
  /// do; with kInvalidArgument when an adapter comes without `base_sha256`, or for a model that has
  /// eviction heads of its own.
  static Result<std::unique_ptr<Model>> open(const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  const KvShape& kv_shape() const { return kv_shape_; }
  const std::string& fingerprint() const { return fingerprint_; }
  /// What computes.
  std::string device() const { return std::string(gpu() != nullptr ? device_network_->name() : backend_->name()); }

  /// Why the GPU is not used, or not any more, although its library was given; empty when it is, or was not.
  const std::string& gpu_problem() const {
    return device_network_ != nullptr && !device_network_->usable() ? device_network_->problem() : gpu_problem_;
  }

  /// The network on the GPU, or null: where there is none, and once it has failed.
  DeviceNetwork* gpu() const {
    return device_network_ != nullptr && device_network_->usable() ? device_network_.get() : nullptr;
  }

  /// What there is to hold copies of sequences, whether it still can or not; or null.
  DeviceNetwork* device_network() const { return device_network_.get(); }

  SelectionSource selection_source() const {
    if (adapter_ != nullptr) return SelectionSource::kAdapter;
    return llama_->adds_scores() ? SelectionSource::kNative : SelectionSource::kTrainingFree;
  }

  /// What the model expects a completion's prompt to show first.
  CompletionOrder completion_order() const {
    return adapter_ != nullptr ? adapter_->completion_order() : CompletionOrder::kPrefixFirst;
  }

  /// What selection keeps in memory for each token, wherever its KV is.
  double side_car_bytes_per_token() const;

  int64_t weight_bytes() const { return weights_->size_bytes(); }
  Llama& network() { return *llama_; }

 private:
  Model() = default;
  static Result<std::unique_ptr<Adapter>> open_adapter(const ModelOptions& options,
                                                       const Model& model);

  Status open_backend(const ModelOptions& options);
  void open_device(const ModelOptions& options);

  // In the order of their lives: the network borrows from the backend, the weights and the adapter.
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<Backend> backend_;
  std::string gpu_problem_;
  ModelConfig config_;
  KvShape kv_shape_;
  std::string fingerprint_;
  std::unique_ptr<Llama> llama_;
  std::unique_ptr<DeviceNetwork> device_network_;
};

}  // namespace nosa
