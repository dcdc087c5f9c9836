// Figure 3: as many sequences at once as the memory for keys and values holds, by method.
#include <algorithm>
#include <chrono>

#include "bench.h"

namespace nosa::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double gib = double(size_t(1) << 30);
constexpr double device_bytes = 16 * gib;  // For keys, values, side-cars and slots.
constexpr int n_seqs_most = 64;
constexpr int n_warm_steps = 8;
constexpr int room_blocks = 8;  // For what is decoded.

struct Method {
  const char* name;
  Policy policy;
  bool resident;
  int n_slots;
  double fresh;
};

int batch_for(const cuda::ModelShape& shape, const Method& method, int n_blocks, double host_bytes) {
  const double page_bytes = double(cuda::kv_shape(shape).extent_bytes()) * shape.n_streams();
  const double side_car = double(cuda::PagePool::side_car_bytes(shape));
  const double lane = double(cuda::LaneMemory::lane_bytes(shape, n_blocks, method.resident ? 0 : method.n_slots));
  const double device = lane + n_blocks * (side_car + (method.resident ? page_bytes : 0.0));
  double n = device_bytes / device;
  if (!method.resident) n = std::min(n, host_bytes / (n_blocks * page_bytes));
  return std::min(n_seqs_most, int(n));
}

}  // namespace

void many(Figures& figures, const Settings& settings, const Ceilings&) {
  std::vector<std::byte> memory;
  const auto source = random_8b(settings.layers, memory);
  const double host_bytes = settings.host_gib * gib;
  cuda::RunnerShared shared;
  const Clock::time_point pinning = Clock::now();
  shared.host = std::make_shared<cuda::PinnedBuffer>(must(cuda::PinnedBuffer::create(size_t(host_bytes), "keys and values"), "pinning"));
  fill_random(shared.host->host(), shared.host->bytes());
  std::fprintf(stderr, "pinned and filled %.0f GiB in %.1f s\n", settings.host_gib, std::chrono::duration<double>(Clock::now() - pinning).count());

  const Method methods[] = {{"full, resident", Policy::kFull, true, 0, 0.0},
                            {"infllmv2, 128 slots", Policy::kInfLlmV2, false, 128, settings.infllm_misses},
                            {"nosa, 128 slots", Policy::kNosa, false, 128, settings.nosa_misses},
                            {"infllmv2, 64 slots (published design)", Policy::kInfLlmV2, false, 64, settings.infllm_exact_misses},
                            {"nosa, 64 slots", Policy::kNosa, false, 64, settings.exact_misses}};
  // The published default first.
  constexpr struct {
    int context, n_seqs_max;
  } points[] = {{16384, 16}, {16384, n_seqs_most}, {32768, n_seqs_most}, {65536, n_seqs_most}, {98304, n_seqs_most}};
  for (const auto& [context, n_seqs_max] : points) {
    double full = 0.0;  // Tokens a second of the first method.
    for (const Method& method : methods) {
      const int n_blocks = context / 64 + room_blocks;
      cuda::RunnerOptions options;
      options.step.policy = method.policy;
      options.resident = method.resident;
      options.n_slots = method.n_slots;
      const int n_seqs = std::min(n_seqs_max, batch_for(source->shape, method, n_blocks, host_bytes));
      if (n_seqs < 1) continue;
      options.n_lanes = options.n_seqs_max = n_seqs;
      options.n_blocks_max = n_blocks;
      options.n_pages = n_blocks * n_seqs;
      options.n_arena_pages = 1;
      auto runner = must(cuda::Runner::create(*source, options, shared), "opening the GPU");
      shared.model = runner->model();
      cuda::DeviceBuffer forced;
      if (method.policy != Policy::kFull) forced = force_misses(*runner, options, context - 64, method.fresh);
      std::vector<cuda::SequenceKey> keys;
      for (int i = 0; i < n_seqs; ++i) keys.push_back(fabricate(*runner, context - 64 + i, uint32_t(i)));
      std::vector<int32_t> drawn;
      must(runner->decode({keys, n_warm_steps, {}}, drawn), "warming up");
      std::vector<unsigned long long> before, after;
      must(runner->step().read_loads(before, runner->stream()), "counting");
      const int n_steps = std::min(settings.steps, 128);
      const Clock::time_point start = Clock::now();
      must(runner->decode({keys, n_steps, {}}, drawn), "decoding");
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count() / n_steps;
      must(runner->step().read_loads(after, runner->stream()), "counting");
      double misses = 0;
      for (size_t i = 0; i < after.size(); ++i) misses += double(after[i] - before[i]);
      misses /= double(n_steps) * n_seqs * runner->shape().n_streams();
      figures.begin("many sequences, 8B shape, random bf16 weights").add("context", context).add("method", method.name)
          .add("sequences", n_seqs).add("misses a stream and step, forced", method.fresh).add("misses measured", misses)
          .add("ms a step", seconds * 1e3).add("tokens/s", n_seqs / seconds);
      if (full == 0.0) full = n_seqs / seconds;
      figures.add("over full", n_seqs / seconds / full).end();
    }
  }
}

}  // namespace nosa::bench
