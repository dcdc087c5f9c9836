// Any text: parse_json must fail naming a byte, or give a value that can be walked to its limits.

#include "core/check.h"
#include "formats/json.h"

namespace {

size_t count_values(const nosa::JsonValue& value, int depth) {
  CHECK(depth <= nosa::JsonLimits{}.depth_max);
  size_t n = 1;
  if (const auto* items = value.array()) {
    for (const nosa::JsonValue& item : *items) n += count_values(item, depth + 1);
  }
  if (const auto* members = value.object()) {
    for (const auto& [key, member] : *members) {
      CHECK(value.find(key) == &member);  // Each key once.
      n += count_values(member, depth + 1);
    }
  }
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto value = nosa::parse_json(text);
  if (value.ok()) {
    CHECK(count_values(*value, 0) <= size);
  } else {
    CHECK(!value.status().message().empty());
  }
  return 0;
}
