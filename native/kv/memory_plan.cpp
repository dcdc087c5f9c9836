#include "kv/memory_plan.h"

#include <algorithm>
#include <cstdio>

#include "core/check.h"

namespace nosa {
namespace {

// Of one extent in the tables of store and disk: holders, slots, address, use, place and checksum.
constexpr int64_t kEntryBytes = 96;

int64_t blocks_in(int64_t n_tokens) { return (n_tokens + kBlockTokens - 1) / kBlockTokens; }

std::string megabytes(int64_t n_bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f MB", double(n_bytes) / 1e6);
  return text;
}

}  // namespace

int64_t side_car_bytes(const KvShape& shape, int64_t n_tokens, bool token_scores) {
  const int64_t key_bytes = int64_t(shape.head_dim) * int64_t(shape.value_bytes());
  const int64_t n_windows = n_tokens / kWindowStride;
  const int64_t head_bytes =
      n_windows * (key_bytes + int64_t(sizeof(float))) + (token_scores ? n_tokens * int64_t(sizeof(float)) : 0);
  return head_bytes * shape.extents_per_block();
}

Result<MemoryPlan> plan_memory(const MemoryDemand& demand) {
  CHECK(demand.context_tokens >= 0 && demand.tail_tokens >= 0);
  const KvShape& shape = demand.shape;
  const int64_t block_bytes = int64_t(shape.extent_bytes()) * shape.extents_per_block();
  const int64_t n_blocks = blocks_in(demand.context_tokens) + blocks_in(demand.tail_tokens);

  MemoryPlan plan;
  plan.side_car_bytes = side_car_bytes(shape, demand.context_tokens, demand.token_scores) +
                        side_car_bytes(shape, demand.tail_tokens, true);
  plan.index_bytes = n_blocks * shape.extents_per_block() * kEntryBytes;
  plan.disk_bytes = blocks_in(demand.context_tokens) * block_bytes +
                    side_car_bytes(shape, demand.context_tokens, demand.token_scores);
  if (plan.disk_bytes > demand.disk_bytes_max) {
    return Status::no_space("The context takes " + megabytes(plan.disk_bytes) +
                            " on disk, and its budget is " + megabytes(demand.disk_bytes_max) +
                            "; raise the disk budget or read fewer files.");
  }

  // One layer's step: what every KV head selected, or the segment that is being read.
  const int64_t step_blocks = std::max<int64_t>(demand.selection.total_blocks,
                                                blocks_in(demand.segment_tokens) + 1);
  const int64_t least_bytes = step_blocks * shape.n_kv_heads * int64_t(shape.extent_bytes());
  const int64_t left = demand.memory_bytes_max - plan.side_car_bytes - plan.index_bytes;
  if (left < least_bytes) {
    const int64_t needed = plan.side_car_bytes + plan.index_bytes + least_bytes;
    return Status::out_of_memory("A context of " + std::to_string(demand.context_tokens) +
                                 " tokens needs at least " + megabytes(needed) +
                                 " of memory, and its budget is " + megabytes(demand.memory_bytes_max) +
                                 "; raise the memory budget or read fewer files.");
  }
  plan.block_bytes = std::min(left, n_blocks * block_bytes);
  plan.resident_tokens = plan.block_bytes / block_bytes * kBlockTokens;
  return plan;
}

std::string MemoryPlan::describe() const {
  return megabytes(memory_bytes()) + " in memory (" + megabytes(block_bytes) + " blocks, " +
         megabytes(side_car_bytes) + " side-cars, " + megabytes(index_bytes) + " tables), " +
         megabytes(disk_bytes) + " on disk";
}

}  // namespace nosa
