#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/check.h"
#include "core/dtype.h"
#include "core/status.h"

namespace nosa {

/// A borrowed matrix of weights, [rows, cols]: `rows` is the output dimension, `cols` the
/// contiguous input dimension, so that y[r] = sum over c of W[r, c] x[c] reads one row. A vector
/// (a norm, a bias) has one row. The data belongs to whoever made the view (see Weights) and has
/// the alignment of its file: at least 32 bytes in GGUF, possibly none in safetensors.
struct WeightView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;

  /// Bytes from one row to the next.
  int64_t row_bytes() const { return nosa::row_bytes(dtype, cols); }

  /// Bytes of the whole matrix.
  int64_t size_bytes() const { return rows * row_bytes(); }

  /// REQUIRES: 0 <= `row_idx` < rows.
  const std::byte* row(int64_t row_idx) const {
    DCHECK(0 <= row_idx && row_idx < rows);
    return data + row_idx * row_bytes();
  }
};

/// A size and what it counts: {"n_tokens", 512}.
struct NamedSize {
  const char* name = "";
  int64_t size = 0;
};

/// A borrowed, dense, row-major array of a plain type with up to four named sizes, outermost first.
class TensorView {
 public:
  static constexpr int rank_max = 4;

  TensorView() = default;

  /// REQUIRES: at most four sizes, none negative; the names outlive the view (string literals).
  TensorView(void* data, DType dtype, std::initializer_list<NamedSize> sizes)
      : data_(data), dtype_(dtype), rank_(static_cast<int>(sizes.size())) {
    CHECK(rank_ <= rank_max);
    int at = 0;
    for (const NamedSize& size : sizes) {
      CHECK(size.size >= 0);
      sizes_[at++] = size;
    }
  }

  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }

  /// REQUIRES: 0 <= `dim` < rank().
  int64_t size(int dim) const {
    CHECK(0 <= dim && dim < rank_);
    return sizes_[dim].size;
  }
  const char* size_name(int dim) const {
    CHECK(0 <= dim && dim < rank_);
    return sizes_[dim].name;
  }

  int64_t n_values() const {
    int64_t n = 1;
    for (int dim = 0; dim < rank_; ++dim) n *= sizes_[dim].size;
    return n;
  }

  int64_t size_bytes() const { return row_bytes(dtype_, n_values()); }

  /// The elements as `T`. REQUIRES: sizeof(T) is the element size of the type.
  template <typename T>
  T* as() const {
    CHECK(block_values(dtype_) == 1 && static_cast<int64_t>(sizeof(T)) == block_bytes(dtype_));
    return static_cast<T*>(data_);
  }

  /// kInvalidArgument, naming `what` and the first dimension that differs, unless the view has this
  /// type and exactly these sizes. The names of the sizes are for the message.
  Status expect(const char* what, DType dtype, std::initializer_list<NamedSize> sizes) const {
    const auto differs = [&](const std::string& how) {
      return Status::invalid_argument(std::string(what) + " has " + how);
    };
    if (dtype != dtype_) {
      return differs(std::string("type ") + dtype_name(dtype_) + " where " + dtype_name(dtype) +
                     " is needed");
    }
    if (static_cast<int>(sizes.size()) != rank_) {
      return differs(std::to_string(rank_) + " dimensions where " + std::to_string(sizes.size()) +
                     " are needed");
    }
    int dim = 0;
    for (const NamedSize& size : sizes) {
      if (sizes_[dim].size != size.size) {
        return differs(std::string(size.name) + " = " + std::to_string(sizes_[dim].size) +
                       " where " + std::to_string(size.size) + " is needed");
      }
      ++dim;
    }
    return {};
  }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<NamedSize, rank_max> sizes_;
};

}  // namespace nosa
