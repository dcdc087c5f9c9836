// Figure 2: batch 1 over a long context with keys and values in host memory, against the same with all of them on the
// GPU and against the bytes that must be read; figure 5: from a saved context in host memory to its first token.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "bench.h"
#include "model/device_source.h"

namespace nosa::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int n_warm_steps = 32;

/// Blocks fetched by all lanes so far.
double loads(cuda::Runner& runner) {
  std::vector<unsigned long long> counts;
  must(runner.step().read_loads(counts, runner.stream()), "reading counts");
  double total = 0;
  for (const unsigned long long count : counts) total += double(count);
  return total;
}

struct Measured {
  double step_seconds = 0;
  double misses = 0;  // of one stream in one step
};

Measured measure(cuda::Runner& runner, cuda::SequenceKey key, int n_steps) {
  std::vector<int32_t> drawn;
  must(runner.decode({{&key, 1}, n_warm_steps, {}}, drawn), "warming up");
  const double before = loads(runner);
  const Clock::time_point start = Clock::now();
  must(runner.decode({{&key, 1}, n_steps, {}}, drawn), "decoding");
  Measured measured;
  measured.step_seconds = seconds_since(start) / n_steps;
  measured.misses = (loads(runner) - before) / n_steps / runner.shape().n_streams();
  return measured;
}

struct Case {
  const char* name;
  bool resident;
  int n_slots;
  double fresh;
};

}  // namespace

void decode_8b(Figures& figures, const Settings& settings, const Ceilings& ceilings) {
  std::vector<std::byte> memory;
  const auto source = random_8b(settings.layers, memory);
  cuda::RunnerShared shared;
  const Case cases[] = {{"resident", true, 128, settings.nosa_misses},
                        {"host, 64 slots", false, 64, settings.exact_misses},
                        {"host, 128 slots", false, 128, settings.nosa_misses}};
  double resident_seconds = 0;
  for (const Case& c : cases) {
    cuda::RunnerOptions options;
    options.resident = c.resident;
    options.n_slots = c.n_slots;
    options.n_lanes = options.n_seqs_max = 1;
    options.n_blocks_max = settings.context / 64 + 32;
    options.n_pages = options.n_blocks_max;
    options.n_arena_pages = 1;
    auto runner = must(cuda::Runner::create(*source, options, shared), "opening the GPU");
    shared.model = runner->model();
    if (!c.resident) fill_random(runner->pool().host(0), size_t(options.n_pages) * runner->pool().page_bytes());
    const cuda::DeviceBuffer forced = force_misses(*runner, options, settings.context, c.fresh);
    const cuda::SequenceKey key = fabricate(*runner, settings.context, 1);

    double resume_seconds = 0;
    if (!c.resident) {
      // Graphs are captured when an engine starts, not when a context is opened.
      const cuda::SequenceKey other = fabricate(*runner, 640, 2);
      std::vector<int32_t> drawn;
      must(runner->decode({{&other, 1}, 1, {}}, drawn), "warming up");
      must(runner->close(other), "closing");
      must(runner->synchronise(), "waiting");
      const Clock::time_point start = Clock::now();
      must(runner->decode({{&key, 1}, 1, {}}, drawn), "resuming");
      resume_seconds = seconds_since(start);
    }
    const Measured measured = measure(*runner, key, settings.steps);
    if (c.resident) resident_seconds = measured.step_seconds;
    const double bytes = step_bytes(*runner, *source, 1, settings.context, 64);
    const double limit = bytes / ceilings.device_copy;
    figures.begin("decode 8B shape, random bf16 weights, batch 1").add("layers", settings.layers).add("context", settings.context)
        .add("cache", c.name).add("misses a stream and step, forced", c.resident ? 0.0 : c.fresh)
        .add("misses measured", measured.misses).add("ms a step", measured.step_seconds * 1e3)
        .add("over resident", measured.step_seconds / resident_seconds).add("byte limit ms", limit * 1e3)
        .add("share of the byte limit", limit / measured.step_seconds);
    if (!c.resident) figures.add("resume to first token ms", resume_seconds * 1e3);
    figures.end();
  }
}

