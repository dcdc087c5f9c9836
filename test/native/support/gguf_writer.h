#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "support/bytes.h"

namespace nosa::test {

/// Builds the bytes of a GGUF file in memory. finish() lays out what was added, in order.
class GgufWriter {
 public:
  explicit GgufWriter(uint32_t version = 3, uint64_t alignment = 32)
      : version_(version), alignment_(alignment) {}

  GgufWriter& add_u32(std::string_view key, uint32_t value);
  GgufWriter& add_i32(std::string_view key, int32_t value);
  GgufWriter& add_u64(std::string_view key, uint64_t value);
  GgufWriter& add_f32(std::string_view key, float value);
  GgufWriter& add_bool(std::string_view key, bool value);
  GgufWriter& add_string(std::string_view key, std::string_view value);
  GgufWriter& add_strings(std::string_view key, const std::vector<std::string>& values);
  GgufWriter& add_f32s(std::string_view key, const std::vector<float>& values);
  GgufWriter& add_i32s(std::string_view key, const std::vector<int32_t>& values);

  /// A value of any type number, encoded by the caller.
  GgufWriter& add_raw(std::string_view key, uint32_t type, const Bytes& encoded);

  /// `dims` innermost first. `data` is stored as it is, whatever its size.
  GgufWriter& add_tensor(std::string_view name, const std::vector<int64_t>& dims, DType dtype,
                         const Bytes& data);
  GgufWriter& add_raw_tensor(std::string_view name, const std::vector<int64_t>& dims,
                             uint32_t file_type, const Bytes& data);

  /// Makes the last tensor point elsewhere in the data part.
  GgufWriter& move_tensor(uint64_t offset);

  Bytes finish() const;

 private:
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;
    uint32_t file_type;
    uint64_t offset;
  };

  uint32_t version_;
  uint64_t alignment_;
  uint64_t n_values_ = 0;
  Bytes metadata_;
  std::vector<Tensor> tensors_;
  Bytes data_;
};

/// The number of a type in a GGUF file.
uint32_t gguf_type_of(DType dtype);

}  // namespace nosa::test
