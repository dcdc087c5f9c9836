#pragma once

#include <cstddef>

#include "core/status.h"

namespace nosa {

/// Page-aligned, zeroed memory straight from the operating system, given back at once when it goes:
/// what a budget counts is then what the process uses.
class PageMemory {
 public:
  PageMemory() = default;

  /// Fails with kOutOfMemory. REQUIRES: `n_bytes` > 0.
  static Result<PageMemory> map(size_t n_bytes);

  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;
  ~PageMemory();

  std::byte* data() const { return data_; }
  bool empty() const { return data_ == nullptr; }

 private:
  PageMemory(std::byte* data, size_t n_bytes) : data_(data), n_bytes_(n_bytes) {}

  std::byte* data_ = nullptr;
  size_t n_bytes_ = 0;
};

}  // namespace nosa
