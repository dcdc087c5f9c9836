#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"

namespace nosa {

/// What every token writes, for those who judge a token by its bytes. Immutable.
class Vocabulary {
 public:
  /// Token `id` writes bytes[offsets[id] .. offsets[id + 1]); control tokens write nothing.
  /// Fails with kInvalidArgument unless the offsets rise from 0 to the number of bytes.
  static Result<Vocabulary> create(std::string bytes, std::vector<uint32_t> offsets);

  size_t size() const { return offsets_.size() - 1; }

  /// Empty for control tokens and for ids out of range.
  std::string_view bytes(uint32_t id) const {
    if (id >= size()) return {};
    return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }

  /// The token that writes this byte and nothing else, the lowest if there are several.
  std::optional<uint32_t> byte_token(uint8_t byte) const { return byte_tokens_[byte]; }

 private:
  Vocabulary(std::string bytes, std::vector<uint32_t> offsets);

  std::string bytes_;
  std::vector<uint32_t> offsets_;  // One more than there are tokens.
  std::array<std::optional<uint32_t>, 256> byte_tokens_ = {};
};

}  // namespace nosa
