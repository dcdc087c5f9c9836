#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/mapped_file.h"
#include "core/rope_pairing.h"
#include "core/status.h"
#include "core/tensor_view.h"
#include "formats/gguf.h"
#include "formats/json.h"
#include "formats/weights.h"

namespace nosa {

/// What Weights holds, however it was read. Inside formats/ only.
struct WeightsSource {
  WeightsKind kind = WeightsKind::kGguf;
  std::string path;
  std::string architecture;
  RopePairing rope_pairing = RopePairing::kHalfSplit;
  std::vector<MappedFile> files;                           // What the views point into,
  std::vector<AlignedBuffer> copies;                       // or copies of what was misaligned.
  std::map<std::string, WeightView, std::less<>> tensors;  // By canonical name.
  std::variant<Gguf, JsonValue> metadata;  // Of kGguf; config.json of kFolder, __metadata__ of kTensors.

  /// Adds a tensor [rows, cols] that lies at `data` in one of the files, copied when it is not
  /// aligned for its elements there. kCorrupt when the name is taken.
  Status add(std::string name, const WeightView& view);
};

/// Opens a GGUF file.
Result<std::unique_ptr<WeightsSource>> open_gguf_weights(const std::string& path);

/// Opens a folder with config.json and safetensors.
Result<std::unique_ptr<WeightsSource>> open_folder_weights(const std::string& path);

/// Opens a safetensors file by itself.
Result<std::unique_ptr<WeightsSource>> open_tensors_file(const std::string& path);

/// "model.gguf" of "/some/where/model.gguf": messages name files without their folders.
std::string_view file_name_of(std::string_view path);

}  // namespace nosa
