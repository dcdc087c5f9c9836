#pragma once

#include <string>

#include "formats/weights.h"
#include "kv/block.h"
#include "model/adapter.h"
#include "model/config.h"

namespace nosa {

/// 128 bits in hex that change when the weights, the adapter, the KV type, RoPE or the KV layout do:
/// part of the key under which KV is reused.
///
/// Of the weights it looks at the table of tensors and at the first and last 4 KiB of each, so that
/// opening a model does not read all of it; of the adapter (or null) at everything.
std::string model_fingerprint(const Weights& weights, const Adapter* adapter,
                              const ModelConfig& config, const KvShape& kv_shape);

}  // namespace nosa
