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
/// Beyond `n_blocks_wanted`, an arena may take one part in so many of the memory: few attend to that much at once.
constexpr size_t arena_share = 8;
/// A longer sequence gets so much more room than it asks for, one part in so many, in whole steps of `growth_blocks`: it goes on
/// growing, and its pages are not the only ones.
constexpr int growth_share = 8;
constexpr int growth_blocks = 1024;
/// Kinds of steps beside the plan's that sequences may ask for: with long tables they are too large for the reserve.
constexpr size_t n_more_steps = 4;

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
  if (o.n_arena_pages == 0) {
    const size_t share = std::max<size_t>(n_blocks_wanted, budget / arena_share / page_bytes);
    o.n_arena_pages = int(std::min<size_t>(share, size_t(std::min(o.n_blocks_max, o.n_pages))));
  }
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

Result<MemoryPlan> plan_growth(const ModelSource& source, const MemoryPlan& now, int n_blocks, size_t host_bytes_max,
                               size_t free_bytes) {
  if (n_blocks > n_blocks_most) {
    return Status::unsupported("The GPU's kernels take sequences of up to " + std::to_string(n_blocks_most) + " blocks.");
  }
  const size_t page_bytes = kv_shape(source.shape).extent_bytes() * size_t(source.shape.n_streams());
  const size_t n_pages_most = std::min<size_t>(host_bytes_max / page_bytes, size_t(1) << 20);
  Status refused;
  // With room to grow, else without.
  for (const int extra : {n_blocks / growth_share, 0}) {
    RunnerOptions options = now.options;
    const int wanted = n_blocks + extra;
    options.n_blocks_max = extra == 0 ? wanted : std::min(n_blocks_most, (wanted + growth_blocks - 1) / growth_blocks * growth_blocks);
    const size_t n_pages = size_t(options.n_blocks_max) + size_t(options.n_blocks_max / growth_share);
    options.n_pages = std::max(now.options.n_pages, int(std::min(n_pages, n_pages_most)));
    options.n_blocks_max = std::min(options.n_blocks_max, options.n_pages);
    options.n_arena_pages = 0;
    if (options.n_blocks_max < n_blocks) {
      return Status::out_of_memory("The page-locked memory for keys and values holds " + std::to_string(options.n_pages) +
                                   " blocks, but a sequence has " + std::to_string(n_blocks) + ".");
    }
    const size_t steps = n_more_steps * DecodeStep::bytes_for(source.shape, options.n_lanes, options.n_blocks_max, options.n_slots,
                                                              options.step, options.n_seqs_max);
    Result<MemoryPlan> plan = plan_memory(source, options, free_bytes > steps ? free_bytes - steps : 0);
    if (plan.ok()) return plan;
    refused = plan.status();
  }
  return refused;
}

}  // namespace nosa::cuda
