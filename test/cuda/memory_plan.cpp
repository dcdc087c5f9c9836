// How the device's memory is divided: needs no GPU.
#include "cuda/memory_plan.h"

#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace nosa::cuda {
namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  failures += 1;
  std::printf("failed: %s\n", what.c_str());
}

constexpr size_t mib = size_t(1) << 20;

/// Qwen2.5-Coder 0.5B's shape in Q8_0; nobody looks at the weights.
ModelSource source() {
  ModelSource source;
  ModelShape& shape = source.shape;
  shape.n_layers = 24;
  shape.n_embd = 896;
  shape.n_ff = 4864;
  shape.n_heads = 14;
  shape.n_kv_heads = 2;
  shape.head_dim = 64;
  shape.n_vocab = 151936;
  shape.n_rotated = 64;
  static const std::byte memory{};
  const auto view = [&](int rows, int cols) { return WeightView{&memory, DType::kQ8_0, rows, cols}; };
  source.embedding = source.output = view(shape.n_vocab, shape.n_embd);
  LayerSource layer;
  layer.q.weight = view(shape.q_width(), shape.n_embd);
  layer.k.weight = layer.v.weight = view(shape.kv_width(), shape.n_embd);
  layer.out.weight = view(shape.n_embd, shape.q_width());
  layer.gate.weight = layer.up.weight = view(shape.n_ff, shape.n_embd);
  layer.down.weight = view(shape.n_embd, shape.n_ff);
  source.layers.assign(size_t(shape.n_layers), layer);
  return source;
}

int run() {
  const ModelSource model = source();
  std::mt19937_64 random{std::random_device{}()};

  const Result<MemoryPlan> ample = plan_memory(model, {}, 20000 * mib);
  check(ample.ok(), "20 GB are ample for half a billion weights");
  if (ample.ok()) {
    check(ample->options.n_blocks_max == 2048, "128 k tokens when there is room");
    check(ample->host_bytes <= ample->options.host_bytes_max, "the host's budget holds");
    std::printf("%s\n", ample->describe().c_str());
  }

  // Lanes are a share of what there is, and never fewer than a few.
  RunnerOptions shared;
  shared.n_lanes = shared.n_seqs_max = 0;
  int n_lanes_before = 0;
  for (const size_t free : {1500 * mib, 8000 * mib, 20000 * mib, 140000 * mib}) {
    const Result<MemoryPlan> plan = plan_memory(model, shared, free);
    const std::string name = std::to_string(free / mib) + " MiB free";
    check(plan.ok(), name + ": room for lanes");
    if (!plan.ok()) continue;
    const RunnerOptions& o = plan->options;
    check(o.n_lanes >= 4 && o.n_lanes <= 64 && o.n_seqs_max == o.n_lanes, name + ": lanes within their bounds");
    check(o.n_lanes == 4 || plan->lanes_bytes <= free / 16, name + ": lanes take no more than their share");
    check(o.n_lanes >= n_lanes_before, name + ": more memory, fewer lanes");
    check(plan->device_bytes() <= free, name + ": exceeded");
    n_lanes_before = o.n_lanes;
  }
  check(n_lanes_before == 64, "a large GPU has as many lanes as a step takes");

  // Whatever is free, a plan never exceeds it, and less memory never gives more.
  int n_blocks_before = 0;
  size_t free_bytes = 600 * mib;
  for (int i = 0; i < 40; ++i, free_bytes += (50 + random() % 200) * mib) {
    const Result<MemoryPlan> plan = plan_memory(model, {}, free_bytes);
    const std::string name = std::to_string(free_bytes / mib) + " MiB free";
    if (!plan.ok()) {
      check(plan.status().code() == StatusCode::kOutOfMemory, name + ": the reason");
      check(plan.status().message().find("MiB") != std::string::npos, name + ": the message says how much");
      check(n_blocks_before == 0, name + ": less was enough");
      continue;
    }
    check(plan->device_bytes() <= free_bytes, name + ": exceeded");
    check(plan->options.n_blocks_max <= plan->options.n_pages, name + ": longer than all pages");
    check(plan->options.n_arena_pages <= plan->options.n_pages, name + ": an arena larger than all pages");
    check(plan->options.n_blocks_max >= n_blocks_before, name + ": more memory, shorter sequences");
    n_blocks_before = plan->options.n_blocks_max;
  }
  check(n_blocks_before > 0, "some plan fits");

  RunnerOptions capped;
  capped.device_bytes_max = 1200 * mib;
  const Result<MemoryPlan> small = plan_memory(model, capped, 20000 * mib);
  check(small.ok() && small->device_bytes() <= 1200 * mib, "the caller's limit holds");

  RunnerOptions greedy;
  greedy.n_lanes = greedy.n_seqs_max = 64;
  greedy.n_slots = 512;
  check(!plan_memory(model, greedy, 8000 * mib).ok(), "what was asked for is not cut silently");

  std::printf(failures == 0 ? "PASS memory_plan\n" : "FAIL memory_plan\n");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace nosa::cuda

int main() { return nosa::cuda::run(); }
