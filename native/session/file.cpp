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
#include <share.h>
#include <sys/stat.h>
#else
#include <sys/file.h>
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
int open_to_append(const fs::path& path) {
  return _wsopen(path.c_str(), _O_WRONLY | _O_BINARY, _SH_DENYWR);
}
bool lock_alone(int) { return true; }  // Opening has refused others already.
int cut(int handle, int64_t size) { return _chsize_s(handle, size); }
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
int open_to_append(const fs::path& path) { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC); }
bool lock_alone(int handle) { return ::flock(handle, LOCK_EX | LOCK_NB) == 0; }
int cut(int handle, int64_t size) { return ::ftruncate(handle, off_t(size)); }
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
  remove_file(aside_path);  // Of a process with our number that died.
  const int handle = open_new(native_path(aside_path));
  if (handle < 0) return from_errno("Cannot write " + path, errno);
  return NewFile(path, aside_path, handle, false);
}

Result<NewFile> NewFile::create_kept(const std::string& path, const std::string& aside_path) {
  {
    const Result<NewFile> old = reopen_kept(path, aside_path);
    if (!old.ok() && old.status().code() != StatusCode::kNotFound) return old.status();
  }
  // A new file, not the old one made empty: somebody may still read blocks of that.
  remove_file(aside_path);
  const int handle = open_new(native_path(aside_path));
  if (handle < 0) return from_errno("Cannot write " + aside_path, errno);
  NewFile file(path, aside_path, handle, true);
  if (!lock_alone(handle)) return Status::io(aside_path + " is being written by another process.");
  return file;
}

Result<NewFile> NewFile::reopen_kept(const std::string& path, const std::string& aside_path) {
  const int handle = open_to_append(native_path(aside_path));
  if (handle < 0) return from_errno("Cannot write " + aside_path, errno);
  NewFile file(path, aside_path, handle, true);
  if (!lock_alone(handle)) return Status::io(aside_path + " is being written by another process.");
  const int64_t size = seek_to_end(handle);
  if (size < 0) return from_errno("Cannot write " + aside_path, errno);
  file.size_bytes_ = size;
  return file;
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      aside_path_(std::exchange(other.aside_path_, {})),
      handle_(std::exchange(other.handle_, -1)),
      kept_(other.kept_),
      size_bytes_(other.size_bytes_) {}

NewFile::~NewFile() {
  if (!kept_) remove();
  if (handle_ >= 0) close_handle(handle_);
}

void NewFile::remove() {
  if (handle_ >= 0) close_handle(std::exchange(handle_, -1));
  if (!aside_path_.empty()) remove_file(std::exchange(aside_path_, {}));
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

Status NewFile::truncate(int64_t size_bytes) {
  if (cut(handle_, size_bytes) != 0 || seek_to(handle_, size_bytes) < 0) {
    return from_errno("Cannot write " + path_, errno);
  }
  size_bytes_ = size_bytes;
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

void remove_file(const std::string& path) {
  std::error_code ignored;
  fs::remove(native_path(path), ignored);
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
