// Any bytes: parse_gguf must fail with a sentence or give a header that can be walked.

#include "core/check.h"
#include "formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto gguf = nosa::parse_gguf(bytes, "fuzz.gguf");
  if (!gguf.ok()) {
    CHECK(!gguf.status().message().empty());
    return 0;
  }
  uint64_t n_bytes = 0;
  for (const nosa::GgufTensor& tensor : gguf->tensors) {
    CHECK(tensor.offset <= size && tensor.n_bytes <= size - tensor.offset);
    for (uint64_t i = 0; i < tensor.n_bytes; ++i) n_bytes += data[tensor.offset + i] >= 0;
  }
  CHECK(n_bytes <= size);  // Tensors do not overlap.
  for (const auto& [key, value] : gguf->metadata) {
    CHECK(gguf->find(key) != nullptr);
    const auto* list = std::get_if<nosa::GgufArray>(&value);
    if (list == nullptr) continue;
    uint64_t n_text_bytes = 0;
    list->for_each([&](const nosa::GgufScalar& scalar) {
      const auto* text = std::get_if<std::string_view>(&scalar);
      if (text == nullptr) return;
      for (const char c : *text) n_text_bytes += c != '\0';
    });
    CHECK(n_text_bytes <= size);
  }
  return 0;
}
