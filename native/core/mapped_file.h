#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "core/status.h"

namespace nosa {

/// A whole file mapped into memory for reading. Movable; unmaps when it goes.
///
/// The file must not be truncated while it is mapped: the operating system would then deliver a
/// signal on access. Files that Nosa maps are model files, which are only ever replaced by rename.
class MappedFile {
 public:
  /// Maps `path` (UTF-8). An empty file maps to an empty span. Fails with kNotFound when there is
  /// no such file, kInvalidArgument when it is a folder or anything else that is not a plain file,
  /// and kIo (permission, descriptors, address space) otherwise.
  static Result<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, n_bytes_}; }

 private:
  MappedFile(const std::byte* data, size_t n_bytes) : data_(data), n_bytes_(n_bytes) {}
  void unmap();

  const std::byte* data_ = nullptr;
  size_t n_bytes_ = 0;
};

}  // namespace nosa
