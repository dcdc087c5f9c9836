// Figure 4: the same model file, on the same GPU, in turns with llama.cpp's own benchmark, which is somebody else's program:
// --llama-bench says where it is.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "bench.h"
#include "model/device_source.h"

namespace nosa::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int n_rounds = 3;
constexpr int n_drawn = 128;

/// What is timed: tokens read after `depth` others, or drawn after them.
struct Task {
  const char* name;
  int depth;
  int n_read;     // 0: n_drawn are drawn.
  int n_segment;  // We read them in sequences of so many, as the engine reads a repository; llama.cpp knows one sequence alone.
};

/// The engine's S for a model of 32 k positions.
constexpr int n_segment_tokens = 8192;

constexpr Task tasks[] = {{"decode over 512 tokens", 512, 0, 0},
                          {"decode over 32 k", 32768, 0, 0},
                          {"prefill of 8 k", 0, 8192, 8192},
                          {"prefill of 32 k", 0, 32768, 32768},
                          {"indexing 32 k, in segments of 8 k", 0, 32768, n_segment_tokens}};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// The number behind `"key": ` in a line of JSON, or -1.
double number_of(const std::string& line, const std::string& key) {
  const std::string name = "\"" + key + "\": ";
  const size_t at = line.find(name);
  return at == std::string::npos ? -1.0 : std::atof(line.c_str() + at + name.size());
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

/// Runs llama-bench with `options` added; adds the tokens a second of each task that it reports. One thread: the GPU leaves
/// next to nothing to the cores, and more of them wait for one another (a token takes 5 % longer with eight).
void run_llama(const Settings& settings, const std::string& options, std::map<std::string, double>& best) {
  const std::string command = quoted(settings.llama_bench) + " -m " + quoted(settings.model) + " -ngl 99 -fa 1 -t 1 -r 3 -o jsonl " + options + " 2>\"${TMPDIR:-/tmp}/llama-bench.log\"";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) fail("llama-bench does not start");
  std::string line;
  int n_results = 0;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    if (c != '\n') {
      line += char(c);
      continue;
    }
    const double rate = number_of(line, "avg_ts");
    for (const Task& task : tasks) {
      const bool reads = task.n_read > 0;
      if (number_of(line, "n_depth") != task.depth || number_of(line, "n_prompt") != task.n_read || number_of(line, "n_gen") != (reads ? 0 : n_drawn)) continue;
      best[task.name] = std::max(best[task.name], rate);
      n_results += 1;
    }
    line.clear();
  }
  if (pclose(pipe) != 0 || n_results == 0) fail("llama-bench failed; llama-bench.log in the folder for temporary files says how");
}

/// A sequence of `n_tokens` random tokens that waits to be read.
cuda::SequenceKey random_sequence(cuda::Runner& runner, int n_tokens, std::mt19937& random) {
  const cuda::SequenceKey key = must(runner.create_sequence(0, {}), "creating a sequence");
  std::vector<uint32_t> tokens(static_cast<size_t>(n_tokens));
  for (uint32_t& token : tokens) token = uint32_t(random() % uint32_t(runner.shape().n_vocab));
  must(runner.set_tokens(key, tokens).status(), "setting tokens");
  return key;
}

/// Tokens a second of one task by our runner, which holds no sequence before and after.
double run_ours(cuda::Runner& runner, const Task& task, std::mt19937& random) {
  std::vector<cuda::SequenceKey> keys;
  if (task.n_read == 0) keys.push_back(random_sequence(runner, task.depth + 1, random));
  for (int n_left = task.n_read; n_left > 0; n_left -= task.n_segment) keys.push_back(random_sequence(runner, std::min(n_left, task.n_segment), random));
  must(runner.synchronise(), "waiting");
  const Clock::time_point reading = Clock::now();
  for (const cuda::SequenceKey key : keys) must(runner.prefill(key, task.n_read > 0 ? 0 : 1), "prefilling");
  must(runner.synchronise(), "prefilling");
  double seconds = std::chrono::duration<double>(Clock::now() - reading).count();
  if (task.n_read == 0) {
    std::vector<int32_t> drawn;
    must(runner.decode({keys, 16, {}}, drawn), "warming up");
    const Clock::time_point drawing = Clock::now();
    must(runner.decode({keys, n_drawn, {}}, drawn), "decoding");
    seconds = std::chrono::duration<double>(Clock::now() - drawing).count();
  }
  for (const cuda::SequenceKey key : keys) must(runner.close(key), "closing");
  return (task.n_read > 0 ? task.n_read : n_drawn) / seconds;
}

}  // namespace

void beside_llama(Figures& figures, const Settings& settings) {
  if (settings.model.empty() || settings.llama_bench.empty()) fail("beside-llama needs --model and --llama-bench");
  auto weights = must(Weights::open(settings.model), "opening the model");
  const ModelConfig config = must(read_model_config(*weights), "reading the model");
  auto source = must(DeviceSource::create(*weights, config), "reading the model");
  cuda::RunnerOptions options;
  options.n_lanes = options.n_seqs_max = 1;
  options.n_blocks_max = options.n_pages = 32768 / 64 + 16;
  options.dense_prefill = true;  // The same mathematics as llama.cpp's.
  auto runner = must(cuda::Runner::create(source->source(), options), "opening the GPU");
  std::mt19937 random{std::random_device{}()};

  std::map<std::string, std::vector<double>> ours, theirs;
  for (int round = 0; round < n_rounds; ++round) {
    for (const Task& task : tasks) {
      run_ours(*runner, task, random);  // The first time draws up what a session has drawn up once.
      ours[task.name].push_back(run_ours(*runner, task, random));
    }
    // The better of its default and of our own size of a prefill's step.
    std::map<std::string, double> best;
    run_llama(settings, "-p 8192,32768 -n 0", best);
    run_llama(settings, "-p 8192,32768 -n 0 -b 2048 -ub 2048", best);
    run_llama(settings, "-p 0 -n " + std::to_string(n_drawn) + " -d 512,32768 -b 2048 -ub 2048", best);
    for (const auto& [name, rate] : best) theirs[name].push_back(rate);
  }
  for (const Task& task : tasks) {
    std::vector<double> ratios;
    for (size_t i = 0; i < ours[task.name].size(); ++i) ratios.push_back(ours[task.name][i] / theirs[task.name].at(i));
    figures.begin("beside llama.cpp on CUDA").add("model", config.name).add("task", task.name)
        .add("ours tokens/s", median(ours[task.name])).add("llama.cpp tokens/s", median(theirs[task.name]))
        .add("ratio", median(ratios)).add("least ratio", *std::ranges::min_element(ratios)).end();
  }
}

}  // namespace nosa::bench
