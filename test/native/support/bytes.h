#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace nosa::test {

using Bytes = std::vector<std::byte>;

inline void append_text(std::string_view text, Bytes* out) {
  const size_t at = out->size();
  out->resize(at + text.size());
  if (!text.empty()) std::memcpy(out->data() + at, text.data(), text.size());
}

/// Appends the bytes of a plain value as they lie in memory (little endian).
template <typename T>
void append(const T& value, Bytes* out) {
  append_text({reinterpret_cast<const char*>(&value), sizeof(T)}, out);
}

inline Bytes bytes_of(std::string_view text) {
  Bytes out;
  append_text(text, &out);
  return out;
}

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace nosa::test
