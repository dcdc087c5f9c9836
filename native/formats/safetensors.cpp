#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "formats/json.h"

namespace nosa {
namespace {

struct FileType {
  std::string_view name;
  uint64_t bits;
  std::optional<DType> dtype;
};

constexpr FileType file_types[] = {
    {"F32", 32, DType::kF32},     {"F16", 16, DType::kF16},     {"BF16", 16, DType::kBF16},
    {"F64", 64, std::nullopt},    {"I64", 64, std::nullopt},    {"U64", 64, std::nullopt},
    {"I32", 32, std::nullopt},    {"U32", 32, std::nullopt},    {"I16", 16, std::nullopt},
    {"U16", 16, std::nullopt},    {"I8", 8, std::nullopt},      {"U8", 8, std::nullopt},
    {"BOOL", 8, std::nullopt},    {"F8_E4M3", 8, std::nullopt}, {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt}, {"C64", 64, std::nullopt},
};

constexpr size_t rank_max = 16;

class HeaderReader {
 public:
  HeaderReader(std::string_view file_name, uint64_t data_start, uint64_t file_bytes)
      : file_name_(file_name), data_start_(data_start), file_bytes_(file_bytes) {}

  Result<std::vector<SafetensorsEntry>> read(const JsonValue& header) const {
    const JsonValue::Object* members = header.object();
    if (members == nullptr) return damaged("its header is no JSON object");
    std::vector<SafetensorsEntry> entries;
    for (const auto& [name, value] : *members) {
      if (name == "__metadata__") continue;
      auto entry = read_entry(name, value);
      if (!entry.ok()) return entry.status();
      entries.push_back(*std::move(entry));
    }
    std::sort(entries.begin(), entries.end(),
              [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                return a.offset != b.offset ? a.offset < b.offset : a.n_bytes < b.n_bytes;
              });
    if (Status status = check_coverage(entries); !status.ok()) return status;
    return entries;
  }

 private:
  Status damaged(const std::string& what) const {
    return Status::corrupt(file_name_ + " is damaged: " + what + "; download it again");
  }

  Result<SafetensorsEntry> read_entry(const std::string& name, const JsonValue& value) const {
    const JsonValue* type = value.find("dtype");
    const JsonValue* shape = value.find("shape");
    const JsonValue* range = value.find("data_offsets");
    if (type == nullptr || type->string() == nullptr || shape == nullptr ||
        shape->array() == nullptr || range == nullptr || range->array() == nullptr ||
        range->array()->size() != 2) {
      return damaged("tensor " + name + " lacks its dtype, shape or data_offsets");
    }
    SafetensorsEntry entry;
    entry.name = name;
    entry.file_type = *type->string();
    const auto known = std::find_if(std::begin(file_types), std::end(file_types),
                                    [&](const FileType& t) { return t.name == entry.file_type; });
    if (known != std::end(file_types)) entry.dtype = known->dtype;

    const std::optional<int64_t> begin = range->array()->at(0).integer();
    const std::optional<int64_t> end = range->array()->at(1).integer();
    if (!begin || !end || *begin < 0 || *end < *begin) {
      return damaged("tensor " + name + " has impossible data_offsets");
    }
    const uint64_t n_data_bytes = file_bytes_ - data_start_;
    if (static_cast<uint64_t>(*end) > n_data_bytes) {
      return Status::corrupt(file_name_ + " is truncated: tensor " + name + " ends at byte " +
                             std::to_string(data_start_ + static_cast<uint64_t>(*end)) +
                             " but the file has " + std::to_string(file_bytes_) +
                             " bytes; download it again");
    }
    entry.offset = data_start_ + static_cast<uint64_t>(*begin);
    entry.n_bytes = static_cast<uint64_t>(*end - *begin);

    uint64_t n_values = 1;
    if (!read_shape(*shape->array(), &entry.shape, &n_values)) {
      return damaged("tensor " + name + " has an impossible shape");
    }
    if (known != std::end(file_types) && n_values * known->bits != entry.n_bytes * 8) {
      return damaged("tensor " + name + " has " + std::to_string(entry.n_bytes) +
                     " bytes, which is not what its shape and type make");
    }
    return entry;
  }

