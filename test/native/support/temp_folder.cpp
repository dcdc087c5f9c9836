#include "support/temp_folder.h"

#include <filesystem>
#include <fstream>
#include <random>

#include "core/check.h"

namespace nosa::test {

namespace fs = std::filesystem;

TempFolder::TempFolder() {
  std::random_device random;
  fs::path path;
  do {
    path = fs::temp_directory_path() / ("nosa-test-" + std::to_string(random()));
  } while (!fs::create_directory(path));
  path_ = path.string();
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TempFolder::write(std::string_view name, const Bytes& bytes) const {
  std::string path = path_of(name);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  CHECK(file.good());
  return path;
}

}  // namespace nosa::test
