#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/status.h"

namespace nosa {

/// A file that is written beside its place and appears there whole or not at all. Readable by its
/// owner only.
class NewFile {
 public:
  /// Opens `path` plus a suffix of this process; removed again unless it is put in place. Fails with
  /// kNotFound (no folder), kNoSpace or kIo.
  static Result<NewFile> create(const std::string& path);

  /// As create(), but writes to `aside_path`, where the file stays when the process ends and can be
  /// opened again. Replaces what is there. Fails with kIo too when another process has it open.
  static Result<NewFile> create_kept(const std::string& path, const std::string& aside_path);

  /// Opens what create_kept() left, to go on at its end. Fails as that does, and with kNotFound.
  static Result<NewFile> reopen_kept(const std::string& path, const std::string& aside_path);

  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&& other) = delete;
  ~NewFile();

  /// Appends all of `bytes`. Fails with kNoSpace or kIo.
  Status append(std::span<const std::byte> bytes);

  /// Cuts the file to its first `size_bytes`. Fails with kIo.
  Status truncate(int64_t size_bytes);

  /// Closes the file and renames it to its path, replacing what is there.
  Status put_in_place();

  /// Closes and removes the file.
  void remove();

  int64_t size_bytes() const { return size_bytes_; }

 private:
  NewFile(std::string path, std::string aside_path, int handle, bool kept)
      : path_(std::move(path)), aside_path_(std::move(aside_path)), handle_(handle), kept_(kept) {}

  std::string path_;
  std::string aside_path_;
  int handle_;
  bool kept_;
  int64_t size_bytes_ = 0;
};

/// Removes a file if there is one.
void remove_file(const std::string& path);

/// A file that is read.
class ReadFile {
 public:
  /// Fails with kNotFound or kIo.
  static Result<ReadFile> open(const std::string& path);

  ReadFile(ReadFile&& other) noexcept;
  ReadFile& operator=(ReadFile&& other) = delete;
  ~ReadFile();

  /// Fails with kIo.
  Result<int64_t> size_bytes();

  /// Fills all of `bytes` from `offset`. Fails with kCorrupt when the file ends before, else kIo.
  Status read(int64_t offset, std::span<std::byte> bytes);

 private:
  ReadFile(std::string path, int handle) : path_(std::move(path)), handle_(handle) {}

  std::string path_;
  int handle_;
};

}  // namespace nosa
