#include "addon/gpu_probe.h"

#include <string>

#include "addon/errors.h"
#include "cuda/library.h"

namespace nosa::addon {

Napi::Value probe_gpu(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) {
    make_error(env, Status::invalid_argument("The path must be a text.")).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  Napi::Object result = Napi::Object::New(env);
  const auto give = [&](const std::string& reason) {
    result.Set("usable", reason.empty());
    result.Set("reason", reason);
    return result;
  };
  const auto library = CudaLibrary::open(info[0].As<Napi::String>().Utf8Value());
  if (!library.ok()) return give(library.status().message());
  const NosaCudaProbe probe = (*library)->probe();
  if (probe.abi != NOSA_CUDA_ABI) return give("The CUDA part is of another version.");
  result.Set("gpu", probe.gpu);
  result.Set("freeBytes", double(probe.free_bytes));
  result.Set("totalBytes", double(probe.total_bytes));
  if (probe.usable == 0 && probe.reason[0] == '\0') return give("The GPU cannot be used.");
  return give(probe.usable != 0 ? "" : probe.reason);
}

}  // namespace nosa::addon
