#include "support/safetensors_writer.h"

namespace nosa::test {

SafetensorsWriter& SafetensorsWriter::add(std::string_view name, std::string_view type,
                                          const std::vector<int64_t>& shape, const Bytes& data) {
  header_ += header_.empty() ? "" : ",";
  header_ += "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(type) + "\",\"shape\":[";
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    header_ += (dim == 0 ? "" : ",") + std::to_string(shape[dim]);
  }
  header_ += "],\"data_offsets\":[" + std::to_string(data_.size()) + "," +
             std::to_string(data_.size() + data.size()) + "]}";
  data_.insert(data_.end(), data.begin(), data.end());
  return *this;
}

SafetensorsWriter& SafetensorsWriter::set_metadata(const std::map<std::string, std::string>& metadata) {
  std::string members;
  for (const auto& [key, value] : metadata) {
    members += (members.empty() ? "\"" : ",\"") + key + "\":\"" + value + "\"";
  }
  header_ += (header_.empty() ? "\"__metadata__\":{" : ",\"__metadata__\":{") + members + "}";
  return *this;
}

Bytes SafetensorsWriter::finish(size_t header_alignment) const {
  std::string header = "{" + header_ + "}";
  while ((header.size() + sizeof(uint64_t)) % header_alignment != 0) header += ' ';
  return safetensors_file(header, data_);
}

Bytes safetensors_file(std::string_view header, const Bytes& data) {
  Bytes out;
  append(static_cast<uint64_t>(header.size()), &out);
  append_text(header, &out);
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

}  // namespace nosa::test
