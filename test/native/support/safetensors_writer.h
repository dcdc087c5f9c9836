#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/bytes.h"

namespace nosa::test {

/// Builds the bytes of a safetensors file in memory, tensors in the order they were added.
class SafetensorsWriter {
 public:
  /// `shape` outermost first; `type` as in the file ("BF16"); `data` is stored as it is.
  SafetensorsWriter& add(std::string_view name, std::string_view type,
                         const std::vector<int64_t>& shape, const Bytes& data);

  /// REQUIRES: texts that need no escapes.
  SafetensorsWriter& set_metadata(const std::map<std::string, std::string>& metadata);

  /// The header is padded with blanks to a multiple of `header_alignment` bytes.
  Bytes finish(size_t header_alignment = 8) const;

 private:
  std::string header_;
  Bytes data_;
};

/// A safetensors file of this header text and these data.
Bytes safetensors_file(std::string_view header, const Bytes& data);

}  // namespace nosa::test
