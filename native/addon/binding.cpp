// The export table of SEAM 3 (engine/native/addon.ts).
#include <napi.h>

#include <array>
#include <utility>

#include "addon/addon_data.h"
#include "addon/gguf_metadata.h"
#include "addon/gpu_probe.h"
#include "addon/grammar_object.h"
#include "addon/model_object.h"
#include "addon/sequence_object.h"
#include "backends/cpu/cpuid.h"

namespace nosa::addon {
namespace {

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  static constexpr std::array<std::pair<cpu::KernelChoice, const char*>, 4> choices = {
      {{cpu::KernelChoice::kGeneric, "generic"},
       {cpu::KernelChoice::kAvx2, "avx2"},
       {cpu::KernelChoice::kAvx512, "avx512"},
       {cpu::KernelChoice::kNeon, "neon"}}};
  const Napi::Env env = info.Env();
  const cpu::CpuFacts facts = cpu::cpu_facts();
  Napi::Array features = Napi::Array::New(env, facts.features.size());
  for (uint32_t i = 0; i < facts.features.size(); ++i) features.Set(i, facts.features[i]);
  Napi::Array kernels = Napi::Array::New(env);
  kernels.Set(0u, "auto");
  for (const auto& [choice, name] : choices) {
    if (cpu::choose_ops(choice).ok()) kernels.Set(kernels.Length(), name);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("brand", facts.brand);
  result.Set("features", features);
  result.Set("kernels", kernels);
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* addon = new AddonData(env);
  env.SetInstanceData(addon);  // Deletes it with the environment.
  addon->model_class = Napi::Persistent(ModelObject::define(env));
  addon->sequence_class = Napi::Persistent(SequenceObject::define(env));
  addon->grammar_class = Napi::Persistent(GrammarObject::define(env));
  exports.Set("version", NOSA_VERSION);
  exports.Set("cpu", Napi::Function::New<cpu_info>(env, "cpu"));
  exports.Set("ggufMetadata", Napi::Function::New<gguf_metadata>(env, "ggufMetadata"));
  exports.Set("probeGpu", Napi::Function::New<probe_gpu>(env, "probeGpu"));
  exports.Set("openModel", Napi::Function::New<ModelObject::open>(env, "openModel"));
  return exports;
}

}  // namespace
}  // namespace nosa::addon

static Napi::Object init_nosa(Napi::Env env, Napi::Object exports) {
  return nosa::addon::init(env, exports);
}

NODE_API_MODULE(nosa, init_nosa)
