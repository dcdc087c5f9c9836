#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

namespace nosa {
namespace {

// Value types of the metadata, as numbered by the format.
enum ValueType : uint32_t {
  type_u8 = 0,
  type_i8 = 1,
  type_u16 = 2,
  type_i16 = 3,
  type_u32 = 4,
  type_i32 = 5,
  type_f32 = 6,
  type_bool = 7,
  type_string = 8,
  type_array = 9,
  type_u64 = 10,
  type_i64 = 11,
  type_f64 = 12,
};

/// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
uint64_t value_bytes(uint32_t type) {
  switch (type) {
    case type_u8:
    case type_i8:
    case type_bool:
      return 1;
    case type_u16:
    case type_i16:
      return 2;
    case type_u32:
    case type_i32:
    case type_f32:
      return 4;
    case type_u64:
    case type_i64:
    case type_f64:
      return 8;
    default:
      return 0;
  }
}

std::optional<DType> dtype_of(uint32_t file_type) {
  switch (file_type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

constexpr uint64_t default_alignment = 32;
constexpr uint64_t alignment_max = 1u << 20;
constexpr size_t name_bytes_max = 1024;

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

GgufScalar decode_fixed(uint32_t type, const std::byte* at) {
  switch (type) {
    case type_u8:
      return static_cast<uint64_t>(load<uint8_t>(at));
    case type_i8:
      return static_cast<int64_t>(load<int8_t>(at));
    case type_u16:
      return static_cast<uint64_t>(load<uint16_t>(at));
    case type_i16:
      return static_cast<int64_t>(load<int16_t>(at));
    case type_u32:
      return static_cast<uint64_t>(load<uint32_t>(at));
    case type_i32:
      return static_cast<int64_t>(load<int32_t>(at));
    case type_f32:
      return static_cast<double>(load<float>(at));
    case type_bool:
      return load<uint8_t>(at) != 0;
    case type_u64:
      return load<uint64_t>(at);
    case type_i64:
      return load<int64_t>(at);
    case type_f64:
      return load<double>(at);
    default:
      break;
  }
  CHECK(false && "not a type of fixed size");
  return false;
}

/// Names go into messages; a damaged file must not fill them with rubbish.
std::string printable(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 80)) out.push_back(c >= 0x20 && c < 0x7f ? c : '?');
  return out;
}

/// Walks the bytes of a file from front to back; the first failure is kept.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string_view file_name)
      : bytes_(bytes), file_name_(file_name) {}

  uint64_t at() const { return at_; }
  uint64_t n_left() const { return bytes_.size() - at_; }
  const Status& failure() const { return failure_; }

  // Each keeps a failure and returns false.

  bool corrupt(const std::string& what) {
    return fail(Status::corrupt(file_name_ + " is damaged: " + what + "; download it again"));
  }
  bool unsupported(const std::string& what, const std::string& advice) {
    return fail(
        Status::unsupported(file_name_ + " " + what + ", which Nosa does not read; " + advice));
  }
  bool truncated(const std::string& what) {
    return fail(Status::corrupt(file_name_ + " is truncated: " + what + " but the file has " +
                                std::to_string(bytes_.size()) + " bytes; download it again"));
  }
  bool header_truncated() {
    return truncated("its header goes on after byte " + std::to_string(at_));
  }
  bool not_gguf() {
    if (bytes_.empty()) {
      return fail(Status::corrupt(file_name_ + " is empty; download it again"));
    }
    return fail(Status::corrupt(file_name_ +
                                " is not a GGUF file: it does not begin with GGUF; choose a model "
                                "in GGUF format, or a folder with config.json and safetensors"));
  }

  bool skip(uint64_t n_bytes, std::span<const std::byte>* out) {
    if (n_bytes > n_left()) return header_truncated();
    *out = bytes_.subspan(at_, n_bytes);
    at_ += n_bytes;
    return true;
  }

  template <typename T>
  bool read(T* out) {
    std::span<const std::byte> taken;
    if (!skip(sizeof(T), &taken)) return false;
    *out = load<T>(taken.data());
    return true;
  }

