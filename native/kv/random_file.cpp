#include "kv/random_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#ifdef _WIN32
#include <io.h>
#include <windows.h>
#else
#include <sys/uio.h>
#include <unistd.h>
#endif

namespace nosa {
namespace {

Status failure(const std::string& what, const std::string& path, int error) {
  const std::string message = what + " " + path + ": " + std::strerror(error) + ".";
  if (error == ENOENT) return Status::not_found(message);
#ifdef EDQUOT
  if (error == EDQUOT) error = ENOSPC;
#endif
  if (error == ENOSPC) return Status::no_space(message + " Free some space, or lower the disk budget.");
  return Status::io(message);
}

/// Parts of one system call; every system takes more.
constexpr size_t parts_at_once = 16;

// What differs between systems: each returns -1 and sets errno where it fails, as POSIX has it.
#ifdef _WIN32

std::wstring wide(const std::string& utf8) {
  return std::filesystem::path(std::u8string(utf8.begin(), utf8.end())).wstring();
}

int failed_with(DWORD error) {
  switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND: errno = ENOENT; break;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: errno = ENOSPC; break;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION: errno = EACCES; break;
    default: errno = EIO;
  }
  return -1;
}

int open_by(const std::wstring& path, DWORD access, DWORD disposition, DWORD flags, bool& direct) {
  direct = true;
  // Others may put a new file in the place of this one meanwhile, as they may elsewhere.
  constexpr DWORD shared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  void* const file = CreateFileW(path.c_str(), access, shared, nullptr, disposition,
                                 flags | FILE_FLAG_NO_BUFFERING, nullptr);
  if (file == INVALID_HANDLE_VALUE) return failed_with(GetLastError());
  const int handle = _open_osfhandle(intptr_t(file), _O_BINARY);
  if (handle < 0) CloseHandle(file);
  return handle;
}

int open_to_read(const std::string& path, bool& direct) {
  return open_by(wide(path), GENERIC_READ, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, direct);
}

int make_nameless(const std::string& folder, std::string& path, bool& direct) {
  std::array<wchar_t, MAX_PATH + 1> name{};
  if (GetTempFileNameW(wide(folder).c_str(), L"spl", 0, name.data()) == 0) return failed_with(GetLastError());
  const std::u8string utf8 = std::filesystem::path(name.data()).u8string();
  path.assign(utf8.begin(), utf8.end());
  return open_by(name.data(), GENERIC_READ | GENERIC_WRITE, CREATE_ALWAYS,
                 FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, direct);
}

void close_handle(int handle) { _close(handle); }

OVERLAPPED place_of(int64_t offset) {
  OVERLAPPED place = {};
  place.Offset = DWORD(uint64_t(offset));
  place.OffsetHigh = DWORD(uint64_t(offset) >> 32);
  return place;
}

/// Of whole pages, and few enough for a DWORD.
constexpr size_t call_bytes_max = size_t(1) << 30;

int64_t read_at(int handle, std::span<const std::span<std::byte>> parts, int64_t offset) {
  int64_t done = 0;
  for (const std::span<std::byte> part : parts) {
    OVERLAPPED place = place_of(offset + done);
    DWORD n = 0;
    const auto wanted = DWORD(std::min(part.size(), call_bytes_max));
    void* const file = reinterpret_cast<void*>(_get_osfhandle(handle));
    if (ReadFile(file, part.data(), wanted, &n, &place) == 0 && GetLastError() != ERROR_HANDLE_EOF) {
      return done > 0 ? done : failed_with(GetLastError());
    }
    done += n;
    if (n < part.size()) break;
  }
  return done;
}

int64_t write_at(int handle, std::span<const std::byte> bytes, int64_t offset) {
  OVERLAPPED place = place_of(offset);
  DWORD n = 0;
  void* const file = reinterpret_cast<void*>(_get_osfhandle(handle));
  const auto wanted = DWORD(std::min(bytes.size(), call_bytes_max));
  return WriteFile(file, bytes.data(), wanted, &n, &place) == 0 ? failed_with(GetLastError()) : int64_t(n);
}

void forget_cached(int, int64_t, size_t) {}

#else

#ifdef O_DIRECT
constexpr int direct_flag = O_DIRECT;
#else
constexpr int direct_flag = 0;
#endif

/// Not every file system takes direct transfers; those that do not say so when a file is opened.
int open_direct(const char* path, int flags, bool& direct) {
  const int handle = ::open(path, flags | direct_flag | O_CLOEXEC, 0600);
  direct = handle >= 0 && direct_flag != 0;
#ifdef F_NOCACHE
  direct = handle >= 0 && ::fcntl(handle, F_NOCACHE, 1) == 0;
#endif
  if (handle >= 0 || errno != EINVAL) return handle;
  return ::open(path, flags | O_CLOEXEC, 0600);
}

int open_to_read(const std::string& path, bool& direct) { return open_direct(path.c_str(), O_RDONLY, direct); }

int make_nameless(const std::string& folder, std::string& path, bool& direct) {
  path = folder + "/spill-XXXXXX";
  const int named = ::mkstemp(path.data());
  if (named < 0) return named;
  // Opened again, because mkstemp takes no flags; unlinked, so that a crash leaves nothing behind.
  const int handle = open_direct(path.c_str(), O_RDWR, direct);
  const int error = errno;
  ::close(named);
  ::unlink(path.c_str());
  errno = error;
  return handle;
}

void close_handle(int handle) { ::close(handle); }

int64_t read_at(int handle, std::span<const std::span<std::byte>> parts, int64_t offset) {
  std::array<iovec, parts_at_once> pieces;
  for (size_t i = 0; i < parts.size(); ++i) pieces[i] = {parts[i].data(), parts[i].size()};
  return ::preadv(handle, pieces.data(), int(parts.size()), off_t(offset));
}

int64_t write_at(int handle, std::span<const std::byte> bytes, int64_t offset) {
  return ::pwrite(handle, bytes.data(), bytes.size(), off_t(offset));
}

/// Tells the system that it need not keep what it cached of a transfer.
void forget_cached(int handle, int64_t offset, size_t n_bytes) {
#ifdef POSIX_FADV_DONTNEED
  posix_fadvise(handle, offset, off_t(n_bytes), POSIX_FADV_DONTNEED);
#else
  (void)handle, (void)offset, (void)n_bytes;
#endif
}

#endif

}  // namespace

