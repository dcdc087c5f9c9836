// The GPU's runner against the CPU's session in float32, with tiny random models: random texts, edits, forks, cancelled
// prefills and steps of several sequences. Wherever the CPU's two best tokens are further apart than rounding explains,
// both must draw the same one. The CPU attends to the blocks that the GPU chose, and each choice that it would have made
// otherwise must be one that rounding explains: two scores that are all but equal decide about a whole block.
//
//   same_tokens [--steps N] [--setup I]      steps of every setup, or of one alone
//
// Exit code 1 when a token differs; NOSA_SEED repeats a run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "cuda/runner.h"
#include "model/device_source.h"
#include "session/session.h"
#include "walk.h"

namespace nosa {
namespace {

using namespace walk;

struct Setup {
  const char* name;
  Policy policy;
  bool resident;
  TinyShape shape;
};

constexpr Setup setups[] = {
    {"nosa, offloaded", Policy::kNosa, false, {false, 64, 4, "qwen2"}},
    {"nosa with eviction heads, offloaded", Policy::kNosa, false, {true, 128, 4, "llama"}},
    {"infllmv2, offloaded", Policy::kInfLlmV2, false, {false, 64, 8, "llama"}},
    {"nosa, resident", Policy::kNosa, true, {false, 64, 4, "qwen2"}},
    {"full, resident", Policy::kFull, true, {false, 128, 4, "qwen2"}},
};

/// Adds up what a call takes, by kind.
class Clocks {
 public:
  template <typename Work>
  auto time(const char* kind, Work work) {
    const auto start = std::chrono::steady_clock::now();
    auto result = work();
    seconds_[kind] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
  }
  void print() const {
    for (const auto& [kind, seconds] : seconds_) std::printf("  %s %.2f s", kind.c_str(), seconds);
    std::printf("\n");
  }

 private:
  std::map<std::string, double> seconds_;
};

struct Pair {
  SequenceId cpu;
  cuda::SequenceKey gpu;
  std::vector<uint32_t> tokens;
  std::shared_ptr<ChoiceLog> choices = std::make_shared<ChoiceLog>();  // Of the GPU.
  std::string last{};  // What was done with it before it was decoded.
};

class Walk {
 public:
  Walk(const Setup& setup, std::mt19937_64& random, int n_steps) : setup_(setup), random_(random), n_steps_(n_steps) {}

  Verdicts run() {
    open();
    while (counts_.steps < n_steps_) step();
    clocks_.print();
    return counts_;
  }

 private:
  int pick(int from, int to) { return walk::pick(random_, from, to); }

  void open() {
    const std::string path = write_model(setup_.shape, folder_);
    session_ = must(Session::open({path, 2, Precision::kF32, cpu::KernelChoice::kBest}), "opening the CPU");
    weights_ = must(Weights::open(path), "reading the weights");
    config_ = must(read_model_config(*weights_), "reading the configuration");
    source_ = must(DeviceSource::create(*weights_, config_), "reading the network");

    selection_.policy = setup_.policy;
    selection_.budget.total_blocks = 8;
    selection_.budget.query_blocks = 3;
    selection_.budget.window_blocks = 3;
    cuda::RunnerOptions runner_options;
    runner_options.step.policy = selection_.policy;
    runner_options.step.budget = selection_.budget;
    runner_options.step.keeps_choices = true;
    runner_options.resident = setup_.resident;
    runner_options.n_lanes = 3;  // Fewer than sequences, so that lanes change hands.
    runner_options.n_seqs_max = 3;
    runner_options.n_slots = pick(0, 1) == 0 ? 12 : 24;
    runner_options.n_blocks_max = 64;
    runner_options.n_pages = 512;
    runner_options.n_arena_pages = 48;
    runner_options.chunk_tokens = 128;
    runner_ = must(clocks_.time("GPU open", [&] { return cuda::Runner::create(source_->source(), runner_options); }), "opening the GPU");

    header_ = add(0, {}, random_tokens(pick(20, 150)));
    const int base = int(header_.tokens.size());
    for (int i = 0; i < 3; ++i) segments_.push_back(add(base, {&header_}, random_tokens(pick(30, 700))));
    for (int i = 0; i < 2; ++i) sequences_.push_back(new_tail());
  }

  std::vector<uint32_t> random_tokens(int n) { return walk::random_tokens(random_, n); }

