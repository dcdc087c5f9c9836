#include "cuda/page_pool.h"

#include <cstring>
#include <utility>

#include "core/check.h"
#include "cuda/cuda_status.h"

namespace nosa::cuda {
namespace {

size_t compressed_bytes(const ModelShape& shape) { return size_t(kBlockWindows) * size_t(shape.head_dim) * sizeof(__half); }
constexpr size_t token_score_bytes = kBlockTokens * sizeof(float);
constexpr size_t window_score_bytes = kBlockWindows * sizeof(float);

}  // namespace

size_t PagePool::side_car_bytes(const ModelShape& shape) {
  return size_t(shape.n_streams()) * (compressed_bytes(shape) + token_score_bytes + window_score_bytes);
}

Result<PagePool> PagePool::create(const ModelShape& shape, int n_pages, bool resident,
                                  std::shared_ptr<PinnedBuffer> host) {
  PagePool pool;
  pool.shape_ = shape;
  pool.resident_ = resident;
  pool.n_pages_ = n_pages;
  pool.extent_bytes_ = kv_shape(shape).extent_bytes();
  pool.page_bytes_ = pool.extent_bytes_ * size_t(shape.n_streams());
  const size_t n_entries = size_t(n_pages) * size_t(shape.n_streams());

  if (resident) {
    Result<DeviceBuffer> extents = DeviceBuffer::create(size_t(n_pages) * pool.page_bytes_, "keys and values");
    if (!extents.ok()) return extents.status();
    pool.device_ = *std::move(extents);
  } else if (host != nullptr) {
    CHECK(host->bytes() >= size_t(n_pages) * pool.page_bytes_);
    pool.host_ = std::move(host);
  } else {
    Result<PinnedBuffer> extents = PinnedBuffer::create(size_t(n_pages) * pool.page_bytes_, "keys and values");
    if (!extents.ok()) return extents.status();
    pool.host_ = std::make_shared<PinnedBuffer>(*std::move(extents));
  }
  struct Part {
    DeviceBuffer* buffer;
    size_t entry_bytes;
  };
  for (const Part& part : {Part{&pool.compressed_, compressed_bytes(shape)}, Part{&pool.token_scores_, token_score_bytes},
                           Part{&pool.window_scores_, window_score_bytes}}) {
    Result<DeviceBuffer> buffer = DeviceBuffer::create(n_entries * part.entry_bytes, "the side-cars of blocks");
    if (!buffer.ok()) return buffer.status();
    *part.buffer = *std::move(buffer);
  }
  pool.holders_.assign(size_t(n_pages), 0);
  pool.free_.reserve(size_t(n_pages));
  for (int page = n_pages; page-- > 0;) pool.free_.push_back(page);
  return pool;
}

Result<int> PagePool::take() {
  if (free_.empty()) {
    return Status::out_of_memory("All " + std::to_string(n_pages_) + " blocks of 64 tokens that the memory for keys and values holds are taken.");
  }
  const int page = free_.back();
  free_.pop_back();
  holders_[size_t(page)] = 1;
  return page;
}

void PagePool::release(int page) {
  CHECK(holders_[size_t(page)] > 0);
  if (--holders_[size_t(page)] == 0) free_.push_back(page);
}

Status PagePool::copy(int from, int to, cudaStream_t stream) {
  if (resident_) {
    NOSA_CUDA_TRY(cudaMemcpyAsync(device_.data() + size_t(to) * page_bytes_, device_.data() + size_t(from) * page_bytes_,
                                  page_bytes_, cudaMemcpyDeviceToDevice, stream),
                  "Copying a block");
  } else {
    // A copy within host memory does not wait its turn in a stream.
    NOSA_CUDA_TRY(cudaStreamSynchronize(stream), "Copying a block");
    std::memcpy(host(to), host(from), page_bytes_);
  }
  struct Part {
    const DeviceBuffer& buffer;
    size_t entry_bytes;
  };
  for (const Part& part : {Part{compressed_, compressed_bytes(shape_)}, Part{token_scores_, token_score_bytes},
                           Part{window_scores_, window_score_bytes}}) {
    const size_t pitch = size_t(n_pages_) * part.entry_bytes;
    NOSA_CUDA_TRY(cudaMemcpy2DAsync(part.buffer.data() + size_t(to) * part.entry_bytes, pitch,
                                    part.buffer.data() + size_t(from) * part.entry_bytes, pitch, part.entry_bytes,
                                    size_t(shape_.n_streams()), cudaMemcpyDeviceToDevice, stream),
                  "Copying a block's side-car");
  }
  return {};
}

Status PagePool::write(int page, const std::byte* const* extents, const uint16_t* compressed, const float* token_scores,
                       const float* window_scores, cudaStream_t stream) {
  constexpr const char* what = "Bringing blocks to the device";
  const size_t n_streams = size_t(shape_.n_streams());
  for (size_t i = 0; i < n_streams; ++i) {
    if (resident_) {
      NOSA_CUDA_TRY(cudaMemcpyAsync(device_.data() + size_t(page) * page_bytes_ + i * extent_bytes_, extents[i], extent_bytes_,
                                    cudaMemcpyHostToDevice, stream),
                    what);
    } else {
      std::memcpy(host(page) + i * extent_bytes_, extents[i], extent_bytes_);
    }
  }
  struct Part {
    const DeviceBuffer& buffer;
    const void* from;
    size_t entry_bytes;
  };
  for (const Part& part : {Part{compressed_, compressed, compressed_bytes(shape_)}, Part{token_scores_, token_scores, token_score_bytes},
                           Part{window_scores_, window_scores, window_score_bytes}}) {
    NOSA_CUDA_TRY(cudaMemcpy2DAsync(part.buffer.data() + size_t(page) * part.entry_bytes, size_t(n_pages_) * part.entry_bytes,
                                    part.from, part.entry_bytes, part.entry_bytes, n_streams, cudaMemcpyHostToDevice, stream),
                  what);
  }
  return to_status(cudaStreamSynchronize(stream), what);
}

Status PagePool::read_side_car(int page, uint16_t* compressed, float* token_scores, float* window_scores, cudaStream_t stream) const {
  struct Part {
    void* to;
    const DeviceBuffer& buffer;
    size_t entry_bytes;
  };
  for (const Part& part : {Part{compressed, compressed_, compressed_bytes(shape_)}, Part{token_scores, token_scores_, token_score_bytes},
                           Part{window_scores, window_scores_, window_score_bytes}}) {
    NOSA_CUDA_TRY(cudaMemcpy2DAsync(part.to, part.entry_bytes, part.buffer.data() + size_t(page) * part.entry_bytes,
                                    size_t(n_pages_) * part.entry_bytes, part.entry_bytes, size_t(shape_.n_streams()),
                                    cudaMemcpyDeviceToHost, stream),
                  "Reading a block's side-car");
  }
  return {};
}

Status PagePool::read(int page, std::vector<std::byte>& to, cudaStream_t stream) const {
  to.resize(page_bytes_);
  if (resident_) {
    NOSA_CUDA_TRY(cudaMemcpyAsync(to.data(), device_.data() + size_t(page) * page_bytes_, page_bytes_, cudaMemcpyDeviceToHost, stream),
                  "Bringing blocks to host memory");
  }
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream), "Bringing blocks to host memory");
  if (!resident_) std::memcpy(to.data(), host(page), page_bytes_);
  return {};
}

KvPool PagePool::extents(int layer) const {
  KvPool pool;
  const size_t layer_bytes = extent_bytes_ * size_t(shape_.n_kv_heads);
  pool.base = (resident_ ? device_.data() : host_->device()) + size_t(layer) * layer_bytes;
  pool.lane_stride = 0;
  pool.head_stride = extent_bytes_;
  pool.index_stride = page_bytes_;
  return pool;
}

SideCarView PagePool::side_car(int layer) const {
  const size_t first = size_t(layer) * size_t(shape_.n_kv_heads) * size_t(n_pages_);
  SideCarView view;
  view.compressed = compressed_.as<__half>() + first * kBlockWindows * size_t(shape_.head_dim);
  view.token_scores = token_scores_.as<float>() + first * kBlockTokens;
  view.window_scores = window_scores_.as<float>() + first * kBlockWindows;
  view.n_pages = n_pages_;
  return view;
}

}  // namespace nosa::cuda
