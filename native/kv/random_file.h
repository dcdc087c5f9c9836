#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/status.h"

namespace nosa {

/// A file read and written at any place, past the page cache where the system allows: a budget of
/// memory would mean little if the system kept a second copy of everything.
///
/// Reads of one file may run on several threads at once.
class RandomFile {
 public:
  /// Opens an existing file for reading. Fails with kNotFound or kIo.
  static Result<RandomFile> open(const std::string& path);

  /// Makes a nameless file below `folder` that vanishes with the process.
  /// Fails with kNotFound, kNoSpace or kIo.
  static Result<RandomFile> create_nameless(const std::string& folder);

  RandomFile(RandomFile&& other) noexcept;
  RandomFile& operator=(RandomFile&& other) noexcept;
  ~RandomFile();

  /// Fills `bytes` from `offset`. Both, and the length, must be whole pages.
  /// Fails with kCorrupt when the file ends before, else with kIo.
  Status read(int64_t offset, std::span<std::byte> bytes) const;

  /// The same for bytes that lie together in the file and apart in memory; `parts` is used up.
  Status read(int64_t offset, std::span<std::span<std::byte>> parts) const;

  /// Writes `bytes` at `offset`, in whole pages. Fails with kNoSpace or kIo.
  Status write(int64_t offset, std::span<const std::byte> bytes);

  const std::string& path() const { return path_; }

  /// Whether transfers pass by the page cache.
  bool direct() const { return direct_; }

 private:
  RandomFile(std::string path, int handle, bool direct)
      : path_(std::move(path)), handle_(handle), direct_(direct) {}

  std::string path_;
  int handle_;
  bool direct_;
};

}  // namespace nosa