  Pair add(int base, const std::vector<const Pair*>& attended, std::vector<uint32_t> tokens) {
    std::vector<SequenceId> cpu_attended;
    std::vector<cuda::SequenceKey> gpu_attended;
    for (const Pair* pair : attended) {
      cpu_attended.push_back(pair->cpu);
      gpu_attended.push_back(pair->gpu);
    }
    Pair pair{must(session_->create_sequence(base, cpu_attended), "creating"),
              must(runner_->create_sequence(base, gpu_attended), "creating on the GPU"), std::move(tokens)};
    Sequence& cpu = *must(session_->sequence(pair.cpu), "finding");
    must(cpu.select(selection_), "selecting");
    follow(pair);
    must(cpu.set_tokens(pair.tokens).status(), "setting tokens");
    must(runner_->set_tokens(pair.gpu, pair.tokens).status(), "setting tokens on the GPU");
    // The last token of one that goes on is left to its first step, for the runner would compute it anew there.
    const int n_left = attended.empty() || base == int(header_.tokens.size()) ? 0 : 1;
    must(clocks_.time("GPU prefill", [&] { return runner_->prefill(pair.gpu, n_left); }), "prefilling on the GPU");
    take_choices({&pair, 1});
    must(clocks_.time("CPU prefill", [&] { return cpu.prefill(int(pair.tokens.size()) - n_left, {}).status(); }), "prefilling");
    pair.last = "new";
    return pair;
  }

  // The CPU takes what the GPU chose for this sequence.
  void follow(const Pair& pair) {
    (*must(session_->sequence(pair.cpu), "finding")).selector().follow(pair.choices.get(), &counts_.choices);
  }

  // REQUIRES: the GPU computed nothing but these since the last call.
  void take_choices(std::span<const Pair> pairs) {
    for (const cuda::TokenChoice& choice : runner_->take_choices()) {
      const auto pair = std::ranges::find(pairs, choice.key, &Pair::gpu);
      if (pair == pairs.end()) {
        must(Status::io("A sequence chose that was not asked."), "taking choices");
        return;
      }
      const int n_heads = config_.n_kv_heads;
      for (int list = 0; list < int(choice.blocks.size()); ++list) {
        pair->choices->put(choice.own_idx, list / n_heads, list % n_heads, choice.blocks[size_t(list)]);
      }
    }
  }

  Pair new_tail() {
    std::vector<const Pair*> attended = {&header_};
    if (pick(0, 3) != 0) {
      for (const Pair& segment : segments_) attended.push_back(&segment);
    }
    return add(8192, attended, random_tokens(pick(1, 300)));
  }

  void step() {
    switch (pick(0, 9)) {
      case 0: return fork();
      case 1: return edit(sequences_[size_t(pick(0, int(sequences_.size()) - 1))]);
      case 2: return replace();
      case 3: return cancel(sequences_[size_t(pick(0, int(sequences_.size()) - 1))]);
      default: return decode();
    }
  }

  void fork() {
    if (sequences_.size() >= n_sequences_max) return;
    const Pair& from = sequences_[size_t(pick(0, int(sequences_.size()) - 1))];
    Pair copy = from;
    copy.cpu = must(session_->fork_sequence(from.cpu), "forking");
    copy.gpu = must(clocks_.time("GPU fork", [&] { return runner_->fork(from.gpu); }), "forking on the GPU");
    copy.choices = std::make_shared<ChoiceLog>(*from.choices);
    copy.last += ", forked";
    follow(copy);
    sequences_.push_back(std::move(copy));
  }

  // Other tokens from somewhere on.
  void edit(Pair& pair) {
    pair.tokens.resize(size_t(pick(0, int(pair.tokens.size()))));
    const std::vector<uint32_t> more = random_tokens(pick(1, 200));
    pair.tokens.insert(pair.tokens.end(), more.begin(), more.end());
    Sequence& cpu = *must(session_->sequence(pair.cpu), "finding");
    must(cpu.set_tokens(pair.tokens).status(), "setting tokens");
    must(runner_->set_tokens(pair.gpu, pair.tokens).status(), "setting tokens on the GPU");
    pair.last = "edited";
  }

  // A prefill that stops half way, and then is wanted otherwise.
  void cancel(Pair& pair) {
    edit(pair);
    const int n_left = pick(1, int(pair.tokens.size()));
    must(clocks_.time("GPU prefill", [&] { return runner_->prefill(pair.gpu, n_left); }), "prefilling in part");
    take_choices({&pair, 1});
    pair.last = "cancelled";
    if (pick(0, 1) == 0) edit(pair);
  }

