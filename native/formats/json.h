#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/status.h"

namespace nosa {

/// One JSON value, immutable once parsed.
class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Member = std::pair<std::string, JsonValue>;
  using Object = std::vector<Member>;  // In the order of the text.

  JsonValue() = default;
  explicit JsonValue(bool value) : value_(value) {}
  explicit JsonValue(int64_t value) : value_(value) {}
  explicit JsonValue(double value) : value_(value) {}
  explicit JsonValue(std::string value) : value_(std::move(value)) {}
  explicit JsonValue(Array value) : value_(std::move(value)) {}
  explicit JsonValue(Object value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }

  // The value as one kind, or nothing when it is of another.

  std::optional<bool> boolean() const { return get<bool>(); }
  /// A number without fraction or exponent that fits 64 bits.
  std::optional<int64_t> integer() const { return get<int64_t>(); }
  /// Any number.
  std::optional<double> number() const;
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  /// The member `key` of an object, or null. Looks at every member: for small objects.
  const JsonValue* find(std::string_view key) const;

 private:
  template <typename T>
  std::optional<T> get() const {
    const T* held = std::get_if<T>(&value_);
    return held == nullptr ? std::nullopt : std::optional<T>(*held);
  }

  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_;
};

/// What a reader accepts at most. Beyond it the text is refused, so that no file can exhaust the
/// stack or the memory.
struct JsonLimits {
  size_t bytes_max = 100u << 20;
  size_t values_max = 1u << 21;  ///< Values of all kinds and depths together.
  int depth_max = 64;
};

/// Reads one JSON text (RFC 8259) and nothing after it. Strict: UTF-8 is checked, an object names
/// each key once, and a number must fit a double. Fails with kCorrupt, naming the byte ("byte 12: a
/// comma or ] is missing"), or kUnsupported when a limit is exceeded.
Result<JsonValue> parse_json(std::string_view text, const JsonLimits& limits = {});

}  // namespace nosa
