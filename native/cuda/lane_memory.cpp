#include "cuda/lane_memory.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "kernels/copy_extents.h"
#include "kernels/write_back.h"

namespace nosa::cuda {
namespace {

template <typename T>
Status upload(T* to, std::span<const T> from, cudaStream_t stream, const char* what) {
  if (from.empty()) return {};
  NOSA_CUDA_TRY(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream), what);
  return {};
}

/// One lane's part of every layer of a table [n_layers, n_lanes, lane_bytes].
Status upload_layers(std::byte* table, const void* from, int lane, size_t lane_bytes, int n_lanes, int n_layers,
                     cudaStream_t stream) {
  NOSA_CUDA_TRY(cudaMemcpy2DAsync(table + size_t(lane) * lane_bytes, size_t(n_lanes) * lane_bytes, from, lane_bytes,
                                  lane_bytes, size_t(n_layers), cudaMemcpyHostToDevice, stream),
                "Setting the slots of a lane");
  return {};
}

}  // namespace

size_t LaneMemory::lane_bytes(const ModelShape& shape, int n_blocks_max, int n_slots) {
  const size_t n_streams = size_t(shape.n_streams());
  const size_t tables = size_t(n_blocks_max) * (sizeof(int32_t) + sizeof(BlockInfo)) + 3 * sizeof(int32_t);
  const size_t maps = n_slots == 0 ? 0 : n_streams * (size_t(n_blocks_max) * sizeof(int16_t) + size_t(n_slots) * 8);
  return tables + maps + n_streams * size_t(n_slots) * kv_shape(shape).extent_bytes();
}

Result<LaneMemory> LaneMemory::create(const ModelShape& shape, const PagePool& pool, int n_lanes, int n_blocks_max,
                                      int n_slots) {
  CHECK(pool.resident() == (n_slots == 0));
  LaneMemory memory;
  memory.shape_ = shape;
  memory.n_lanes_ = n_lanes;
  memory.n_blocks_max_ = n_blocks_max;
  memory.n_slots_ = n_slots;
  memory.extent_bytes_ = pool.extent_bytes();
  const size_t lanes = size_t(n_lanes);
  const size_t blocks = size_t(n_blocks_max);
  const size_t streams = lanes * size_t(shape.n_streams());
  const size_t slots = streams * size_t(n_slots);
  struct Part {
    DeviceBuffer* buffer;
    size_t bytes;
  };
  const Part parts[] = {{&memory.pages_, lanes * blocks * sizeof(int32_t)},
                        {&memory.info_, lanes * blocks * sizeof(BlockInfo)},
                        {&memory.n_attended_, lanes * sizeof(int32_t)},
                        {&memory.n_tokens_, lanes * sizeof(int32_t)},
                        {&memory.base_positions_, lanes * sizeof(int32_t)},
                        {&memory.slots_, slots * memory.extent_bytes_},
                        {&memory.slot_of_block_, n_slots == 0 ? 0 : streams * blocks * sizeof(int16_t)},
                        {&memory.block_of_slot_, slots * sizeof(int32_t)},
                        {&memory.last_step_, slots * sizeof(uint32_t)},
                        {&memory.preload_, 2 * size_t(n_slots) * sizeof(int32_t)}};
  for (const Part& part : parts) {
    Result<DeviceBuffer> buffer = DeviceBuffer::create(part.bytes, "the slots of sequences");
    if (!buffer.ok()) return buffer.status();
    *part.buffer = *std::move(buffer);
  }
  return memory;
}

