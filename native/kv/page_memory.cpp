#include "kv/page_memory.h"

#include <string>
#include <utility>

#include "core/check.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace nosa {
namespace {

#ifdef _WIN32
void* take_pages(size_t n_bytes) {
  return VirtualAlloc(nullptr, n_bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}
void give_back_pages(void* data, size_t) { VirtualFree(data, 0, MEM_RELEASE); }
#else
void* take_pages(size_t n_bytes) {
  void* data =
      mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
#ifdef MADV_DONTFORK
  // Programs that this process starts, such as git, need none of it: to copy its tables for each would hold everybody up.
  madvise(data, n_bytes, MADV_DONTFORK);
#endif
  return data;
}
void give_back_pages(void* data, size_t n_bytes) { munmap(data, n_bytes); }
#endif

}  // namespace

Result<PageMemory> PageMemory::map(size_t n_bytes) {
  CHECK(n_bytes > 0);
  void* data = take_pages(n_bytes);
  if (data == nullptr) {
    return Status::out_of_memory("The system has no " + std::to_string(n_bytes) +
                                 " bytes left for the KV cache; lower its memory budget.");
  }
  return PageMemory(static_cast<std::byte*>(data), n_bytes);
}

PageMemory::PageMemory(PageMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), n_bytes_(std::exchange(other.n_bytes_, 0)) {}

PageMemory& PageMemory::operator=(PageMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(n_bytes_, other.n_bytes_);
  return *this;
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) give_back_pages(data_, n_bytes_);
}

}  // namespace nosa
