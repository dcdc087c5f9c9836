#include "backends/cuda/cuda_backend.h"

#include <utility>

namespace nosa {
namespace {

constexpr size_t error_bytes = 512;

}  // namespace

Result<std::unique_ptr<CudaBackend>> CudaBackend::create(const std::string& library_path,
                                                         std::span<const WeightView> weights,
                                                         std::unique_ptr<cpu::CpuBackend>& cpu) {
  Result<std::unique_ptr<CudaLibrary>> library = CudaLibrary::open(library_path);
  if (!library.ok()) return library.status();
  std::unique_ptr<CudaBackend> backend(new CudaBackend(*std::move(library)));
  const NosaCudaProbe probe = backend->library_->probe();
  if (probe.usable == 0) return Status::unsupported(probe.reason);

  char error[error_bytes] = {};
  const CudaLibrary::Functions& f = backend->library_->functions();
  backend->products_ = f.products_open(error, error_bytes);
  if (backend->products_ == nullptr) return Status::out_of_memory(error);
  size_t needed_bytes = 0;
  for (const WeightView& weight : weights) needed_bytes += size_t(weight.size_bytes());
  if (needed_bytes + needed_bytes / 8 > probe.free_bytes) {
    return Status::out_of_memory("The model's weights need " + std::to_string(needed_bytes >> 20) + " MiB, and the GPU has " +
                                 std::to_string(probe.free_bytes >> 20) + " MiB left.");
  }
  for (const WeightView& weight : weights) {
    const int32_t number = f.products_add(backend->products_, weight.data, int32_t(weight.dtype), weight.rows, weight.cols,
                                          error, error_bytes);
    if (number >= 0) backend->uploaded_.emplace(weight.data, Uploaded{weight, number});
  }
  if (backend->uploaded_.empty()) return Status::unsupported(std::string("The GPU takes none of the weights: ") + error);
  backend->cpu_ = std::move(cpu);
  backend->name_ = std::string(probe.gpu) + " + " + std::string(backend->cpu_->name());
  return backend;
}

CudaBackend::~CudaBackend() {
  if (products_ != nullptr) library_->functions().products_close(products_);
}

const CudaBackend::Uploaded* CudaBackend::find(const WeightView& weight) const {
  const auto after = uploaded_.upper_bound(weight.data);
  if (after == uploaded_.begin()) return nullptr;
  const Uploaded& found = std::prev(after)->second;
  const bool inside = weight.data + weight.size_bytes() <= found.weight.data + found.weight.size_bytes();
  return inside && weight.dtype == found.weight.dtype && weight.cols == found.weight.cols ? &found : nullptr;
}

void CudaBackend::give_up(const char* why) {
  library_->functions().products_close(products_);
  products_ = nullptr;
  name_ = std::string(cpu_->name()) + " (the GPU failed: " + why + ")";
}

void CudaBackend::matmul(std::span<const MatmulTarget> targets, const float* x, int n_tokens) {
  on_device_.clear();
  for (const MatmulTarget& target : targets) {
    const Uploaded* found = products_ == nullptr ? nullptr : find(*target.weight);
    if (found == nullptr) return cpu_->matmul(targets, x, n_tokens);
    const int64_t row_begin = (target.weight->data - found->weight.data) / found->weight.row_bytes();
    on_device_.push_back({found->number, int32_t(row_begin), int32_t(target.weight->rows), target.bias, target.out});
  }
  char error[error_bytes] = {};
  const int32_t done = library_->functions().products_run(products_, on_device_.data(), int32_t(on_device_.size()), x, n_tokens,
                                                          error, error_bytes);
  if (done == 0) {
    give_up(error);
    return cpu_->matmul(targets, x, n_tokens);
  }
  cpu_->add_low_rank(targets, x, n_tokens);
}

}  // namespace nosa