Status LaneMemory::bind(int lane, const LaneBinding& binding, const PagePool& pool, cudaStream_t stream) {
  CHECK(lane >= 0 && lane < n_lanes_);
  const size_t n_blocks = binding.pages.size();
  if (n_blocks > size_t(n_blocks_max_)) {
    return Status::out_of_memory("The sequence and what it attends have " + std::to_string(n_blocks) +
                                 " blocks, but the plan of the device memory has room for " +
                                 std::to_string(n_blocks_max_) + ".");
  }
  const size_t row = size_t(lane) * size_t(n_blocks_max_);
  constexpr const char* what = "Binding a sequence to the device";
  NOSA_TRY(upload(pages_.as<int32_t>() + row, binding.pages, stream, what));
  // Own blocks have no flags, and whoever was here before may have left some.
  NOSA_CUDA_TRY(cudaMemsetAsync(info_.as<BlockInfo>() + row, 0, size_t(n_blocks_max_) * sizeof(BlockInfo), stream), what);
  NOSA_TRY(upload(info_.as<BlockInfo>() + row, binding.info, stream, what));
  NOSA_TRY(upload(n_attended_.as<int32_t>() + lane, std::span<const int32_t>(&binding.n_attended, 1), stream, what));
  NOSA_TRY(upload(base_positions_.as<int32_t>() + lane, std::span<const int32_t>(&binding.base_position, 1), stream, what));
  NOSA_TRY(set_n_tokens(lane, binding.n_tokens, stream));
  if (n_slots_ > 0) NOSA_TRY(fill_slots(lane, binding, pool, stream));
  return {};
}

// Every stream starts alike: preloaded block i in slot i.
Status LaneMemory::fill_slots(int lane, const LaneBinding& binding, const PagePool& pool, cudaStream_t stream) {
  const int n = int(binding.preload.size());
  CHECK(n <= n_slots_);
  const size_t n_streams = size_t(shape_.n_streams());
  std::vector<int16_t> slot_of_block(n_streams * size_t(n_blocks_max_), -1);
  std::vector<int32_t> block_of_slot(n_streams * size_t(n_slots_), -1);
  const std::vector<uint32_t> last_step(n_streams * size_t(n_slots_), 0);
  for (size_t s = 0; s < n_streams; ++s) {
    for (int i = 0; i < n; ++i) {
      slot_of_block[s * size_t(n_blocks_max_) + size_t(binding.preload[size_t(i)])] = int16_t(i);
      block_of_slot[s * size_t(n_slots_) + size_t(i)] = binding.preload[size_t(i)];
    }
  }
  const size_t heads = size_t(shape_.n_kv_heads);
  NOSA_TRY(upload_layers(slot_of_block_.data(), slot_of_block.data(), lane,
                         heads * size_t(n_blocks_max_) * sizeof(int16_t), n_lanes_, shape_.n_layers, stream));
  NOSA_TRY(upload_layers(block_of_slot_.data(), block_of_slot.data(), lane, heads * size_t(n_slots_) * sizeof(int32_t),
                         n_lanes_, shape_.n_layers, stream));
  NOSA_TRY(upload_layers(last_step_.data(), last_step.data(), lane, heads * size_t(n_slots_) * sizeof(uint32_t),
                         n_lanes_, shape_.n_layers, stream));

  std::vector<int32_t> lists(size_t(2) * size_t(n));
  for (int i = 0; i < n; ++i) {
    lists[size_t(i)] = binding.pages[size_t(binding.preload[size_t(i)])];
    lists[size_t(n + i)] = i;
  }
  NOSA_TRY(upload(preload_.as<int32_t>(), std::span<const int32_t>(lists), stream, "Preloading blocks"));
  CopyExtentsParams copy;
  copy.from.base = pool.extents(0).base;
  copy.from.stream_stride = int64_t(extent_bytes_);
  copy.from.index_stride = int64_t(pool.page_bytes());
  copy.from.index = preload_.as<int32_t>();
  copy.to.base = slots(0).base + size_t(lane) * slots(0).lane_stride;
  copy.to.stream_stride = int64_t(size_t(n_slots_) * extent_bytes_);
  copy.to.index_stride = int64_t(extent_bytes_);
  copy.to.index = preload_.as<int32_t>() + n;
  copy.n_streams = shape_.n_streams();
  copy.n_extents = n;
  copy.extent_bytes = int64_t(extent_bytes_);
  return to_status(copy_extents(copy, stream), "Preloading blocks");
}

