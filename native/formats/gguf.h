#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/dtype.h"
#include "core/status.h"

namespace nosa {

/// One number, flag or string of the metadata, in the widest type of its kind. Strings point into
/// the file's bytes and need not be UTF-8.
using GgufScalar = std::variant<bool, int64_t, uint64_t, double, std::string_view>;

/// A list of scalars of one type, decoded when it is walked: a vocabulary costs nothing until then.
class GgufArray {
 public:
  /// REQUIRES: `bytes` holds exactly `size` well-formed elements of the file type `type`.
  GgufArray(uint32_t type, uint64_t size, std::span<const std::byte> bytes)
      : type_(type), size_(size), bytes_(bytes) {}

  uint64_t size() const { return size_; }
  bool holds_strings() const;

  /// Calls visit(const GgufScalar&) for each element in order.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    size_t at = 0;
    for (uint64_t i = 0; i < size_; ++i) visit(decode(&at));
  }

 private:
  GgufScalar decode(size_t* at) const;

  uint32_t type_ = 0;
  uint64_t size_ = 0;
  std::span<const std::byte> bytes_;
};

using GgufValue = std::variant<GgufScalar, GgufArray>;

struct GgufTensor {
  std::string_view name;
  uint32_t file_type = 0;         ///< As in the file; gguf_type_name() names it.
  std::optional<DType> dtype;     ///< Nothing for a type Nosa does not read.
  int n_dims = 0;                 ///< 1 .. 4
  std::array<int64_t, 4> dims{};  ///< Innermost (contiguous) first, 1 where absent.
  uint64_t offset = 0;            ///< From the start of the file.
  uint64_t n_bytes = 0;           ///< 0 for a type Nosa does not read.
};

/// The header of a GGUF file, checked: every tensor of a known type lies within the file, aligned
/// and apart from the others, and no name occurs twice. Views point into the parsed bytes.
struct Gguf {
  uint32_t version = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata;  ///< In the order of the file.
  std::vector<GgufTensor> tensors;                               ///< In the order of the file.

  /// The value of a metadata key, or null.
  const GgufValue* find(std::string_view key) const;

  /// Likewise, when it is a scalar of this alternative of GgufScalar; integers convert between
  /// signed and unsigned when nothing is lost, and to double.
  std::optional<uint64_t> find_unsigned(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  const GgufArray* find_array(std::string_view key) const;
};

/// Reads the header of a GGUF file of version 2 or 3, little endian. `bytes` is the whole file and
/// must outlive the result; `file_name` is for messages. Fails with kCorrupt (no GGUF, truncated,
/// inconsistent) or kUnsupported (version 1, big endian, lists of lists).
Result<Gguf> parse_gguf(std::span<const std::byte> bytes, std::string_view file_name);

/// Name of a tensor type in the file, "Q4_K" or "type 99".
std::string gguf_type_name(uint32_t file_type);

}  // namespace nosa
