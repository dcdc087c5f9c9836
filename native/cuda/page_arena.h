#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/page_pool.h"

namespace nosa::cuda {

/// Device copies of pages for a prefill, which reads and writes whole blocks of one sequence after the
/// other. Keeps what fits, so that the next chunk finds what the last one left. With a resident pool the
/// pages themselves are on the device and nothing is copied.
///
/// Not thread-safe.
class PageArena {
 public:
  /// `pool` must outlive the arena. `n_places` does not matter when the pool is resident.
  static Result<PageArena> create(PagePool& pool, int n_places);

  PageArena(PageArena&&) = default;

  /// Most pages that a chunk may see at once.
  int n_places() const { return n_places_; }

  /// Brings `pages` onto the device, in the order of `stream`, and says where each is: `places`, as many.
  /// The first `n_filled` of them are copied from the pool unless they are there already; what the others
  /// hold has no meaning yet. REQUIRES: no more pages than places.
  Status load(std::span<const int32_t> pages, int n_filled, std::vector<int32_t>& places, cudaStream_t stream);

  /// Copies pages that were written here to the pool. REQUIRES: loaded by the last load().
  Status store(std::span<const int32_t> pages, cudaStream_t stream);

  /// The pool's bytes of `page` changed, or the page was given up: the copy here is void.
  void forget(int page);

  /// Extents of a layer by place.
  KvPool extents(int layer) const;

 private:
  explicit PageArena(PagePool& pool) : pool_(&pool) {}

  std::byte* place_data(int place) const { return memory_.data() + size_t(place) * pool_->page_bytes(); }
  int free_place();

  PagePool* pool_;
  int n_places_ = 0;
  DeviceBuffer memory_;                // [n_places, n_layers, n_kv_heads] extents
  std::vector<int32_t> place_of_page_;  // -1 for none
  std::vector<int32_t> page_of_place_;  // -1 for none
  std::vector<uint64_t> last_use_;      // By place.
  uint64_t clock_ = 0;
};

}  // namespace nosa::cuda