Result<RandomFile> RandomFile::open(const std::string& path) {
  bool direct = false;
  const int handle = open_to_read(path, direct);
  if (handle < 0) return failure("Cannot open", path, errno);
  return RandomFile(path, handle, direct);
}

Result<RandomFile> RandomFile::create_nameless(const std::string& folder) {
  std::string path;
  bool direct = false;
  const int handle = make_nameless(folder, path, direct);
  if (handle < 0) return failure("Cannot create a file in", folder, errno);
  return RandomFile(path, handle, direct);
}

RandomFile::RandomFile(RandomFile&& other) noexcept
    : path_(std::move(other.path_)),
      handle_(std::exchange(other.handle_, -1)),
      direct_(other.direct_) {}

RandomFile& RandomFile::operator=(RandomFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(handle_, other.handle_);
  std::swap(direct_, other.direct_);
  return *this;
}

RandomFile::~RandomFile() {
  if (handle_ >= 0) close_handle(handle_);
}

Status RandomFile::read(int64_t offset, std::span<std::byte> bytes) const {
  return read(offset, std::span(&bytes, 1));
}

Status RandomFile::read(int64_t offset, std::span<std::span<std::byte>> parts) const {
  int64_t at = offset;
  while (!parts.empty()) {
    const int64_t n = read_at(handle_, parts.first(std::min(parts.size(), parts_at_once)), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure("Cannot read", path_, errno);
    if (n == 0) return Status::corrupt(path_ + " is shorter than it should be; it was cut off.");
    at += n;
    for (size_t left = size_t(n); left > 0;) {
      const size_t taken = std::min(left, parts.front().size());
      parts.front() = parts.front().subspan(taken);
      left -= taken;
      if (parts.front().empty()) parts = parts.subspan(1);
    }
  }
  if (!direct_) forget_cached(handle_, offset, size_t(at - offset));
  return {};
}

Status RandomFile::write(int64_t offset, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const int64_t n = write_at(handle_, bytes.subspan(done), offset + int64_t(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure("Cannot write", path_, errno);
    done += size_t(n);
  }
  if (!direct_) forget_cached(handle_, offset, bytes.size());
  return {};
}

}  // namespace nosa
