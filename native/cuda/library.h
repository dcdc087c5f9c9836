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

  /// Looks at the GPU and tries it. A broken driver may end the process.
  NosaCudaProbe probe() const;

 private:
  CudaLibrary() = default;

  void* handle_ = nullptr;
  void (*probe_)(NosaCudaProbe*) = nullptr;
};

}  // namespace nosa
