#include "core/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace nosa {
namespace {

Status is_folder(const std::string& path) {
  return Status::invalid_argument(path + " is a folder; name a file in it");
}

Status is_not_plain(const std::string& path) {
  return Status::invalid_argument(path + " is not a plain file; name one");
}

Status is_missing(const std::string& path) {
  return Status::not_found(path + " does not exist; check the path or download the model again");
}

Status may_not_be_read(const std::string& path) {
  return Status::io(path + " may not be read by you; change its permissions");
}

#ifdef _WIN32

/// Closes a handle when it goes; a view outlives the handles it was made from.
class Handle {
 public:
  explicit Handle(void* handle) : handle_(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (is_open()) CloseHandle(handle_);
  }
  bool is_open() const { return handle_ != nullptr && handle_ != INVALID_HANDLE_VALUE; }
  void* get() const { return handle_; }

 private:
  void* handle_;
};

std::string last_error() {
  return std::system_category().message(int(GetLastError()));
}

void unmap_pages(void* data, size_t) { UnmapViewOfFile(data); }

#else

/// Closes a descriptor when it goes; a map outlives the descriptor it was made from.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Status open_failure(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR) return is_missing(path);
  if (error == EACCES || error == EPERM) return may_not_be_read(path);
  return Status::io(path + " cannot be opened: " + std::strerror(error));
}

void unmap_pages(void* data, size_t n_bytes) { ::munmap(data, n_bytes); }

#endif

}  // namespace

#ifdef _WIN32

Result<MappedFile> MappedFile::open(const std::string& path) {
  const std::filesystem::path native(std::u8string(path.begin(), path.end()));
  std::error_code ignored;
  if (std::filesystem::is_directory(native, ignored)) return is_folder(path);

  constexpr DWORD shared = FILE_SHARE_READ | FILE_SHARE_DELETE;
  const Handle file(CreateFileW(native.c_str(), GENERIC_READ, shared, nullptr, OPEN_EXISTING,
                                FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!file.is_open()) {
    const DWORD error = GetLastError();
    if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) return is_missing(path);
    if (error == ERROR_ACCESS_DENIED) return may_not_be_read(path);
    return Status::io(path + " cannot be opened: " + std::system_category().message(int(error)));
  }
  if (GetFileType(file.get()) != FILE_TYPE_DISK) return is_not_plain(path);
  LARGE_INTEGER size = {};
  if (GetFileSizeEx(file.get(), &size) == 0) return Status::io(path + " has no size: " + last_error());

  // The system refuses to map nothing; there is nothing to map either.
  if (size.QuadPart == 0) return MappedFile(nullptr, 0);
  const Handle map(CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  const void* data = map.is_open() ? MapViewOfFile(map.get(), FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (data == nullptr) return Status::io(path + " cannot be mapped into memory: " + last_error());
  return MappedFile(static_cast<const std::byte*>(data), size_t(size.QuadPart));
}

#else

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return open_failure(path, errno);

  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return open_failure(path, errno);
  if (S_ISDIR(info.st_mode)) return is_folder(path);
  if (!S_ISREG(info.st_mode)) return is_not_plain(path);

  // The system refuses to map nothing; there is nothing to map either.
  if (info.st_size == 0) return MappedFile(nullptr, 0);
  const auto n_bytes = static_cast<size_t>(info.st_size);
  void* data = ::mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    return Status::io(path + " cannot be mapped into memory: " + std::strerror(errno));
  }
  return MappedFile(static_cast<const std::byte*>(data), n_bytes);
}

#endif

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), n_bytes_(std::exchange(other.n_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  data_ = std::exchange(other.data_, nullptr);
  n_bytes_ = std::exchange(other.n_bytes_, 0);
  return *this;
}

MappedFile::~MappedFile() { unmap(); }

void MappedFile::unmap() {
  if (data_ != nullptr) unmap_pages(const_cast<std::byte*>(data_), n_bytes_);
  data_ = nullptr;
  n_bytes_ = 0;
}

}  // namespace nosa
