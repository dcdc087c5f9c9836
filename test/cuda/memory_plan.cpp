// How the device's memory is divided: needs no GPU.
#include "cuda/memory_plan.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "cuda/page_pool.h"

namespace nosa::cuda {
namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  failures += 1;
  std::printf("failed: %s\n", what.c_str());
}

constexpr size_t mib = size_t(1) << 20;

struct Shape {
  const char* name;
  int n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
};
constexpr Shape shapes[] = {
    {"Qwen2.5-Coder 0.5B", 24, 896, 4864, 14, 2, 64, 151936},
    {"Qwen2.5-Coder 1.5B", 28, 1536, 8960, 12, 2, 128, 151936},
    {"Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256},
};

/// A model of this shape in Q8_0; nobody looks at the weights.
ModelSource source(const Shape& of = shapes[0]) {
  ModelSource source;
  ModelShape& shape = source.shape;
  shape.n_layers = of.n_layers;
  shape.n_embd = of.n_embd;
  shape.n_ff = of.n_ff;
  shape.n_heads = of.n_heads;
  shape.n_kv_heads = of.n_kv_heads;
  shape.head_dim = of.head_dim;
  shape.n_vocab = of.n_vocab;
  shape.n_rotated = of.head_dim;
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

constexpr size_t gib = size_t(1) << 30;

/// As a session opens a runner, with page-locked memory for `n_pages` blocks at first.
Result<MemoryPlan> opened(const ModelSource& model, size_t free_bytes, size_t host_bytes) {
  constexpr size_t n_pages_first = 2304;
  RunnerOptions options;
  options.n_lanes = options.n_seqs_max = 0;
  options.n_slots = 192;
  options.host_bytes_max = std::min(host_bytes, n_pages_first * kv_shape(model.shape).extent_bytes() * size_t(model.shape.n_streams()));
  return plan_memory(model, options, free_bytes);
}

/// The longest sequence that a runner of this plan grows for, in blocks; 0 for none.
int longest(const ModelSource& model, const MemoryPlan& now, size_t host_bytes, size_t free_bytes) {
  int fits = 0;
  for (int step = n_blocks_most; step > 0; step /= 2) {
    if (fits + step <= n_blocks_most && plan_growth(model, now, fits + step, host_bytes, free_bytes).ok()) fits += step;
  }
  return fits;
}

/// What a sequence of `n_blocks` makes of a plan.
void check_growth(const std::string& name, const ModelSource& model, const MemoryPlan& now, int n_blocks, size_t host_bytes,
                  size_t free_bytes) {
  const Result<MemoryPlan> grown = plan_growth(model, now, n_blocks, host_bytes, free_bytes);
  check(grown.ok(), name + ": no room for a longer one: " + grown.status().message());
  if (!grown.ok()) return;
  const RunnerOptions& o = grown->options;
  check(o.n_blocks_max >= n_blocks && o.n_pages >= o.n_blocks_max, name + ": too short");
  check(o.n_blocks_max <= n_blocks_most, name + ": longer than kernels take");
  check(o.n_lanes == now.options.n_lanes && o.n_seqs_max == now.options.n_seqs_max, name + ": other lanes");
  check(o.n_pages >= now.options.n_pages, name + ": fewer pages");
  check(o.n_arena_pages >= 1 && o.n_arena_pages <= o.n_pages, name + ": the arena");
  check(grown->device_bytes() <= free_bytes, name + ": exceeded");
  check(grown->host_bytes <= std::max(host_bytes, now.host_bytes), name + ": more page-locked memory than there may be");
  // A runner is made from the plan's own options, which must not change then.
  const Result<MemoryPlan> again = plan_memory(model, o, free_bytes);
  check(again.ok() && again->device_bytes() == grown->device_bytes(), name + ": another plan the second time");
}

void check_long_sequences() {
  struct Case {
    int shape;
    size_t device_gib;
    size_t machine_gib;  // A sixth of it may be page-locked.
    int n_blocks_least;  // That the longest sequence has.
  };
  constexpr Case cases[] = {{0, 8, 32, 4096}, {0, 24, 64, 8192}, {0, 80, 128, 16384}, {0, 140, 128, 16384}, {1, 8, 32, 2560},
                            {1, 24, 64, 5120}, {1, 80, 128, 8192}, {1, 140, 128, 8192}, {2, 24, 64, 1024},  {2, 80, 128, 2304},
                            {2, 140, 128, 2304}};
  for (const Case& of : cases) {
    const ModelSource model = source(shapes[of.shape]);
    const size_t free_bytes = of.device_gib * gib - gib / 2;
    const size_t host_bytes = of.machine_gib * gib / 6;
    const std::string name = std::string(shapes[of.shape].name) + ", " + std::to_string(of.device_gib) + " GiB, machine of " +
                             std::to_string(of.machine_gib) + " GiB";
    const Result<MemoryPlan> first = opened(model, free_bytes, host_bytes);
    check(first.ok(), name + ": room for the model");
    if (!first.ok()) continue;
    check(first->options.n_blocks_max <= 2048, name + ": no more at the start than most need");
    const int n_blocks = std::max(first->options.n_blocks_max, longest(model, *first, host_bytes, free_bytes));
    check(n_blocks >= of.n_blocks_least, name + ": only " + std::to_string(n_blocks) + " blocks");
    std::printf("%s: %d lanes, %d blocks and an arena of %d, %.1f GiB page-locked; at most %d blocks (%d k tokens)", name.c_str(),
                first->options.n_lanes, first->options.n_blocks_max, first->options.n_arena_pages, double(first->host_bytes) / double(gib),
                n_blocks, n_blocks / 16);
    if (n_blocks > first->options.n_blocks_max) {
      for (const int n : {first->options.n_blocks_max + 1, n_blocks}) check_growth(name, model, *first, n, host_bytes, free_bytes);
      const Result<MemoryPlan> most = plan_growth(model, *first, n_blocks, host_bytes, free_bytes);
      if (most.ok()) {
        std::printf(", then %d lanes, an arena of %d, %.1f GiB of the device and %.1f GiB page-locked", most->options.n_lanes,
                    most->options.n_arena_pages, double(most->device_bytes()) / double(gib), double(most->host_bytes) / double(gib));
      }
    }
    std::printf("\n");
    check(plan_growth(model, *first, n_blocks_most + 1, host_bytes, free_bytes).status().code() == StatusCode::kUnsupported,
          name + ": more than kernels take");
    check(plan_growth(model, *first, n_blocks_most, gib / 4, free_bytes).status().code() == StatusCode::kOutOfMemory,
          name + ": more than page-locked memory takes");
    // Whatever else takes device memory, nothing is exceeded.
    for (size_t free = first->device_bytes(); free < free_bytes; free += free_bytes / 13) {
      const Result<MemoryPlan> grown = plan_growth(model, *first, 3000, host_bytes, free);
      check(!grown.ok() || grown->device_bytes() <= free, name + ": exceeded with less free");
    }
  }
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

  check_long_sequences();

  std::printf(failures == 0 ? "PASS memory_plan\n" : "FAIL memory_plan\n");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace nosa::cuda

int main() { return nosa::cuda::run(); }
