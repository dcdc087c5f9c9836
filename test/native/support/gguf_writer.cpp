#include "support/gguf_writer.h"

namespace nosa::test {
namespace {

void append_string(std::string_view text, Bytes* out) {
  append(static_cast<uint64_t>(text.size()), out);
  append_text(text, out);
}

void pad(uint64_t alignment, Bytes* out) {
  out->resize((out->size() + alignment - 1) / alignment * alignment);
}

template <typename T>
Bytes encoded(const T& value) {
  Bytes out;
  append(value, &out);
  return out;
}

template <typename T>
Bytes encoded_array(uint32_t type, const std::vector<T>& values) {
  Bytes out;
  append(type, &out);
  append(static_cast<uint64_t>(values.size()), &out);
  for (const T& value : values) append(value, &out);
  return out;
}

}  // namespace

GgufWriter& GgufWriter::add_raw(std::string_view key, uint32_t type, const Bytes& encoded) {
  append_string(key, &metadata_);
  append(type, &metadata_);
  metadata_.insert(metadata_.end(), encoded.begin(), encoded.end());
  ++n_values_;
  return *this;
}

GgufWriter& GgufWriter::add_u32(std::string_view key, uint32_t value) {
  return add_raw(key, 4, encoded(value));
}
GgufWriter& GgufWriter::add_i32(std::string_view key, int32_t value) {
  return add_raw(key, 5, encoded(value));
}
GgufWriter& GgufWriter::add_f32(std::string_view key, float value) {
  return add_raw(key, 6, encoded(value));
}
GgufWriter& GgufWriter::add_bool(std::string_view key, bool value) {
  return add_raw(key, 7, encoded(static_cast<uint8_t>(value)));
}
GgufWriter& GgufWriter::add_u64(std::string_view key, uint64_t value) {
  return add_raw(key, 10, encoded(value));
}

GgufWriter& GgufWriter::add_string(std::string_view key, std::string_view value) {
  Bytes text;
  append_string(value, &text);
  return add_raw(key, 8, text);
}

GgufWriter& GgufWriter::add_strings(std::string_view key, const std::vector<std::string>& values) {
  Bytes out;
  append(uint32_t{8}, &out);
  append(static_cast<uint64_t>(values.size()), &out);
  for (const std::string& value : values) append_string(value, &out);
  return add_raw(key, 9, out);
}

GgufWriter& GgufWriter::add_f32s(std::string_view key, const std::vector<float>& values) {
  return add_raw(key, 9, encoded_array(6, values));
}

GgufWriter& GgufWriter::add_i32s(std::string_view key, const std::vector<int32_t>& values) {
  return add_raw(key, 9, encoded_array(5, values));
}

GgufWriter& GgufWriter::add_tensor(std::string_view name, const std::vector<int64_t>& dims,
                                   DType dtype, const Bytes& data) {
  return add_raw_tensor(name, dims, gguf_type_of(dtype), data);
}

GgufWriter& GgufWriter::add_raw_tensor(std::string_view name, const std::vector<int64_t>& dims,
                                       uint32_t file_type, const Bytes& data) {
  pad(alignment_, &data_);
  tensors_.push_back({std::string(name), dims, file_type, data_.size()});
  data_.insert(data_.end(), data.begin(), data.end());
  return *this;
}

GgufWriter& GgufWriter::move_tensor(uint64_t offset) {
  tensors_.back().offset = offset;
  return *this;
}

Bytes GgufWriter::finish() const {
  Bytes out = bytes_of("GGUF");
  append(version_, &out);
  append(static_cast<uint64_t>(tensors_.size()), &out);
  append(n_values_, &out);
  out.insert(out.end(), metadata_.begin(), metadata_.end());
  for (const Tensor& tensor : tensors_) {
    append_string(tensor.name, &out);
    append(static_cast<uint32_t>(tensor.dims.size()), &out);
    for (const int64_t dim : tensor.dims) append(dim, &out);
    append(tensor.file_type, &out);
    append(tensor.offset, &out);
  }
  pad(alignment_, &out);
  out.insert(out.end(), data_.begin(), data_.end());
  return out;
}

uint32_t gguf_type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ5_0:
      return 6;
    case DType::kQ5_1:
      return 7;
    case DType::kQ8_0:
      return 8;
    case DType::kQ4_K:
      return 12;
    case DType::kQ5_K:
      return 13;
    case DType::kQ6_K:
      return 14;
    case DType::kBF16:
      return 30;
  }
  return 0;
}

}  // namespace nosa::test
