#pragma once

#include <memory>
#include <string>

#include "core/status.h"
#include "cuda/api.h"

namespace nosa {

/// libnosa_cuda, loaded when the program runs: the package serves machines with and without a GPU.
class CudaLibrary {
 public:
  /// Fails with kNotFound when the file is not there or cannot be loaded, kUnsupported when it is another version's.
  static Result<std::unique_ptr<CudaLibrary>> open(const std::string& path);
  ~CudaLibrary();
  CudaLibrary(const CudaLibrary&) = delete;
  CudaLibrary& operator=(const CudaLibrary&) = delete;

  /// The functions of cuda/api.h.
  struct Functions {
    decltype(&nosa_cuda_probe) probe = nullptr;
    decltype(&nosa_cuda_products_open) products_open = nullptr;
    decltype(&nosa_cuda_products_close) products_close = nullptr;
    decltype(&nosa_cuda_products_add) products_add = nullptr;
    decltype(&nosa_cuda_products_run) products_run = nullptr;
    const NosaCudaRunnerFunctions* runner = nullptr;
  };
  const Functions& functions() const { return functions_; }

  /// Looks at the GPU and tries it. A broken driver may end the process.
  NosaCudaProbe probe() const;

 private:
  CudaLibrary() = default;

  void* handle_ = nullptr;
  Functions functions_;
};

}  // namespace nosa
