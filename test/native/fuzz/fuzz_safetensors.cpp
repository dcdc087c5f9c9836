// Any bytes: parse_safetensors must fail with a sentence or give entries that tile the data part.

#include "core/check.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto entries = nosa::parse_safetensors(bytes, "fuzz.safetensors");
  if (entries.ok()) {
    uint64_t n_bytes = 0;
    for (const nosa::SafetensorsEntry& entry : *entries) {
      CHECK(entry.offset <= size && entry.n_bytes <= size - entry.offset);
      n_bytes += entry.n_bytes;
    }
    CHECK(n_bytes <= size);
  } else {
    CHECK(!entries.status().message().empty());
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto shards = nosa::parse_safetensors_index(text, "fuzz.index.json");
  if (!shards.ok()) return 0;
  for (const nosa::SafetensorsShard& shard : *shards) {
    CHECK(shard.file_name.find('/') == std::string::npos && shard.file_name != "..");
  }
  return 0;
}
