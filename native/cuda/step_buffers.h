#pragma once

#include <cstddef>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"

namespace nosa::cuda {

/// Many device arrays with one owner: listed first, then taken at once, or only counted.
class BufferPlan {
 public:
  /// Plans `n` values of `T`; `to` is set when the memory is taken, and must still be there then.
  template <typename T>
  void add(T*& to, size_t n) {
    add_bytes(reinterpret_cast<std::byte**>(&to), n * sizeof(T));
  }

  size_t bytes() const { return bytes_; }

  /// Takes the memory, zeroed, and sets all pointers; they are good as long as the buffer.
  Result<DeviceBuffer> take(const char* what) const;

 private:
  static constexpr size_t alignment = 256;
  struct Part {
    std::byte** to;
    size_t offset;
  };

  void add_bytes(std::byte** to, size_t bytes) {
    parts_.push_back({to, bytes_});
    bytes_ += (bytes + alignment - 1) / alignment * alignment;
  }

  std::vector<Part> parts_;
  size_t bytes_ = 0;
};

inline Result<DeviceBuffer> BufferPlan::take(const char* what) const {
  Result<DeviceBuffer> memory = DeviceBuffer::create(bytes_, what);
  if (!memory.ok()) return memory;
  for (const Part& part : parts_) *part.to = memory->data() + part.offset;
  return memory;
}

}  // namespace nosa::cuda
