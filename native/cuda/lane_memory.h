#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"
#include "cuda/device_memory.h"
#include "cuda/model_source.h"
#include "cuda/page_pool.h"
#include "kernels/layout.h"
#include "kernels/read_rows.h"

namespace nosa::cuda {

/// What a lane is bound to: the blocks of a sequence, attended ones first.
struct LaneBinding {
  std::span<const int32_t> pages;    // [n_blocks]
  std::span<const BlockInfo> info;   // [n_attended]
  int n_attended = 0;
  int n_tokens = 0;                  // own ones
  int base_position = 0;
  std::span<const int32_t> preload;  // Blocks that every stream starts with; no more than there are slots.
};

/// The places on the device where sequences decode: their tables, and their slots for extents. With a
/// resident pool there are no slots.
///
/// Not thread-safe; all work goes to the stream that is given.
class LaneMemory {
 public:
  static Result<LaneMemory> create(const ModelShape& shape, const PagePool& pool, int n_lanes, int n_blocks_max,
                                   int n_slots);

  LaneMemory(LaneMemory&&) = default;
  LaneMemory& operator=(LaneMemory&&) = default;

  /// Points `lane` to a sequence and brings the preloaded blocks into its slots.
  Status bind(int lane, const LaneBinding& binding, const PagePool& pool, cudaStream_t stream);

  /// Adds own pages [first, first + pages.size()) of a bound lane, numbered as all of its blocks.
  Status add_pages(int lane, int first, std::span<const int32_t> pages, cudaStream_t stream);

  Status set_n_tokens(int lane, int n_tokens, cudaStream_t stream);

  /// Copies block `block` out of the slots to its page in host memory. REQUIRES: not resident.
  Status write_back(int lane, int block, int page, const PagePool& pool, cudaStream_t stream);

  /// Fills in where rows of `block`, whose page is `page`, lie on the device, and its page's scores.
  void locate(int lane, int block, int page, const PagePool& pool, ReadRowsParams& params) const;

  LaneBlocks blocks() const;
  StreamSlots stream_slots(int layer) const;
  KvPool slots(int layer) const;
  int32_t* n_tokens() const { return n_tokens_.as<int32_t>(); }            // [n_lanes]
  const int32_t* base_positions() const { return base_positions_.as<int32_t>(); }  // [n_lanes]

  int n_lanes() const { return n_lanes_; }
  int n_slots() const { return n_slots_; }
  int n_blocks_max() const { return n_blocks_max_; }

  /// Device bytes that one lane takes.
  static size_t lane_bytes(const ModelShape& shape, int n_blocks_max, int n_slots);

 private:
  LaneMemory() = default;
  Status fill_slots(int lane, const LaneBinding& binding, const PagePool& pool, cudaStream_t stream);

  ModelShape shape_;
  int n_lanes_ = 0;
  int n_blocks_max_ = 0;
  int n_slots_ = 0;
  size_t extent_bytes_ = 0;
  DeviceBuffer pages_;           // i32 [n_lanes, n_blocks_max]
  DeviceBuffer info_;            // BlockInfo [n_lanes, n_blocks_max]
  DeviceBuffer n_attended_;      // i32 [n_lanes]
  DeviceBuffer n_tokens_;        // i32 [n_lanes]
  DeviceBuffer base_positions_;  // i32 [n_lanes]
  DeviceBuffer slots_;           // [n_lanes, n_layers, n_kv_heads, n_slots] extents
  DeviceBuffer slot_of_block_;   // i16 [n_layers, n_lanes, n_kv_heads, n_blocks_max]
  DeviceBuffer block_of_slot_;   // i32 [n_layers, n_lanes, n_kv_heads, n_slots]
  DeviceBuffer last_step_;       // u32 likewise
  DeviceBuffer preload_;         // i32 [2, n_slots]: pages, and the slots they go to
};

}  // namespace nosa::cuda
