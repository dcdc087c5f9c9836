#include "kv/random_file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace nosa {
namespace {

Status failure(const std::string& what, const std::string& path, int error) {
  const std::string message = what + " " + path + ": " + std::strerror(error) + ".";
  if (error == ENOENT) return Status::not_found(message);
  if (error == ENOSPC || error == EDQUOT) {
    return Status::no_space(message + " Free some space, or lower the disk budget.");
  }
  return Status::io(message);
}

#ifdef O_DIRECT
constexpr int kDirectFlag = O_DIRECT;
#else
constexpr int kDirectFlag = 0;
#endif

/// Parts of one system call; every system takes more.
constexpr size_t parts_at_once = 16;

/// Not every file system takes direct transfers; those that do not say so when a file is opened.
int open_direct(const char* path, int flags, bool& direct) {
  const int handle = ::open(path, flags | kDirectFlag | O_CLOEXEC, 0600);
  direct = handle >= 0 && kDirectFlag != 0;
  if (handle >= 0 || errno != EINVAL) return handle;
  return ::open(path, flags | O_CLOEXEC, 0600);
}

/// Tells the system that it need not keep what it cached of a transfer.
void forget_cached(int handle, int64_t offset, size_t n_bytes) {
#ifdef POSIX_FADV_DONTNEED
  posix_fadvise(handle, offset, off_t(n_bytes), POSIX_FADV_DONTNEED);
#else
  (void)handle, (void)offset, (void)n_bytes;
#endif
}

}  // namespace

Result<RandomFile> RandomFile::open(const std::string& path) {
  bool direct = false;
  const int handle = open_direct(path.c_str(), O_RDONLY, direct);
  if (handle < 0) return failure("Cannot open", path, errno);
  return RandomFile(path, handle, direct);
}

Result<RandomFile> RandomFile::create_nameless(const std::string& folder) {
  std::string path = folder + "/spill-XXXXXX";
  const int named = ::mkstemp(path.data());
  if (named < 0) return failure("Cannot create a file in", folder, errno);
  // Opened again, because mkstemp takes no flags; unlinked, so that a crash leaves nothing behind.
  bool direct = false;
  const int handle = open_direct(path.c_str(), O_RDWR, direct);
  const int error = errno;
  ::close(named);
  ::unlink(path.c_str());
  if (handle < 0) return failure("Cannot create a file in", folder, error);
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
  if (handle_ >= 0) ::close(handle_);
}

Status RandomFile::read(int64_t offset, std::span<std::byte> bytes) const {
  return read(offset, std::span(&bytes, 1));
}

Status RandomFile::read(int64_t offset, std::span<std::span<std::byte>> parts) const {
  std::array<iovec, parts_at_once> pieces;
  int64_t at = offset;
  while (!parts.empty()) {
    const size_t n_pieces = std::min(parts.size(), pieces.size());
    for (size_t i = 0; i < n_pieces; ++i) pieces[i] = {parts[i].data(), parts[i].size()};
    const ssize_t n = ::preadv(handle_, pieces.data(), int(n_pieces), off_t(at));
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
    const ssize_t n =
        ::pwrite(handle_, bytes.data() + done, bytes.size() - done, off_t(offset) + off_t(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure("Cannot write", path_, errno);
    done += size_t(n);
  }
  if (!direct_) forget_cached(handle_, offset, bytes.size());
  return {};
}

}  // namespace nosa