  bool read_string(std::string_view* out) {
    uint64_t n_bytes = 0;
    std::span<const std::byte> taken;
    if (!read(&n_bytes) || !skip(n_bytes, &taken)) return false;
    *out = {reinterpret_cast<const char*>(taken.data()), taken.size()};
    return true;
  }

 private:
  bool fail(Status failure) {
    failure_ = std::move(failure);
    return false;
  }

  std::span<const std::byte> bytes_;
  std::string file_name_;
  uint64_t at_ = 0;
  Status failure_;
};

bool read_array(Cursor& cursor, std::string_view key, GgufValue* out) {
  uint32_t type = 0;
  uint64_t size = 0;
  if (!cursor.read(&type) || !cursor.read(&size)) return false;
  if (type == type_array) {
    return cursor.unsupported("has a list of lists, " + printable(key), "use another file");
  }
  std::span<const std::byte> elements;
  if (type == type_string) {
    // The lengths are inside: walk once to find the end.
    Cursor walk = cursor;
    for (uint64_t i = 0; i < size; ++i) {
      std::string_view ignored;
      if (!walk.read_string(&ignored)) return cursor.header_truncated();
    }
    if (!cursor.skip(walk.at() - cursor.at(), &elements)) return false;
  } else {
    const uint64_t element_bytes = value_bytes(type);
    if (element_bytes == 0) {
      return cursor.corrupt(printable(key) + " has elements of unknown type " +
                            std::to_string(type));
    }
    if (size > cursor.n_left() / element_bytes) return cursor.header_truncated();
    if (!cursor.skip(size * element_bytes, &elements)) return false;
  }
  *out = GgufArray(type, size, elements);
  return true;
}

bool read_value(Cursor& cursor, std::string_view key, GgufValue* out) {
  uint32_t type = 0;
  if (!cursor.read(&type)) return false;
  if (type == type_array) return read_array(cursor, key, out);
  if (type == type_string) {
    std::string_view text;
    if (!cursor.read_string(&text)) return false;
    *out = GgufScalar(text);
    return true;
  }
  std::span<const std::byte> taken;
  const uint64_t n_bytes = value_bytes(type);
  if (n_bytes == 0) {
    return cursor.corrupt(printable(key) + " is of unknown type " + std::to_string(type));
  }
  if (!cursor.skip(n_bytes, &taken)) return false;
  *out = decode_fixed(type, taken.data());
  return true;
}

bool read_version(Cursor& cursor, uint32_t* version) {
  constexpr uint32_t gguf_magic = 0x46554747;  // "GGUF"
  uint32_t magic = 0;
  if (cursor.n_left() < sizeof(magic)) return cursor.not_gguf();
  if (!cursor.read(&magic)) return false;
  if (magic != gguf_magic) return cursor.not_gguf();
  if (!cursor.read(version)) return false;
  if (*version == 2 || *version == 3) return true;
  if (*version != 0 && (*version & 0xffff) == 0) {
    return cursor.unsupported("is a big-endian GGUF", "use the little-endian file of the model");
  }
  return cursor.unsupported("is GGUF version " + std::to_string(*version),
                            "use a file of version 2 or 3");
}

bool read_metadata(Cursor& cursor, uint64_t n_values, Gguf* out) {
  constexpr uint64_t bytes_min = 8 + 4 + 1;  // Length of the key, type, one byte of value.
  if (n_values > cursor.n_left() / bytes_min) return cursor.header_truncated();
  out->metadata.reserve(n_values);
  for (uint64_t i = 0; i < n_values; ++i) {
    std::string_view key;
    GgufValue value;
    if (!cursor.read_string(&key)) return false;
    if (key.size() > name_bytes_max) return cursor.corrupt("a metadata key is too long");
    if (!read_value(cursor, key, &value)) return false;
    out->metadata.emplace_back(key, value);
  }
  return true;
}

/// Sizes of a tensor; fills n_bytes when the type is one we read.
bool measure(Cursor& cursor, GgufTensor* tensor) {
  const std::string name = printable(tensor->name);
  int64_t n_values = 1;
  for (int dim = 0; dim < tensor->n_dims; ++dim) {
    const int64_t size = tensor->dims[dim];
    if (size < 1) return cursor.corrupt("tensor " + name + " has a dimension without elements");
    if (n_values > std::numeric_limits<int64_t>::max() / 8 / size) {
      return cursor.corrupt("tensor " + name + " has an impossible size");
    }
    n_values *= size;
  }
  if (!tensor->dtype) return true;
  if (tensor->dims[0] % block_values(*tensor->dtype) != 0) {
    return cursor.corrupt("rows of tensor " + name + " have " + std::to_string(tensor->dims[0]) +
                          " values, no whole number of " + dtype_name(*tensor->dtype) + " blocks");
  }
  tensor->n_bytes = static_cast<uint64_t>(row_bytes(*tensor->dtype, n_values));
  return true;
}

bool read_tensor(Cursor& cursor, GgufTensor* tensor) {
  uint32_t n_dims = 0;
  if (!cursor.read_string(&tensor->name) || !cursor.read(&n_dims)) return false;
  if (tensor->name.size() > name_bytes_max) return cursor.corrupt("a tensor name is too long");
  if (n_dims < 1 || n_dims > tensor->dims.size()) {
    return cursor.corrupt("tensor " + printable(tensor->name) + " has " + std::to_string(n_dims) +
                          " dimensions");
  }
  tensor->n_dims = static_cast<int>(n_dims);
  tensor->dims.fill(1);
  for (uint32_t dim = 0; dim < n_dims; ++dim) {
    if (!cursor.read(&tensor->dims[dim])) return false;
  }
  if (!cursor.read(&tensor->file_type) || !cursor.read(&tensor->offset)) return false;
  tensor->dtype = dtype_of(tensor->file_type);
  return measure(cursor, tensor);
}

bool read_tensors(Cursor& cursor, uint64_t n_tensors, Gguf* out) {
  constexpr uint64_t bytes_min = 8 + 4 + 8 + 4 + 8;  // One dimension and an empty name.
  if (n_tensors > cursor.n_left() / bytes_min) return cursor.header_truncated();
  out->tensors.resize(n_tensors);
  for (GgufTensor& tensor : out->tensors) {
    if (!read_tensor(cursor, &tensor)) return false;
  }
  return true;
}

bool read_alignment(Cursor& cursor, const Gguf& gguf, uint64_t* alignment) {
  *alignment = default_alignment;
  if (gguf.find("general.alignment") == nullptr) return true;
  const auto stated = gguf.find_unsigned("general.alignment");
  if (!stated || *stated == 0 || (*stated & (*stated - 1)) != 0 || *stated > alignment_max) {
    return cursor.corrupt("general.alignment is no power of two up to " +
                          std::to_string(alignment_max));
  }
  *alignment = *stated;
  return true;
}

/// Turns offsets within the data part into offsets within the file, and checks every one.
bool place_tensors(Cursor& cursor, uint64_t file_bytes, Gguf* gguf) {
  uint64_t alignment = 0;
  if (!read_alignment(cursor, *gguf, &alignment)) return false;
  const uint64_t data_start = (cursor.at() + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : gguf->tensors) {
    const std::string name = printable(tensor.name);
    if (tensor.offset % alignment != 0) {
      return cursor.corrupt("tensor " + name + " is not aligned to " + std::to_string(alignment) +
                            " bytes");
    }
    if (tensor.offset > std::numeric_limits<uint64_t>::max() / 4) {
      return cursor.corrupt("tensor " + name + " has an impossible offset");
    }
    tensor.offset += data_start;
    const uint64_t end = tensor.offset + tensor.n_bytes;
    if (end > file_bytes) {
      return cursor.truncated("tensor " + name + " ends at byte " + std::to_string(end));
    }
  }
  return true;
}

bool check_distinct(Cursor& cursor, const Gguf& gguf) {
  std::vector<std::string_view> names;
  for (const auto& [key, value] : gguf.metadata) names.push_back(key);
  std::sort(names.begin(), names.end());
  auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return cursor.corrupt("two metadata values " + printable(*twice));

  names.clear();
  for (const GgufTensor& tensor : gguf.tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return cursor.corrupt("two tensors " + printable(*twice));

  std::vector<const GgufTensor*> by_offset;
  for (const GgufTensor& tensor : gguf.tensors) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const GgufTensor& before = *by_offset[i - 1];
    const GgufTensor& after = *by_offset[i];
    if (before.offset + before.n_bytes > after.offset) {
      return cursor.corrupt("tensors " + printable(before.name) + " and " + printable(after.name) +
                            " overlap");
    }
  }
  return true;
}

}  // namespace

