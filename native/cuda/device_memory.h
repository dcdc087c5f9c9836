#pragma once

#include <cstddef>
#include <utility>

#include "core/status.h"

namespace nosa::cuda {

/// Memory of the device. Freed when it goes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer();

  /// `bytes` of device memory, zeroed. Fails with kOutOfMemory, naming `what`. Zero bytes is nothing.
  static Result<DeviceBuffer> create(size_t bytes, const char* what);

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Page-locked host memory that the device reads and writes under an address of its own.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : host_(std::exchange(other.host_, nullptr)),
        device_(std::exchange(other.device_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    return *this;
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();

  /// `bytes` of host memory with bytes of no meaning. Fails with kOutOfMemory, naming `what`. Gigabytes are taken and
  /// locked by several threads, where the system knows how.
  static Result<PinnedBuffer> create(size_t bytes, const char* what);

  std::byte* host() const { return host_; }
  std::byte* device() const { return device_; }
  size_t bytes() const { return bytes_; }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(host_);
  }

 private:
  std::byte* host_ = nullptr;
  std::byte* device_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_bytes_ = 0;  // Of memory that was taken from the system and then locked; else 0.
};

}  // namespace nosa::cuda