  void replace() {
    const size_t i = size_t(pick(0, int(sequences_.size()) - 1));
    session_->close_sequence(sequences_[i].cpu);
    must(runner_->close(sequences_[i].gpu), "closing");
    sequences_.erase(sequences_.begin() + long(i));
    if (sequences_.size() < 2) sequences_.push_back(new_tail());
  }

  void decode() {
    std::shuffle(sequences_.begin(), sequences_.end(), random_);
    const int n = pick(1, std::min(3, int(sequences_.size())));
    const int n_tokens = pick(1, 40);
    std::vector<cuda::SequenceKey> keys;
    for (int i = 0; i < n; ++i) keys.push_back(sequences_[size_t(i)].gpu);
    for (int t = 0; t < n_tokens; ++t) {
      std::vector<int32_t> drawn;
      must(clocks_.time("GPU decode", [&] { return runner_->decode({keys, 1, {}}, drawn); }), "decoding on the GPU");
      take_choices(std::span(sequences_).first(size_t(n)));
      for (int i = 0; i < n; ++i) {
        Pair& pair = sequences_[size_t(i)];
        DecodeRequest request;
        request.n_steps = 1;
        request.top = 2;
        request.forced = true;
        request.teacher = {uint32_t(drawn[size_t(i)])};
        Sequence& cpu = *must(session_->sequence(pair.cpu), "finding");
        const DecodeOutcome outcome = must(clocks_.time("CPU decode", [&] { return cpu.decode(request, {}); }), "decoding");
        std::vector<float> logits;
        must(clocks_.time("GPU scores", [&] { return runner_->logits(i, logits); }), "reading scores");
        compare(outcome.steps[0], logits, uint32_t(drawn[size_t(i)]),
                pair.last + ", token " + std::to_string(t) + " of " + std::to_string(n) + " sequences, own token " +
                    std::to_string(pair.tokens.size()));
        pair.tokens.push_back(uint32_t(drawn[size_t(i)]));
      }
    }
    for (int i = 0; i < n; ++i) sequences_[size_t(i)].last = "decoded";
  }

  void compare(const DecodeStep& step, const std::vector<float>& logits, uint32_t drawn, const std::string& before) {
    const double total = log_sum_exp(logits);
    const size_t best = size_t(std::ranges::max_element(logits) - logits.begin());
    if (best != drawn && logits[best] != logits[drawn]) must(Status::io("The token drawn is not the best one."), "drawing");
    const uint32_t wanted = step.top[0].id;
    const double margin = double(step.top[0].logprob) - double(step.top[1].logprob);
    counts_.add(wanted == drawn, margin, std::fabs(double(logits[wanted]) - total - double(step.top[0].logprob)), before);
  }

  Setup setup_;
  std::mt19937_64& random_;
  int n_steps_;
  Verdicts counts_;
  Clocks clocks_;
  test::TempFolder folder_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Weights> weights_;
  ModelConfig config_;
  std::unique_ptr<DeviceSource> source_;
  SelectionOptions selection_;
  std::unique_ptr<cuda::Runner> runner_;
  Pair header_;
  std::vector<Pair> segments_;
  std::vector<Pair> sequences_;
};

int run(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // What was found so far is there when time runs out.
  int n_steps = 2000;
  int only = -1;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--steps") == 0) n_steps = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--setup") == 0) only = std::atoi(argv[i + 1]);
  }
  std::mt19937_64 random = seeded();
  bool good = true;
  for (const Setup& setup : setups) {
    if (only >= 0 && &setup != &setups[only % std::ssize(setups)]) continue;
    Verdicts counts = Walk(setup, random, n_steps).run();
    const auto n_above = std::ranges::count_if(counts.errors, [](double error) { return !(error <= rounding); });
    std::printf("%-36s %6d steps: %d the same, %d within rounding (%.3g), %d wrong; error p50 %.2g p99 %.2g max %.2g, %td above rounding\n",
                setup.name, counts.steps, counts.same, counts.close, rounding, counts.wrong, at(counts.errors, 0.5),
                at(counts.errors, 0.99), at(counts.errors, 1.0), n_above);
    counts.print_choices();
    good = good && counts.good();
  }
  std::printf(good ? "PASS same_tokens\n" : "FAIL same_tokens\n");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) { return nosa::run(argc, argv); }
