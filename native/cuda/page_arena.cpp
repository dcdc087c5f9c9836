#include "cuda/page_arena.h"

#include <algorithm>

#include "core/check.h"
#include "cuda/cuda_status.h"

namespace nosa::cuda {

Result<PageArena> PageArena::create(PagePool& pool, int n_places) {
  PageArena arena(pool);
  if (pool.resident()) {
    arena.n_places_ = pool.n_pages();
    return arena;
  }
  arena.n_places_ = std::min(n_places, pool.n_pages());
  Result<DeviceBuffer> memory = DeviceBuffer::create(size_t(arena.n_places_) * pool.page_bytes(), "the blocks of a prefill");
  if (!memory.ok()) return memory.status();
  arena.memory_ = *std::move(memory);
  arena.place_of_page_.assign(size_t(pool.n_pages()), -1);
  arena.page_of_place_.assign(size_t(arena.n_places_), -1);
  arena.last_use_.assign(size_t(arena.n_places_), 0);
  return arena;
}

Status PageArena::load(std::span<const int32_t> pages, int n_filled, std::vector<int32_t>& places, cudaStream_t stream) {
  CHECK(pages.size() <= size_t(n_places_));
  places.assign(pages.begin(), pages.end());
  if (pool_->resident()) return {};
  // What is here already is in use before anything is put out.
  clock_ += 1;
  for (const int32_t page : pages) {
    if (const int place = place_of_page_[size_t(page)]; place >= 0) last_use_[size_t(place)] = clock_;
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    const int32_t page = pages[i];
    int place = place_of_page_[size_t(page)];
    if (place < 0) {
      place = free_place();
      place_of_page_[size_t(page)] = place;
      page_of_place_[size_t(place)] = page;
      last_use_[size_t(place)] = clock_;
      if (int(i) < n_filled) {
        NOSA_CUDA_TRY(cudaMemcpyAsync(place_data(place), pool_->host(page), pool_->page_bytes(), cudaMemcpyHostToDevice,
                                      stream),
                      "Bringing blocks to the device");
      }
    }
    places[i] = place;
  }
  return {};
}

Status PageArena::store(std::span<const int32_t> pages, cudaStream_t stream) {
  if (pool_->resident()) return {};
  for (const int32_t page : pages) {
    const int place = place_of_page_[size_t(page)];
    CHECK(place >= 0);
    NOSA_CUDA_TRY(cudaMemcpyAsync(pool_->host(page), place_data(place), pool_->page_bytes(), cudaMemcpyDeviceToHost, stream),
                  "Bringing blocks to host memory");
  }
  return {};
}

void PageArena::forget(int page) {
  if (pool_->resident()) return;
  int32_t& place = place_of_page_[size_t(page)];
  if (place < 0) return;
  page_of_place_[size_t(place)] = -1;
  last_use_[size_t(place)] = 0;
  place = -1;
}

// An empty place, else the one longest unused, which is emptied.
int PageArena::free_place() {
  const size_t place = size_t(std::ranges::min_element(last_use_) - last_use_.begin());
  CHECK(last_use_[place] < clock_);
  if (const int32_t page = page_of_place_[place]; page >= 0) place_of_page_[size_t(page)] = -1;
  return int(place);
}

KvPool PageArena::extents(int layer) const {
  KvPool extents = pool_->extents(layer);
  // The same order within a page as in the pool.
  if (!pool_->resident()) extents.base = memory_.data() + (extents.base - pool_->extents(0).base);
  return extents;
}

}  // namespace nosa::cuda
