#include "cuda/library.h"

#include <type_traits>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace nosa {
namespace {

#ifdef _WIN32
void* load(const std::string& path, std::string& why) {
  HMODULE handle = LoadLibraryA(path.c_str());
  if (handle == nullptr) why = "error " + std::to_string(GetLastError());
  return reinterpret_cast<void*>(handle);
}
void unload(void* handle) { FreeLibrary(reinterpret_cast<HMODULE>(handle)); }
void* find(void* handle, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(handle), name));
}
#else
void* load(const std::string& path, std::string& why) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) why = dlerror();
  return handle;
}
void unload(void* handle) { dlclose(handle); }
void* find(void* handle, const char* name) { return dlsym(handle, name); }
#endif

}  // namespace

Result<std::unique_ptr<CudaLibrary>> CudaLibrary::open(const std::string& path) {
  std::unique_ptr<CudaLibrary> library(new CudaLibrary());
  std::string why;
  library->handle_ = load(path, why);
  if (library->handle_ == nullptr) return Status::not_found("The CUDA part cannot be loaded: " + why + ".");
  Functions& f = library->functions_;
  const auto get = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(find(library->handle_, name));
    return function != nullptr;
  };
  decltype(&nosa_cuda_runner_functions) runner_functions = nullptr;
  if (!get(f.probe, "nosa_cuda_probe") || !get(f.products_open, "nosa_cuda_products_open") ||
      !get(f.products_close, "nosa_cuda_products_close") || !get(f.products_add, "nosa_cuda_products_add") ||
      !get(f.products_run, "nosa_cuda_products_run") || !get(runner_functions, "nosa_cuda_runner_functions")) {
    return Status::unsupported(path + " is not the CUDA part of this version.");
  }
  f.runner = runner_functions();
  return library;
}

CudaLibrary::~CudaLibrary() {
  if (handle_ != nullptr) unload(handle_);
}

NosaCudaProbe CudaLibrary::probe() const {
  NosaCudaProbe probe = {};
  functions_.probe(&probe);
  return probe;
}

}  // namespace nosa
