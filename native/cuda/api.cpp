#include "cuda/api.h"

#include <cstdio>
#include <memory>
#include <vector>

#include "cuda/products.h"

#define NOSA_EXPORT __attribute__((visibility("default")))

struct NosaCudaProducts {
  std::unique_ptr<nosa::cuda::Products> products;
};

namespace {

void say(const nosa::Status& status, char* error, size_t error_bytes) {
  std::snprintf(error, error_bytes, "%s", status.message().c_str());
}

}  // namespace

extern "C" {

NOSA_EXPORT NosaCudaProducts* nosa_cuda_products_open(char* error, size_t error_bytes) {
  auto products = nosa::cuda::Products::create();
  if (!products.ok()) {
    say(products.status(), error, error_bytes);
    return nullptr;
  }
  return std::make_unique<NosaCudaProducts>(NosaCudaProducts{*std::move(products)}).release();
}

NOSA_EXPORT void nosa_cuda_products_close(NosaCudaProducts* products) {
  const std::unique_ptr<NosaCudaProducts> owned(products);
}

NOSA_EXPORT int32_t nosa_cuda_products_add(NosaCudaProducts* products, const void* data, int32_t dtype, int64_t rows,
                                           int64_t cols, char* error, size_t error_bytes) {
  const nosa::WeightView weight{static_cast<const std::byte*>(data), nosa::DType(dtype), rows, cols};
  const nosa::Result<int> number = products->products->add(weight);
  if (number.ok()) return *number;
  say(number.status(), error, error_bytes);
  return -1;
}

NOSA_EXPORT int32_t nosa_cuda_products_run(NosaCudaProducts* products, const NosaCudaTarget* targets, int32_t n_targets,
                                           const float* x, int32_t n_tokens, char* error, size_t error_bytes) {
  std::vector<nosa::cuda::Products::Target> list;
  for (int32_t i = 0; i < n_targets; ++i) {
    list.push_back({targets[i].weight, targets[i].row_begin, targets[i].n_rows, targets[i].bias, targets[i].out});
  }
  const nosa::Status status = products->products->run(list, x, n_tokens);
  if (status.ok()) return 1;
  say(status, error, error_bytes);
  return 0;
}

}  // extern "C"
