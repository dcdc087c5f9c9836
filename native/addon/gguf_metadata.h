#pragma once

#include <napi.h>

namespace nosa::addon {

/// SEAM 3's ggufMetadata(): scalars and arrays of a GGUF header. Throws for a file that is none.
Napi::Value gguf_metadata(const Napi::CallbackInfo& info);

}  // namespace nosa::addon
