#pragma once

#include <string>
#include <string_view>

#include "support/bytes.h"

namespace nosa::test {

/// A fresh folder that is removed with all it holds.
class TempFolder {
 public:
  TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();

  const std::string& path() const { return path_; }
  std::string path_of(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Writes a file and returns its path.
  std::string write(std::string_view name, const Bytes& bytes) const;
  std::string write(std::string_view name, std::string_view text) const {
    return write(name, bytes_of(text));
  }

 private:
  std::string path_;
};

}  // namespace nosa::test