bool GgufArray::holds_strings() const { return type_ == type_string; }

GgufScalar GgufArray::decode(size_t* at) const {
  const std::byte* element = bytes_.data() + *at;
  if (type_ != type_string) {
    *at += value_bytes(type_);
    return decode_fixed(type_, element);
  }
  const auto n_bytes = load<uint64_t>(element);
  *at += sizeof(uint64_t) + n_bytes;
  return std::string_view(reinterpret_cast<const char*>(element) + sizeof(uint64_t), n_bytes);
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto at = std::find_if(metadata.begin(), metadata.end(),
                               [&](const auto& entry) { return entry.first == key; });
  return at == metadata.end() ? nullptr : &at->second;
}

std::optional<uint64_t> Gguf::find_unsigned(std::string_view key) const {
  const GgufValue* value = find(key);
  const GgufScalar* scalar = value == nullptr ? nullptr : std::get_if<GgufScalar>(value);
  if (scalar == nullptr) return std::nullopt;
  if (const auto* as_unsigned = std::get_if<uint64_t>(scalar)) return *as_unsigned;
  const auto* as_signed = std::get_if<int64_t>(scalar);
  if (as_signed == nullptr || *as_signed < 0) return std::nullopt;
  return static_cast<uint64_t>(*as_signed);
}

