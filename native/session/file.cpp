#include "session/file.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#ifdef _WIN32
#include <io.h>
#include <process.h>
#include <sys/stat.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace nosa {
namespace {

namespace fs = std::filesystem;

// At most this many bytes a call: some systems take no more, and it keeps a call short.
constexpr size_t io_bytes_max = size_t(1) << 24;

fs::path native_path(const std::string& utf8) {
  return fs::path(std::u8string(utf8.begin(), utf8.end()));
}

#ifdef _WIN32
int open_new(const fs::path& path) {
  return _wopen(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY, _S_IREAD | _S_IWRITE);
}
int open_old(const fs::path& path) { return _wopen(path.c_str(), _O_RDONLY | _O_BINARY); }
int64_t write_some(int handle, const std::byte* at, size_t n) {
  return _write(handle, at, unsigned(n));
}
int64_t read_some(int handle, std::byte* at, size_t n) { return _read(handle, at, unsigned(n)); }
int64_t seek_to(int handle, int64_t offset) { return _lseeki64(handle, offset, SEEK_SET); }
int64_t seek_to_end(int handle) { return _lseeki64(handle, 0, SEEK_END); }
int close_handle(int handle) { return _close(handle); }
int process_id() { return _getpid(); }
#else
int open_new(const fs::path& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
}
int open_old(const fs::path& path) { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }
int64_t write_some(int handle, const std::byte* at, size_t n) { return ::write(handle, at, n); }
int64_t read_some(int handle, std::byte* at, size_t n) { return ::read(handle, at, n); }
int64_t seek_to(int handle, int64_t offset) { return ::lseek(handle, off_t(offset), SEEK_SET); }
int64_t seek_to_end(int handle) { return ::lseek(handle, 0, SEEK_END); }
int close_handle(int handle) { return ::close(handle); }
int process_id() { return ::getpid(); }
#endif

Status from_errno(const std::string& what, int error) {
  const std::string message = what + ": " + std::generic_category().message(error) + ".";
  switch (error) {
    case ENOSPC:
#ifdef EDQUOT
    case EDQUOT:
#endif
      return Status::no_space(what + ": the disk is full; free some space and try again.");
    case ENOENT:
    case ENOTDIR: return Status::not_found(message);
    default: return Status::io(message);
  }
}

}  // namespace

Result<NewFile> NewFile::create(const std::string& path) {
  static std::atomic<uint32_t> counter{0};
  const std::string aside_path = path + ".new-" + std::to_string(process_id()) + "-" +
                                 std::to_string(counter.fetch_add(1));
  std::error_code ignored;
  fs::remove(native_path(aside_path), ignored);  // Of a process with our number that died.
  const int handle = open_new(native_path(aside_path));
  if (handle < 0) return from_errno("Cannot write " + path, errno);
  return NewFile(path, aside_path, handle);
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      aside_path_(std::exchange(other.aside_path_, {})),
      handle_(std::exchange(other.handle_, -1)),
      size_bytes_(other.size_bytes_) {}

NewFile::~NewFile() {
  if (handle_ >= 0) close_handle(handle_);
  if (aside_path_.empty()) return;
  std::error_code ignored;
  fs::remove(native_path(aside_path_), ignored);
}

Status NewFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const int64_t n = write_some(handle_, bytes.data(), std::min(bytes.size(), io_bytes_max));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return from_errno("Cannot write " + path_, n == 0 ? ENOSPC : errno);
    size_bytes_ += n;
    bytes = bytes.subspan(size_t(n));
  }
  return {};
}

Status NewFile::put_in_place() {
  if (close_handle(std::exchange(handle_, -1)) != 0) {
    return from_errno("Cannot write " + path_, errno);
  }
  std::error_code error;
  fs::rename(native_path(aside_path_), native_path(path_), error);
  if (error) return from_errno("Cannot put " + path_ + " in place", error.value());
  aside_path_.clear();
  return {};
}

Result<ReadFile> ReadFile::open(const std::string& path) {
  const int handle = open_old(native_path(path));
  if (handle < 0) return from_errno("Cannot read " + path, errno);
  return ReadFile(path, handle);
}

ReadFile::ReadFile(ReadFile&& other) noexcept
    : path_(std::move(other.path_)), handle_(std::exchange(other.handle_, -1)) {}

ReadFile::~ReadFile() {
  if (handle_ >= 0) close_handle(handle_);
}

Result<int64_t> ReadFile::size_bytes() {
  const int64_t size = seek_to_end(handle_);
  if (size < 0) return from_errno("Cannot read " + path_, errno);
  return size;
}

Status ReadFile::read(int64_t offset, std::span<std::byte> bytes) {
  if (seek_to(handle_, offset) < 0) return from_errno("Cannot read " + path_, errno);
  while (!bytes.empty()) {
    const int64_t n = read_some(handle_, bytes.data(), std::min(bytes.size(), io_bytes_max));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return from_errno("Cannot read " + path_, errno);
    if (n == 0) return Status::corrupt(path_ + " ends before it should.");
    bytes = bytes.subspan(size_t(n));
  }
  return {};
}

}  // namespace nosa