  static bool read_shape(const JsonValue::Array& sizes, std::vector<int64_t>* shape,
                         uint64_t* n_values) {
    constexpr uint64_t values_max = std::numeric_limits<uint64_t>::max() / 128;
    if (sizes.size() > rank_max) return false;
    for (const JsonValue& value : sizes) {
      const std::optional<int64_t> size = value.integer();
      if (!size || *size < 0) return false;
      if (*size > 0 && *n_values > values_max / static_cast<uint64_t>(*size)) return false;
      *n_values *= static_cast<uint64_t>(*size);
      shape->push_back(*size);
    }
    return true;
  }

  Status check_coverage(const std::vector<SafetensorsEntry>& entries) const {
    uint64_t covered = data_start_;
    for (const SafetensorsEntry& entry : entries) {
      if (entry.offset < covered) {
        return damaged("tensor " + entry.name + " overlaps the one before it");
      }
      if (entry.offset > covered) {
        return damaged("bytes before tensor " + entry.name + " belong to no tensor");
      }
      covered += entry.n_bytes;
    }
    if (covered != file_bytes_) return damaged("bytes after the last tensor belong to no tensor");
    return {};
  }

  std::string file_name_;
  uint64_t data_start_;
  uint64_t file_bytes_;
};

struct Header {
  JsonValue json;
  uint64_t data_start;
};

Result<Header> read_header(std::span<const std::byte> bytes, std::string_view file_name) {
  const std::string name(file_name);
  uint64_t header_bytes = 0;
  if (bytes.empty()) return Status::corrupt(name + " is empty; download it again");
  if (bytes.size() < sizeof(header_bytes)) {
    return Status::corrupt(name + " is truncated: it has only " + std::to_string(bytes.size()) +
                           " bytes; download it again");
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const JsonLimits limits;
  if (header_bytes > limits.bytes_max) {
    return Status::corrupt(name +
                           " is not a safetensors file: its first 8 bytes are no sensible header "
                           "length; choose a model in safetensors or GGUF format");
  }
  if (header_bytes > bytes.size() - sizeof(header_bytes)) {
    return Status::corrupt(name + " is truncated: its header ends at byte " +
                           std::to_string(header_bytes + sizeof(header_bytes)) +
                           " but the file has " + std::to_string(bytes.size()) +
                           " bytes; download it again");
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes),
                              header_bytes);
  auto header = parse_json(text, limits);
  if (!header.ok()) {
    return Status::corrupt(name + " is damaged: its header is no valid JSON (" +
                           header.status().message() + "); download it again");
  }
  return Header{*std::move(header), sizeof(header_bytes) + header_bytes};
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\:\0", 4)) == std::string_view::npos;
}

}  // namespace

Result<std::vector<SafetensorsEntry>> parse_safetensors(std::span<const std::byte> bytes,
                                                        std::string_view file_name) {
  const auto header = read_header(bytes, file_name);
  if (!header.ok()) return header.status();
  return HeaderReader(file_name, header->data_start, bytes.size()).read(header->json);
}

Result<JsonValue> parse_safetensors_metadata(std::span<const std::byte> bytes,
                                             std::string_view file_name) {
  const auto header = read_header(bytes, file_name);
  if (!header.ok()) return header.status();
  const JsonValue* metadata = header->json.find("__metadata__");
  return metadata == nullptr ? JsonValue(JsonValue::Object()) : *metadata;
}

Result<std::vector<SafetensorsShard>> parse_safetensors_index(std::string_view text,
                                                              std::string_view file_name) {
  const std::string name(file_name);
  const auto damaged = [&](const std::string& what) {
    return Status::corrupt(name + " is damaged: " + what + "; download it again");
  };
  auto index = parse_json(text);
  if (!index.ok()) return damaged("it is no valid JSON (" + index.status().message() + ")");
  const JsonValue* map = index->find("weight_map");
  if (map == nullptr || map->object() == nullptr) return damaged("it has no weight_map");
  std::vector<SafetensorsShard> shards;
  for (const auto& [tensor, file] : *map->object()) {
    if (file.string() == nullptr || !is_plain_file_name(*file.string())) {
      return damaged("tensor " + tensor + " is in no file of the folder");
    }
    shards.push_back({tensor, *file.string()});
  }
  return shards;
}

}  // namespace nosa