void decode_model(Figures& figures, Settings& settings, const Ceilings& ceilings) {
  if (settings.model.empty() || settings.tokens.empty()) fail("decode-model needs --model and --tokens");
  auto weights = must(Weights::open(settings.model), "opening the model");
  const ModelConfig config = must(read_model_config(*weights), "reading the model");
  auto source = must(DeviceSource::create(*weights, config), "reading the model");
  std::ifstream file(settings.tokens, std::ios::binary);
  std::vector<uint32_t> text;
  for (uint32_t id = 0; file.read(reinterpret_cast<char*>(&id), sizeof(id));) text.push_back(id % uint32_t(config.n_vocab));
  const int n_needed = settings.context + n_warm_steps + settings.steps + 2;
  if (int(text.size()) < n_needed) fail("the text has too few tokens");

  struct ModelCase {
    const char* name;
    Policy policy;
    bool resident;
    int n_slots;
    double* misses;  // Where the number of misses goes, or null.
  };
  const ModelCase cases[] = {{"nosa, resident", Policy::kNosa, true, 128, nullptr},
                             {"nosa, 128 slots", Policy::kNosa, false, 128, &settings.nosa_misses},
                             {"nosa, 64 slots", Policy::kNosa, false, 64, &settings.exact_misses},
                             {"infllmv2, 128 slots", Policy::kInfLlmV2, false, 128, &settings.infllm_misses},
                             {"infllmv2, 64 slots", Policy::kInfLlmV2, false, 64, &settings.infllm_exact_misses},
                             {"full, resident", Policy::kFull, true, 0, nullptr}};
  cuda::RunnerShared shared;
  double resident_seconds = 0;
  for (const ModelCase& c : cases) {
    cuda::RunnerOptions options;
    options.step.policy = c.policy;
    options.resident = c.resident;
    options.n_slots = c.n_slots;
    options.n_lanes = options.n_seqs_max = 1;
    options.n_blocks_max = options.n_pages = n_needed / 64 + 2;
    options.dense_prefill = true;
    auto runner = must(cuda::Runner::create(source->source(), options, shared), "opening the GPU");
    shared.model = runner->model();
    const cuda::SequenceKey key = must(runner->create_sequence(0, {}), "creating a sequence");
    const std::span<const uint32_t> prompt(text.data(), size_t(settings.context) + 1);
    must(runner->set_tokens(key, prompt).status(), "setting tokens");
    const Clock::time_point prefill_start = Clock::now();
    must(runner->prefill(key, 1), "prefilling");
    must(runner->synchronise(), "prefilling");
    const double prefill_seconds = seconds_since(prefill_start);

    // What follows in the text, whatever the model would draw.
    const auto teacher = [&](int from, int n) {
      std::vector<int32_t> ids;
      for (int i = 0; i < n; ++i) ids.push_back(int32_t(text[size_t(from + i)]));
      return ids;
    };
    std::vector<int32_t> drawn;
    const std::vector<int32_t> warm = teacher(settings.context + 1, n_warm_steps);
    must(runner->decode({{&key, 1}, n_warm_steps, warm}, drawn), "warming up");
    const std::vector<int32_t> given = teacher(settings.context + 1 + n_warm_steps, settings.steps);
    const double before = loads(*runner);
    const Clock::time_point start = Clock::now();
    must(runner->decode({{&key, 1}, settings.steps, given}, drawn), "decoding");
    const double step_seconds = seconds_since(start) / settings.steps;
    const double misses = (loads(*runner) - before) / settings.steps / runner->shape().n_streams();
    if (c.misses != nullptr) *c.misses = misses;
    if (c.resident && c.policy == Policy::kNosa) resident_seconds = step_seconds;
    const int n_attended = c.policy == Policy::kFull ? settings.context / 64 : std::min(64, settings.context / 64);
    const double limit = step_bytes(*runner, source->source(), 1, settings.context, n_attended) / ceilings.device_copy;
    figures.begin("decode of a real model over real text, batch 1").add("model", config.name).add("context", settings.context)
        .add("cache", c.name).add("dense prefill tokens/s", settings.context / prefill_seconds)
        .add("misses a stream and step", misses).add("us a step", step_seconds * 1e6)
        .add("us over resident", (step_seconds - resident_seconds) * 1e6).add("byte limit us", limit * 1e6)
        .add("share of the byte limit", limit / step_seconds).end();
  }
}

}  // namespace nosa::bench
