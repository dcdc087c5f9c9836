#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/status.h"
#include "formats/json.h"

namespace nosa {

struct SafetensorsEntry {
  std::string name;
  std::string file_type;       ///< As in the file: "BF16".
  std::optional<DType> dtype;  ///< Nothing for a type Nosa does not read (integers, F8, F64).
  std::vector<int64_t> shape;  ///< Outermost first, contiguous last.
  uint64_t offset = 0;         ///< From the start of the file.
  uint64_t n_bytes = 0;
};

/// Reads the header of a safetensors file. Entries come ordered by offset; they do not overlap, lie
/// within the file and together cover its data part, as the format demands.
///
/// `bytes` is the whole file; `file_name` is for messages. Fails with kCorrupt.
Result<std::vector<SafetensorsEntry>> parse_safetensors(std::span<const std::byte> bytes,
                                                        std::string_view file_name);

/// The object of texts under "__metadata__" in the header, empty when there is none. Fails as
/// parse_safetensors does, of which it is the other half.
Result<JsonValue> parse_safetensors_metadata(std::span<const std::byte> bytes,
                                             std::string_view file_name);

/// Which file of a sharded model holds which tensor.
struct SafetensorsShard {
  std::string tensor;
  std::string file_name;  ///< A plain name, within the folder of the index.
};

/// Reads model.safetensors.index.json. Fails with kCorrupt, also for a shard whose name would lead
/// out of the folder.
Result<std::vector<SafetensorsShard>> parse_safetensors_index(std::string_view text,
                                                              std::string_view file_name);

}  // namespace nosa
