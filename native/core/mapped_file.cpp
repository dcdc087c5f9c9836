#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace nosa {
namespace {

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
  if (error == ENOENT || error == ENOTDIR) {
    return Status::not_found(path + " does not exist; check the path or download the model again");
  }
  if (error == EACCES || error == EPERM) {
    return Status::io(path + " may not be read by you; change its permissions");
  }
  return Status::io(path + " cannot be opened: " + std::strerror(error));
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return open_failure(path, errno);

  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return open_failure(path, errno);
  if (S_ISDIR(info.st_mode)) {
    return Status::invalid_argument(path + " is a folder; name a file in it");
  }
  if (!S_ISREG(info.st_mode)) {
    return Status::invalid_argument(path + " is not a plain file; name one");
  }

  // The system refuses to map nothing; there is nothing to map either.
  if (info.st_size == 0) return MappedFile(nullptr, 0);
  const auto n_bytes = static_cast<size_t>(info.st_size);
  void* data = ::mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    return Status::io(path + " cannot be mapped into memory: " + std::strerror(errno));
  }
  return MappedFile(static_cast<const std::byte*>(data), n_bytes);
}

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
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), n_bytes_);
  data_ = nullptr;
  n_bytes_ = 0;
}

}  // namespace nosa
