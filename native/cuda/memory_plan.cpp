#include "cuda/memory_plan.h"

#include <algorithm>

#include "cuda/decode_step.h"
#include "cuda/device_model.h"
#include "cuda/lane_memory.h"
#include "cuda/page_pool.h"
#include "cuda/prefill.h"
#include "kernels/linear.h"

namespace nosa::cuda {
namespace {

/// Left to the driver: its own tables, graphs and the raw weights on their way.
constexpr size_t reserve_bytes = size_t(256) << 20;
constexpr int n_blocks_wanted = 2048;  // 128 k tokens
constexpr int n_blocks_least = 64;
constexpr int n_lanes_least = 4;
/// Lanes may take one part in so many of what the weights leave.
constexpr size_t lanes_share = 16;

std::string mebibytes(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

void count(MemoryPlan& plan, const ModelSource& source) {
  const ModelShape& shape = source.shape;
  const RunnerOptions& o = plan.options;
  const int n_slots = o.resident ? 0 : o.n_slots;
  const size_t page_bytes = kv_shape(shape).extent_bytes() * size_t(shape.n_streams());
  plan.weights_bytes = DeviceModel::bytes_for(source);
  plan.side_car_bytes = size_t(o.n_pages) * PagePool::side_car_bytes(shape);
  plan.resident_bytes = o.resident ? size_t(o.n_pages) * page_bytes : 0;
  plan.host_bytes = o.resident ? 0 : size_t(o.n_pages) * page_bytes;
  plan.lanes_bytes = size_t(o.n_lanes) * LaneMemory::lane_bytes(shape, o.n_blocks_max, n_slots);
  plan.arena_bytes = o.resident ? 0 : size_t(o.n_arena_pages) * page_bytes;
  plan.step_bytes = DecodeStep::bytes_for(shape, o.n_lanes, o.n_blocks_max, n_slots, o.step, o.n_seqs_max);
  plan.prefill_bytes = Prefill::bytes_for(shape, o.chunk_tokens, o.n_blocks_max);
}

int lanes_in(const ModelSource& source, const RunnerOptions& o, size_t budget) {
  const size_t weights = DeviceModel::bytes_for(source);
  const size_t lane = LaneMemory::lane_bytes(source.shape, o.n_blocks_max, o.resident ? 0 : o.n_slots);
  const size_t n = budget > weights ? (budget - weights) / lanes_share / lane : 0;
  return int(std::clamp(n, size_t(n_lanes_least), size_t(kLinearRowsMax)));
}

}  // namespace

std::string MemoryPlan::describe() const {
  std::string text = "weights " + mebibytes(weights_bytes) + ", side-cars " + mebibytes(side_car_bytes);
  if (options.resident) text += ", keys and values " + mebibytes(resident_bytes);
  text += ", " + std::to_string(options.n_lanes) + " lanes " + mebibytes(lanes_bytes);
  if (!options.resident) text += ", prefill blocks " + mebibytes(arena_bytes);
  text += ", activations " + mebibytes(step_bytes + prefill_bytes) + "; pinned host memory " + mebibytes(host_bytes);
  return text;
}

Result<MemoryPlan> plan_memory(const ModelSource& source, const RunnerOptions& options, size_t free_bytes) {
  const ModelShape& shape = source.shape;
  const size_t page_bytes = kv_shape(shape).extent_bytes() * size_t(shape.n_streams());
  size_t budget = free_bytes > reserve_bytes ? free_bytes - reserve_bytes : 0;
  if (options.device_bytes_max > 0) budget = std::min(budget, options.device_bytes_max);

  MemoryPlan plan;
  plan.options = options;
  RunnerOptions& o = plan.options;
  if (o.n_blocks_max == 0) o.n_blocks_max = n_blocks_wanted;
  if (o.n_pages == 0) {
    o.n_pages = o.resident ? o.n_blocks_max
                           : int(std::min<size_t>(options.host_bytes_max / page_bytes, size_t(1) << 20));
  }
  if (o.n_arena_pages == 0) o.n_arena_pages = std::min(o.n_blocks_max, o.n_pages);
  if (o.n_lanes == 0) o.n_lanes = lanes_in(source, o, budget);
  if (o.n_seqs_max == 0) o.n_seqs_max = o.n_lanes;
  count(plan, source);
  // A prefill beyond its arena goes a few tokens at a time: what it wants yields first, then the length of a sequence.
  while (!o.resident && options.n_arena_pages == 0 && plan.device_bytes() > budget && o.n_arena_pages > n_blocks_least) {
    o.n_arena_pages = std::max(n_blocks_least, o.n_arena_pages / 2);
    count(plan, source);
  }
  while (options.n_pages == 0 && plan.device_bytes() > budget && o.n_pages > n_blocks_least) {
    o.n_pages = std::max(n_blocks_least, o.n_pages / 2);
    o.n_blocks_max = std::min(o.n_blocks_max, o.n_pages);
    count(plan, source);
  }
  if (plan.device_bytes() <= budget) return plan;
  return Status::out_of_memory("The model needs " + mebibytes(plan.device_bytes()) + " of device memory (" +
                               plan.describe() + "), but only " + mebibytes(budget) +
                               " are to be had. Fewer lanes or slots, shorter sequences or a smaller model would fit.");
}

}  // namespace nosa::cuda
