#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/model_source.h"
#include "kernels/layout.h"
#include "kv/block.h"

namespace nosa::cuda {

/// The blocks of all sequences. A *page* is one block of 64 tokens, for all layers and KV heads: its
/// extents, [n_layers, n_kv_heads], lie together in pinned host memory, and its side-car on the device.
/// Pages are shared by counting their holders.
///
/// A resident pool has no host memory: its extents lie on the device for good.
///
/// Not thread-safe.
class PagePool {
 public:
  /// `host` is memory to use instead of taking some: at least n_pages * page_bytes().
  static Result<PagePool> create(const ModelShape& shape, int n_pages, bool resident,
                                 std::shared_ptr<PinnedBuffer> host = nullptr);

  PagePool(PagePool&&) = default;
  PagePool& operator=(PagePool&&) = default;

  /// A page with one holder and bytes of no meaning. Fails with kOutOfMemory.
  Result<int> take();
  void retain(int page) { ++holders_[size_t(page)]; }
  void release(int page);
  bool shared(int page) const { return holders_[size_t(page)] > 1; }

  /// Extents of `page` where the host reaches them, page_bytes(). REQUIRES: not resident.
  std::byte* host(int page) const { return host_->host() + size_t(page) * page_bytes_; }

  /// Copies extents and side-car of one page to another, in the order of `stream`.
  Status copy(int from, int to, cudaStream_t stream);

  /// Fills a page that nothing on the device uses: `extents` [n_layers * n_kv_heads] of extent_bytes() each, compressed keys
  /// f16 [n_layers * n_kv_heads, 4, head_dim], token scores [.., 64] and window scores [.., 4] of its side-car. All of
  /// them in host memory, which is free again when this returns.
  Status write(int page, const std::byte* const* extents, const uint16_t* compressed, const float* token_scores,
               const float* window_scores, cudaStream_t stream);

  /// Extents of `page` as they are, `to` [n_layers * n_kv_heads] of extent_bytes() each, in the order of `stream`; waits.
  Status read(int page, std::vector<std::byte>& to, cudaStream_t stream) const;

  /// Enqueues a copy of the side-car of `page` to host memory; each array as write() has it.
  Status read_side_car(int page, uint16_t* compressed, float* token_scores, float* window_scores, cudaStream_t stream) const;

  /// The extents of a layer by page number, as kernels see them; in host memory unless resident.
  KvPool extents(int layer) const;

  SideCarView side_car(int layer) const;

  bool resident() const { return resident_; }
  int n_pages() const { return n_pages_; }
  int n_free() const { return int(free_.size()); }
  size_t page_bytes() const { return page_bytes_; }
  size_t extent_bytes() const { return extent_bytes_; }

  /// Device bytes of the side-car of one page.
  static size_t side_car_bytes(const ModelShape& shape);

 private:
  PagePool() = default;

  ModelShape shape_;
  bool resident_ = false;
  int n_pages_ = 0;
  size_t extent_bytes_ = 0;
  size_t page_bytes_ = 0;
  std::shared_ptr<PinnedBuffer> host_;  // [n_pages, n_layers, n_kv_heads] extents
  DeviceBuffer device_;   // The same, when resident.
  DeviceBuffer compressed_;     // f16 [n_layers, n_kv_heads, n_pages, 4, head_dim]
  DeviceBuffer token_scores_;   // f32 [n_layers, n_kv_heads, n_pages, 64]
  DeviceBuffer window_scores_;  // f32 [n_layers, n_kv_heads, n_pages, 4]
  std::vector<int32_t> holders_;
  std::vector<int32_t> free_;
};

/// The shape of the cache as the rest of the native part sees it.
inline KvShape kv_shape(const ModelShape& shape) {
  return {shape.n_layers, shape.n_kv_heads, shape.head_dim, DType::kF16};
}

}  // namespace nosa::cuda