std::optional<double> Gguf::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  const GgufScalar* scalar = value == nullptr ? nullptr : std::get_if<GgufScalar>(value);
  if (scalar == nullptr) return std::nullopt;
  if (const auto* as_double = std::get_if<double>(scalar)) return *as_double;
  if (const auto* as_unsigned = std::get_if<uint64_t>(scalar)) {
    return static_cast<double>(*as_unsigned);
  }
  if (const auto* as_signed = std::get_if<int64_t>(scalar)) return static_cast<double>(*as_signed);
  return std::nullopt;
}

std::optional<bool> Gguf::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  const GgufScalar* scalar = value == nullptr ? nullptr : std::get_if<GgufScalar>(value);
  const bool* flag = scalar == nullptr ? nullptr : std::get_if<bool>(scalar);
  return flag == nullptr ? std::nullopt : std::optional<bool>(*flag);
}

std::optional<std::string_view> Gguf::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  const GgufScalar* scalar = value == nullptr ? nullptr : std::get_if<GgufScalar>(value);
  const auto* text = scalar == nullptr ? nullptr : std::get_if<std::string_view>(scalar);
  return text == nullptr ? std::nullopt : std::optional<std::string_view>(*text);
}

const GgufArray* Gguf::find_array(std::string_view key) const {
  const GgufValue* value = find(key);
  return value == nullptr ? nullptr : std::get_if<GgufArray>(value);
}

Result<Gguf> parse_gguf(std::span<const std::byte> bytes, std::string_view file_name) {
  Cursor cursor(bytes, file_name);
  Gguf gguf;
  uint64_t n_tensors = 0;
  uint64_t n_values = 0;
  const bool whole = read_version(cursor, &gguf.version) && cursor.read(&n_tensors) &&
                     cursor.read(&n_values) && read_metadata(cursor, n_values, &gguf) &&
                     read_tensors(cursor, n_tensors, &gguf) &&
                     place_tensors(cursor, bytes.size(), &gguf) && check_distinct(cursor, gguf);
  if (!whole) return cursor.failure();
  return gguf;
}

std::string gguf_type_name(uint32_t file_type) {
  static constexpr const char* names[] = {
      "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
      "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
      "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
      "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",
  };
  if (file_type < std::size(names)) return names[file_type];
  return "type " + std::to_string(file_type);
}

}  // namespace nosa
