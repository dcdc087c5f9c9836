#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/cpu_backend.h"
#include "core/status.h"
#include "cuda/library.h"

namespace nosa {

/// Matrix products on the GPU, everything else on the processor's cores: keys and values stay in host memory, where the
/// block store has them.
///
/// Weights of a type or width that the GPU does not read are multiplied on the cores. When a product fails on the GPU, the
/// cores take over for good, and name() says so.
class CudaBackend final : public Backend {
 public:
  /// Loads `library_path` and uploads `weights`, which must outlive the backend; takes `cpu` when it succeeds. Fails as
  /// CudaLibrary::open() does, with kUnsupported when the GPU cannot be used, with kOutOfMemory when the weights do not fit.
  static Result<std::unique_ptr<CudaBackend>> create(const std::string& library_path, std::span<const WeightView> weights,
                                                     std::unique_ptr<cpu::CpuBackend>& cpu);
  ~CudaBackend() override;

  std::string_view name() const override { return name_; }
  void embed(const WeightView& table, std::span<const uint32_t> ids, float* out) override { cpu_->embed(table, ids, out); }
  void rms_norm(const float* x, const float* weight, int n_tokens, int n_embd, float eps, float* out) override {
    cpu_->rms_norm(x, weight, n_tokens, n_embd, eps, out);
  }
  void matmul(std::span<const MatmulTarget> targets, const float* x, int n_tokens) override;
  void rope(const RopeArgs& args) override { cpu_->rope(args); }
  void store_kv(const StoreKvArgs& args) override { cpu_->store_kv(args); }
  void attend(const AttentionArgs& args) override { cpu_->attend(args); }
  void score_blocks(const BlockScoresArgs& args) override { cpu_->score_blocks(args); }
  int n_workers() const override { return cpu_->n_workers(); }
  void silu_mul(float* gate, const float* up, int64_t n) override { cpu_->silu_mul(gate, up, n); }
  void add(float* x, const float* y, int64_t n) override { cpu_->add(x, y, n); }

 private:
  struct Uploaded {
    WeightView weight;
    int number;
  };

  explicit CudaBackend(std::unique_ptr<CudaLibrary> library) : library_(std::move(library)) {}

  /// The uploaded weight that `weight` is, or whose rows it is; null when there is none.
  const Uploaded* find(const WeightView& weight) const;
  void give_up(const char* why);

  std::unique_ptr<CudaLibrary> library_;
  std::unique_ptr<cpu::CpuBackend> cpu_;
  NosaCudaProducts* products_ = nullptr;  // Null once given up.
  std::map<const std::byte*, Uploaded> uploaded_;  // By where the weight begins.
  std::vector<NosaCudaTarget> on_device_;
  std::string name_;
};

}  // namespace nosa