Status LaneMemory::add_pages(int lane, int first, std::span<const int32_t> pages, cudaStream_t stream) {
  if (size_t(first) + pages.size() > size_t(n_blocks_max_)) {
    return Status::out_of_memory("The sequence grows beyond the " + std::to_string(n_blocks_max_) +
                                 " blocks that the plan of the device memory has room for.");
  }
  return upload(pages_.as<int32_t>() + size_t(lane) * size_t(n_blocks_max_) + first, pages, stream, "Adding blocks to a lane");
}

Status LaneMemory::set_n_tokens(int lane, int n_tokens, cudaStream_t stream) {
  return upload(n_tokens_.as<int32_t>() + lane, std::span<const int32_t>(&n_tokens, 1), stream, "Setting a length");
}

Status LaneMemory::write_back(int lane, int block, int page, const PagePool& pool, cudaStream_t stream) {
  CHECK(n_slots_ > 0);
  const StreamSlots maps = stream_slots(0);
  WriteBackParams params;
  params.slots = slots(0).base + size_t(lane) * slots(0).lane_stride;
  params.slot_of_block = maps.slot_of_block + size_t(lane) * size_t(shape_.n_kv_heads) * size_t(n_blocks_max_) + block;
  params.slot_layer_stride = int64_t(n_lanes_) * shape_.n_kv_heads * n_blocks_max_;
  params.slot_head_stride = n_blocks_max_;
  params.page = pool.extents(0).base + size_t(page) * pool.page_bytes();
  params.n_layers = shape_.n_layers;
  params.n_kv_heads = shape_.n_kv_heads;
  params.n_slots = n_slots_;
  params.extent_bytes = int64_t(extent_bytes_);
  return to_status(cuda::write_back(params, stream), "Writing a block back");
}

void LaneMemory::locate(int lane, int block, int page, const PagePool& pool, ReadRowsParams& params) const {
  const KvPool extents = n_slots_ > 0 ? slots(0) : pool.extents(0);
  const SideCarView side_car = pool.side_car(0);
  params.extents = extents.base + size_t(lane) * extents.lane_stride;
  params.head_stride = int64_t(extents.head_stride);
  params.layer_stride = int64_t(extents.head_stride) * shape_.n_kv_heads;
  params.index_stride = int64_t(extents.index_stride);
  if (n_slots_ > 0) {
    params.slot_of_block = stream_slots(0).slot_of_block + size_t(lane) * size_t(shape_.n_kv_heads) * size_t(n_blocks_max_) + block;
    params.slot_layer_stride = int64_t(n_lanes_) * shape_.n_kv_heads * n_blocks_max_;
    params.slot_head_stride = n_blocks_max_;
  }
  params.token_scores = side_car.token_scores;
  params.page = page;
  params.n_pages = side_car.n_pages;
  params.n_layers = shape_.n_layers;
  params.n_kv_heads = shape_.n_kv_heads;
  params.head_dim = shape_.head_dim;
}

LaneBlocks LaneMemory::blocks() const {
  return {pages_.as<int32_t>(), info_.as<BlockInfo>(), n_attended_.as<int32_t>(), n_blocks_max_};
}

StreamSlots LaneMemory::stream_slots(int layer) const {
  const size_t first = size_t(layer) * size_t(n_lanes_) * size_t(shape_.n_kv_heads);
  return {slot_of_block_.as<int16_t>() + first * size_t(n_blocks_max_),
          block_of_slot_.as<int32_t>() + first * size_t(n_slots_), last_step_.as<uint32_t>() + first * size_t(n_slots_),
          n_slots_};
}

KvPool LaneMemory::slots(int layer) const {
  const size_t stream_bytes = size_t(n_slots_) * extent_bytes_;
  KvPool pool;
  pool.base = slots_.data() + size_t(layer) * size_t(shape_.n_kv_heads) * stream_bytes;
  pool.lane_stride = size_t(shape_.n_streams()) * stream_bytes;
  pool.head_stride = stream_bytes;
  pool.index_stride = extent_bytes_;
  return pool;
}

}  // namespace nosa::cuda
