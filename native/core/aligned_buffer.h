#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "core/check.h"
#include "core/status.h"

namespace nosa {

/// Owned, zeroed memory with a stated alignment: cache lines for vectors, pages for direct reads.
class AlignedBuffer {
 public:
  static constexpr size_t cache_line_bytes = 64;
  static constexpr size_t page_bytes = 4096;

  /// No memory; bytes() is empty.
  AlignedBuffer() = default;

  /// Fails with kOutOfMemory. REQUIRES: `alignment` is a power of two.
  static Result<AlignedBuffer> create(size_t n_bytes, size_t alignment = cache_line_bytes) {
    CHECK(alignment != 0 && (alignment & (alignment - 1)) == 0);
    if (n_bytes == 0) return AlignedBuffer();
    void* data = ::operator new(n_bytes, std::align_val_t(alignment), std::nothrow);
    if (data == nullptr) {
      return Status::out_of_memory("cannot allocate " + std::to_string(n_bytes) +
                                   " bytes; close other programs or lower the memory budget");
    }
    std::memset(data, 0, n_bytes);
    return AlignedBuffer(static_cast<std::byte*>(data), n_bytes, alignment);
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        n_bytes_(std::exchange(other.n_bytes_, 0)),
        alignment_(other.alignment_) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(alignment_, other.alignment_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t(alignment_));
  }

  std::span<std::byte> bytes() { return {data_, n_bytes_}; }
  std::span<const std::byte> bytes() const { return {data_, n_bytes_}; }

  /// The memory as elements of a plain type; bytes that do not fill one are left out.
  template <typename T>
  std::span<T> as() {
    static_assert(std::is_trivially_copyable_v<T>);
    DCHECK(data_ == nullptr || alignment_ >= alignof(T));
    return {reinterpret_cast<T*>(data_), n_bytes_ / sizeof(T)};
  }

 private:
  AlignedBuffer(std::byte* data, size_t n_bytes, size_t alignment)
      : data_(data), n_bytes_(n_bytes), alignment_(alignment) {}

  std::byte* data_ = nullptr;
  size_t n_bytes_ = 0;
  size_t alignment_ = cache_line_bytes;
};

}  // namespace nosa
