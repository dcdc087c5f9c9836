#pragma once

#include <napi.h>

namespace nosa::addon {

/// probeGpu(path): what the CUDA part in the file `path` finds. Synchronous, and may end the process when a driver is
/// broken; see engine/native/addon.ts.
Napi::Value probe_gpu(const Napi::CallbackInfo& info);

}  // namespace nosa::addon
