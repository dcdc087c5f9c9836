// A session whose network runs on the GPU against one on the processor's cores in float32, both driven by the same random
// commands: texts, edits, forks, prefills that are cut short, decoding alone and several together, with and without masses,
// selections with masked and pinned blocks, scores, files written by one and read by the other. Wherever the cores' two best tokens are further apart
// than rounding explains, both must prefer the same one. The cores attend to the blocks that the GPU chose; each choice that
// they would have made otherwise must be one that rounding explains.
//
//   session_test LIBRARY [--steps N] [--long BLOCKS] [--model GGUF [--adapter FILE --base SHA256]] [--tokens FILE] [--threads N]
//
// --long walks behind a context of so many blocks, which is more than a session on the GPU has room for when it is opened.
// With a model there is no walk: its speed and how far its numbers are from those of the cores are told. Exit code 1 when
// something differs; NOSA_SEED repeats a run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "session/session.h"
#include "walk.h"

namespace nosa {
namespace {

using namespace walk;

constexpr double mass_rounding = 0.01;
/// Cores at 8 bits compute some tokens of the GPU's side: those that would change what is stored. Alone they are off by
/// 0.05 (99 of 100) and choose blocks of scores 2 % worse; what they store stays, and later choices go by it.
constexpr double cores_rounding = 0.1;
constexpr walk::Tolerance tolerance = {0.05, 0.1};
constexpr int n_together_max = 8;
constexpr size_t n_tails_max = 10;
/// Of a long context: segments of so many tokens, whose own tokens see everything before them.
constexpr int long_segment_tokens = 2048;
constexpr int long_segment_budget = 64;
constexpr size_t n_segments_early = 8;
constexpr int long_steps = 150;

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  failures += 1;
  if (failures <= 20) std::printf("failed: %s\n", what.c_str());
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Setup {
  const char* name;
  Policy policy;
  TinyShape shape;
};

constexpr Setup setups[] = {
    {"nosa", Policy::kNosa, {false, 64, 4, "qwen2"}},
    {"nosa with eviction heads", Policy::kNosa, {true, 128, 4, "llama"}},
    {"infllmv2", Policy::kInfLlmV2, {false, 64, 8, "llama"}},
    {"full", Policy::kFull, {false, 128, 4, "qwen2"}},
};

struct Counts : Verdicts {
  Counts() : Verdicts(tolerance) {}
  int n_files = 0;
  std::vector<double> file_errors;  // Against cores at 8 bits.
  std::vector<double> mass_errors;
  int n_together = 0;  // Steps of commands for several sequences, and those of them that went through a shared step.
  int n_shared = 0;
  int n_same_bits = 0;                // Of shared steps compared with the same ones taken alone on the GPU.
  std::vector<double> alone_errors;  // Of those.
};

/// The same sequence twice.
struct Twin {
  SequenceId cpu;
  SequenceId gpu;
  std::vector<size_t> attended;  // Blocks of each attended sequence.
  std::vector<uint32_t> tokens;
  std::shared_ptr<ChoiceLog> choices = std::make_shared<ChoiceLog>();  // Of the GPU.
  std::string last;  // What was done with it before it was decoded.
};

class Walk {
 public:
  Walk(const Setup& setup, const std::string& library, std::mt19937_64& random, int n_steps, int n_blocks_long)
      : setup_(setup), library_(library), random_(random), n_steps_(n_steps), n_blocks_long_(n_blocks_long) {}

  Counts run() {
    open();
    for (int told = 0; counts_.steps < n_steps_;) {
      step();
      // What there is when time runs out.
      if (counts_.steps / 1000 > told) std::printf("  %s: %d steps, %d wrong\n", setup_.name, counts_.steps, counts_.wrong);
      told = counts_.steps / 1000;
    }
    if (n_blocks_long_ > 0) check_on_gpu(sequences_.back());
    const MemoryUse use = gpu_->memory();
    check(use.gpu_problem.empty(), std::string(setup_.name) + ": the GPU failed: " + use.gpu_problem);
    gpu_->check_integrity();
    return counts_;
  }

 private:
  int pick(int from, int to) { return walk::pick(random_, from, to); }

  void open() {
    const std::string path = write_model(setup_.shape, folder_);
    const int n_threads = n_blocks_long_ > 0 ? int(std::clamp(std::thread::hardware_concurrency() / 2, 2u, 16u)) : 2;
    ModelOptions model{path, n_threads, Precision::kF32, cpu::KernelChoice::kBest};
    cpu_ = must(Session::open(model), "opening the CPU");
    model.precision = Precision::kFast;
    fast_ = must(Session::open(model), "opening the CPU at 16 bits");
    model.cuda_library = library_;
    model.gpu_keeps_choices = true;
    gpu_ = must(Session::open(model), "opening the GPU");
    if (gpu_->model().gpu() == nullptr) {
      std::printf("%s\n", gpu_->model().gpu_problem().c_str());
      std::exit(1);
    }
    header_ = add(0, {}, random_tokens(pick(20, 150)));
    if (n_blocks_long_ > 0) return open_long();
    const int base = int(header_.tokens.size());
    for (int i = 0; i < 3; ++i) segments_.push_back(add(base, {&header_}, random_tokens(pick(30, 700))));
    for (int i = 0; i < 2; ++i) sequences_.push_back(new_tail());
  }

  // One sequence is on the GPU before it takes more memory, which puts out everything that it has.
  void open_long() {
    const auto start = std::chrono::steady_clock::now();
    const int n_blocks_before = gpu_->model().gpu()->n_blocks_max();
    for (int n_blocks = 0; n_blocks < n_blocks_long_;) {
      const int n_tokens = pick(long_segment_tokens - 100, long_segment_tokens);
      segments_.push_back(add(int(header_.tokens.size()), {&header_}, random_tokens(n_tokens), long_segment_budget));
      n_blocks += blocks_for(n_tokens);
      if (segments_.size() != n_segments_early) continue;
      sequences_.push_back(new_tail());
      decode(sequences_.back(), 4);
    }
    const double reading = seconds_since(start);
    for (int i = 0; i < 2; ++i) sequences_.push_back(new_tail());
    const int n_blocks_now = gpu_->model().gpu() == nullptr ? 0 : gpu_->model().gpu()->n_blocks_max();
    std::printf("  %s: %zu segments computed on both in %.1f s; room for %d blocks before and for %d behind all of them, after %.1f s more\n",
                setup_.name, segments_.size(), reading, n_blocks_before, n_blocks_now, seconds_since(start) - reading);
    check(n_blocks_now >= n_blocks_long_, std::string(setup_.name) + ": the GPU has no room for so long a sequence");
    check_on_gpu(sequences_.back());
  }

  // Steps are shared on the GPU alone.
  void check_on_gpu(const Twin& twin) {
    if (setup_.policy == Policy::kFull) return;
    DecodeRequest request;
    request.n_steps = 4;
    std::vector<Session::DecodeTask> tasks;
    for (int i = 0; i < 2; ++i) tasks.push_back({must(gpu_->fork_sequence(twin.gpu), "forking on the GPU"), request});
    for (Result<DecodeOutcome>& outcome : gpu_->decode_together(tasks, {})) {
      check(must(std::move(outcome), "decoding together").n_shared >= 2, std::string(setup_.name) + ": the cores computed a long sequence's steps");
    }
    for (const Session::DecodeTask& task : tasks) gpu_->close_sequence(task.id);
  }

  std::vector<uint32_t> random_tokens(int n) { return walk::random_tokens(random_, n); }

  Sequence& cpu(const Twin& twin) { return *must(cpu_->sequence(twin.cpu), "finding"); }
  Sequence& gpu(const Twin& twin) { return *must(gpu_->sequence(twin.gpu), "finding"); }

  Twin add(int base, const std::vector<const Twin*>& attended, std::vector<uint32_t> tokens, int budget = 0) {
    std::vector<SequenceId> cpu_attended;
    std::vector<SequenceId> gpu_attended;
    Twin twin;
    for (const Twin* other : attended) {
      cpu_attended.push_back(other->cpu);
      gpu_attended.push_back(other->gpu);
      twin.attended.push_back(size_t(blocks_for(int(other->tokens.size()))));
    }
    twin.cpu = must(cpu_->create_sequence(base, cpu_attended), "creating");
    twin.gpu = must(gpu_->create_sequence(base, gpu_attended), "creating on the GPU");
    twin.tokens = std::move(tokens);
    select(twin, budget);
    set(twin);
    must(gpu(twin).prefill(1 << 20, {}).status(), "prefilling on the GPU");
    must(cpu(twin).prefill(1 << 20, {}).status(), "prefilling");
    twin.last = "new";
    check(gpu(twin).n_computed() == int(twin.tokens.size()), "all is computed");
    return twin;
  }

  Twin new_tail() {
    std::vector<const Twin*> attended = {&header_};
    if (n_blocks_long_ > 0 || pick(0, 3) != 0) {
      for (const Twin& segment : segments_) attended.push_back(&segment);
    }
    return add(8192, attended, random_tokens(pick(1, 300)));
  }

  // The cores take what the GPU chose for this sequence.
  void follow(const Twin& twin) {
    gpu(twin).selector().record(twin.choices.get());
    cpu(twin).selector().follow(twin.choices.get(), &counts_.choices);
  }

  void set(const Twin& twin) {
    must(cpu(twin).set_tokens(twin.tokens).status(), "setting tokens");
    must(gpu(twin).set_tokens(twin.tokens).status(), "setting tokens on the GPU");
  }

  // Some blocks are out of sight, some always seen; of `budget` blocks, or of some number.
  void select(Twin& twin, int budget = 0) {
    SelectionOptions options;
    options.policy = setup_.policy;
    // Often the same, so that steps are shared; in all, more kinds of steps than the GPU keeps.
    options.budget.total_blocks = pick(0, 2) > 0 ? 12 : 8 + pick(0, 15);
    if (budget > 0) options.budget.total_blocks = budget;
    options.budget.query_blocks = 3;
    options.budget.window_blocks = 3;
    for (size_t i = 0; i < twin.attended.size(); ++i) {
      const int n = int(twin.attended[i]);
      if (pick(0, 2) == 0) {
        const int from = pick(0, n - 1);
        options.masked.push_back({int(i), from, pick(from, std::min(n, from + 3))});
      }
    }
    if (!twin.attended.empty() && pick(0, 1) == 0) {
      const size_t i = size_t(pick(0, int(twin.attended.size()) - 1));
      const int at = pick(0, int(twin.attended[i]) - 1);
      options.pinned.push_back({int(i), at, at + 1});
    }
    must(cpu(twin).select(options), "selecting");
    must(gpu(twin).select(options), "selecting on the GPU");
    follow(twin);
    twin.last += ", selected";
  }

  void step() {
    Twin& twin = sequences_[size_t(pick(0, int(sequences_.size()) - 1))];
    switch (pick(0, 15)) {
      case 0: return fork();
      case 1: return edit(twin);
      case 2: return replace();
      case 3: return cancel(twin);
      case 4: return score(twin);
      case 5: return file();
      case 6:
        // What is computed stays as it was, so the numbers of what follows depend on the past alike.
        return select(twin);
      case 7:
      case 8:
      case 9: return decode_together();
      default: return decode(twin, pick(1, 30));
    }
  }

  void fork() {
    if (sequences_.size() >= n_tails_max) return;
    const Twin& from = sequences_[size_t(pick(0, int(sequences_.size()) - 1))];
    Twin copy = from;
    copy.cpu = must(cpu_->fork_sequence(from.cpu), "forking");
    copy.gpu = must(gpu_->fork_sequence(from.gpu), "forking on the GPU");
    copy.choices = std::make_shared<ChoiceLog>(*from.choices);
    copy.last += ", forked";
    follow(copy);
    sequences_.push_back(std::move(copy));
  }

  // Other tokens from somewhere on.
  void edit(Twin& twin) {
    twin.tokens.resize(size_t(pick(0, int(twin.tokens.size()))));
    const std::vector<uint32_t> more = random_tokens(pick(1, 200));
    twin.tokens.insert(twin.tokens.end(), more.begin(), more.end());
    set(twin);
    twin.last = "edited";
  }

  // A prefill that stops half way, and then is wanted otherwise. The cores go as far, for what follows may select otherwise.
  void cancel(Twin& twin) {
    edit(twin);
    const std::atomic<uint64_t> raised{1};
    must(gpu(twin).prefill(1 << 20, StopFlag(raised, 1)).status(), "prefilling, stopped");
    must(gpu(twin).prefill(pick(1, int(twin.tokens.size())), {}).status(), "prefilling in part");
    must(cpu(twin).prefill(gpu(twin).n_computed() - cpu(twin).n_computed(), {}).status(), "prefilling as much");
    check(cpu(twin).n_computed() == gpu(twin).n_computed(), "as much is computed");
    twin.last = "cancelled";
    if (pick(0, 1) == 0) edit(twin);
  }

  void replace() {
    const size_t i = size_t(pick(0, int(sequences_.size()) - 1));
    cpu_->close_sequence(sequences_[i].cpu);
    gpu_->close_sequence(sequences_[i].gpu);
    sequences_.erase(sequences_.begin() + long(i));
    if (sequences_.size() < 2) sequences_.push_back(new_tail());
  }

  void score(Twin& twin) {
    const int n = int(twin.tokens.size());
    const int from = std::max(1, n - pick(0, 20));
    const ScoreOutcome got = must(gpu(twin).score(from, {}), "scoring on the GPU");
    const ScoreOutcome want = must(cpu(twin).score(from, {}), "scoring");
    twin.last += ", scored";
    check(want.logprobs.size() == got.logprobs.size(), "as many scores");
    for (size_t i = 0; i < std::min(want.logprobs.size(), got.logprobs.size()); ++i) {
      counts_.errors.push_back(std::fabs(double(want.logprobs[i]) - double(got.logprobs[i])));
    }
  }

  // What the GPU wrote, cores read, and the other way round; both then go on alike.
  void file() {
    const std::string path = folder_.path_of("saved.kv");
    Sequence& computed = gpu(header_);
    must(computed.prefill(1 << 20, {}).status(), "prefilling");
    must(computed.save(path, "key").status(), "saving what the GPU computed");
    // The cores go on from it, and so does a GPU that has never seen it.
    const SequenceId on_cores = must(fast_->create_sequence(0, {}), "creating");
    const SequenceId on_gpu = must(gpu_->create_sequence(0, {}), "creating");
    std::vector<DecodeOutcome> outcomes;
    struct Place {
      Session* session;
      SequenceId id;
    };
    for (const Place& place : {Place{fast_.get(), on_cores}, Place{gpu_.get(), on_gpu}}) {
      Sequence& loaded = *must(place.session->sequence(place.id), "finding");
      const int n = must(loaded.load(path, "key"), "loading");
      check(n == int(header_.tokens.size()), "all is loaded");
      DecodeRequest request;
      request.n_steps = 4;
      request.top = 2;
      if (!outcomes.empty()) {
        request.forced = true;
        for (const DecodeStep& step : outcomes[0].steps) request.teacher.push_back(step.token);
      }
      outcomes.push_back(must(loaded.decode(request, {}), "decoding what was loaded"));
    }
    for (size_t i = 0; i < outcomes[0].steps.size(); ++i) compare_file(outcomes[0].steps[i], outcomes[1].steps[i], "a file of the GPU");
    counts_.n_files += 1;
    // And back: what the cores wrote of it, the GPU reads.
    const std::string back = folder_.path_of("back.kv");
    must((*must(fast_->sequence(on_cores), "finding")).save(back, "key").status(), "saving what the cores computed");
    const SequenceId again = must(gpu_->create_sequence(0, {}), "creating");
    Sequence& loaded = *must(gpu_->sequence(again), "finding");
    must(loaded.load(back, "key").status(), "loading what the cores computed");
    DecodeRequest request;
    request.n_steps = 1;
    request.top = 2;
    const DecodeOutcome got = must(loaded.decode(request, {}), "decoding");
    const SequenceId other = must(fast_->create_sequence(0, {}), "creating");
    Sequence& reference = *must(fast_->sequence(other), "finding");
    must(reference.load(back, "key").status(), "loading");
    compare_file(must(reference.decode(request, {}), "decoding").steps[0], got.steps[0], "a file of the cores");
    fast_->close_sequence(other);
    fast_->close_sequence(on_cores);
    gpu_->close_sequence(on_gpu);
    gpu_->close_sequence(again);
  }

  void decode(Twin& twin, int n_tokens) {
    const bool masses = pick(0, 2) == 0;
    for (int t = 0; t < n_tokens; ++t) {
      DecodeRequest request;
      request.n_steps = 1;
      request.top = 2;
      request.masses = masses;
      const DecodeOutcome got = must(gpu(twin).decode(request, {}), "decoding on the GPU");
      request.forced = true;
      request.teacher = {got.steps[0].token};
      const DecodeOutcome want = must(cpu(twin).decode(request, {}), "decoding");
      compare(want.steps[0], got.steps[0],
              twin.last + ", token " + std::to_string(t) + (masses ? " with masses" : "") + ", own token " + std::to_string(twin.tokens.size()));
      check(want.attended_blocks == got.attended_blocks,
            "attended blocks: " + std::to_string(want.attended_blocks) + " and " + std::to_string(got.attended_blocks));
      check(want.total_blocks == got.total_blocks, "all blocks");
      if (masses) compare_masses(want.masses, got.masses);
      twin.tokens.push_back(got.steps[0].token);
    }
    twin.last = "decoded";
  }

  // Some of the sequences in commands that they share, each by a request of its own; then the cores, one after the other.
  void decode_together() {
    std::shuffle(sequences_.begin(), sequences_.end(), random_);
    const int n = pick(2, std::min(n_together_max, int(sequences_.size())));
    std::vector<bool> masses;
    for (int i = 0; i < n; ++i) masses.push_back(pick(0, 2) == 0);
    for (int command = pick(1, 6); command > 0; --command) {
      std::vector<Session::DecodeTask> tasks;
      std::vector<SequenceId> alone;  // Copies that take the same steps by themselves.
      for (int i = 0; i < n; ++i) {
        DecodeRequest request;
        request.n_steps = pick(1, 4);
        request.top = 2;
        request.masses = masses[size_t(i)];
        tasks.push_back({sequences_[size_t(i)].gpu, request});
        if (command == 1) alone.push_back(must(gpu_->fork_sequence(sequences_[size_t(i)].gpu), "forking on the GPU"));
      }
      std::vector<Result<DecodeOutcome>> outcomes = gpu_->decode_together(tasks, {});
      for (int i = 0; i < n; ++i) {
        const DecodeOutcome got = must(std::move(outcomes[size_t(i)]), "decoding together on the GPU");
        compare_together(sequences_[size_t(i)], tasks[size_t(i)].request, got, n);
        if (command == 1 && got.n_shared > 0) compare_alone(alone[size_t(i)], tasks[size_t(i)].request, got);
      }
      for (const SequenceId id : alone) gpu_->close_sequence(id);
    }
    for (int i = 0; i < n; ++i) sequences_[size_t(i)].last = "decoded together";
  }

  void compare_together(Twin& twin, DecodeRequest request, const DecodeOutcome& got, int n) {
    check(!got.interrupted && int(got.steps.size()) == request.n_steps, "as many steps as were asked for");
    request.forced = true;
    for (const DecodeStep& step : got.steps) request.teacher.push_back(step.token);
    const DecodeOutcome want = must(cpu(twin).decode(request, {}), "decoding");
    for (size_t i = 0; i < std::min(want.steps.size(), got.steps.size()); ++i) {
      compare(want.steps[i], got.steps[i],
              twin.last + ", step " + std::to_string(i) + " with " + std::to_string(n - 1) + " others" + (request.masses ? " and masses" : "") +
                  ", own token " + std::to_string(twin.tokens.size()));
      twin.tokens.push_back(got.steps[i].token);
    }
    check(want.attended_blocks == got.attended_blocks && want.total_blocks == got.total_blocks, "blocks of a step together");
    if (request.masses) compare_masses(want.masses, got.masses);
    counts_.n_together += int(got.steps.size());
    counts_.n_shared += got.n_shared;
  }

  // What the GPU gives for the same tokens when nobody else is there.
  void compare_alone(SequenceId id, DecodeRequest request, const DecodeOutcome& together) {
    Sequence& sequence = *must(gpu_->sequence(id), "finding");
    request.masses = false;
    request.forced = true;
    for (const DecodeStep& step : together.steps) request.teacher.push_back(step.token);
    const DecodeOutcome alone = must(sequence.decode(request, {}), "decoding alone on the GPU");
    for (size_t i = 0; i < alone.steps.size(); ++i) {
      const double error = std::fabs(double(alone.steps[i].logprob) - double(together.steps[i].logprob));
      counts_.alone_errors.push_back(error);
      counts_.n_same_bits += error == 0.0 ? 1 : 0;
    }
  }

  void compare(const DecodeStep& want, const DecodeStep& got, const std::string& before) {
    const double margin = double(want.top[0].logprob) - double(want.top[1].logprob);
    counts_.add(want.top[0].id == got.top[0].id, margin, std::fabs(double(want.logprob) - double(got.logprob)), before);
  }

  void compare_file(const DecodeStep& want, const DecodeStep& got, const std::string& before) {
    compare(want, got, before);
    counts_.file_errors.push_back(counts_.errors.back());
    counts_.errors.pop_back();
  }

  // A query that was computed before anybody asked for masses has none, on either side: whether it was, depends on where
  // passes end.
  void compare_masses(const std::vector<BlockMass>& want, const std::vector<BlockMass>& got) {
    if (want.empty() || got.empty()) return;
    check(want.size() == got.size(), "as many blocks have a mass");
    std::map<std::pair<int, int>, float> found;
    for (const BlockMass& mass : got) found[{mass.sequence, mass.block}] = mass.mass;
    double worst = 0.0;
    for (const BlockMass& mass : want) {
      const float other = found[{mass.sequence, mass.block}];
      worst = std::max(worst, std::fabs(double(mass.mass) - double(other)));
    }
    counts_.mass_errors.push_back(worst);
  }

  Setup setup_;
  std::string library_;
  std::mt19937_64& random_;
  int n_steps_;
  int n_blocks_long_;  // Of the context; 0 for a few.
  Counts counts_;
  test::TempFolder folder_;
  std::unique_ptr<Session> cpu_, fast_, gpu_;
  Twin header_;
  std::vector<Twin> segments_;
  std::vector<Twin> sequences_;
};

bool compare_commands(const std::string& library, int n_steps, int n_blocks_long) {
  std::mt19937_64 random = seeded();
  for (const Setup& setup : setups) {
    const auto start = std::chrono::steady_clock::now();
    Counts counts = Walk(setup, library, random, n_steps, n_blocks_long).run();
    std::printf("%-26s %6d steps: %d the same, %d within rounding (%.3g), %d wrong; error p50 %.2g p99 %.2g max %.2g; masses p99 %.2g "
                "max %.2g; %d files, error max %.2g; %.1f s\n",
                setup.name, counts.steps, counts.same, counts.close, tolerance.margin, counts.wrong, at(counts.errors, 0.5),
                at(counts.errors, 0.99), at(counts.errors, 1.0), at(counts.mass_errors, 0.99), at(counts.mass_errors, 1.0),
                counts.n_files, at(counts.file_errors, 1.0), seconds_since(start));
    const size_t n_alone = counts.alone_errors.size();
    std::printf("  %d steps of commands for several, %d of them shared; of %zu taken alone as well %d have the same bits, error p50 %.2g p99 %.2g "
                "max %.2g\n",
                counts.n_together, counts.n_shared, n_alone, counts.n_same_bits, at(counts.alone_errors, 0.5), at(counts.alone_errors, 0.99),
                at(counts.alone_errors, 1.0));
    counts.print_choices();
    check(counts.good(), std::string(setup.name) + ": tokens or choices differ");
    // A short walk may never have two that select alike.
    check(counts.n_shared > 0 || counts.n_together < 500, std::string(setup.name) + ": no step was shared");
    check(at(counts.alone_errors, 0.99) <= tolerance.margin, std::string(setup.name) + ": steps together and alone differ");
    check(at(counts.errors, 0.99) <= tolerance.margin, std::string(setup.name) + ": numbers differ");
    check(at(counts.file_errors, 1.0) <= cores_rounding, std::string(setup.name) + ": numbers from files differ");
    check(at(counts.mass_errors, 0.99) <= mass_rounding, std::string(setup.name) + ": masses differ");
  }
  return failures == 0;
}

struct RealOptions {
  ModelOptions model;
  std::string tokens;  // int32 or uint32 ids, one after the other
};

/// Several questions about one context: how many tokens a second when each takes its turn, and when steps are shared.
void time_together(Session& gpu, std::span<const SequenceId> attended, const SelectionOptions& selection, std::span<const uint32_t> text) {
  constexpr int n_question = 40;
  constexpr int n_rounds = 12;
  constexpr int n_steps = 4;
  for (const int n : {1, 2, 4, 8, 16, 32, 64}) {
    std::vector<Session::DecodeTask> tasks;
    for (int i = 0; i < n; ++i) {
      const SequenceId id = must(gpu.create_sequence(16384, attended), "creating");
      Sequence& tail = *must(gpu.sequence(id), "finding");
      must(tail.select(selection), "selecting");
      must(tail.set_tokens(text.subspan(text.size() - size_t(n_question * (i + 1)), n_question)).status(), "setting tokens");
      DecodeRequest request;
      request.n_steps = n_steps;
      must(tail.decode(request, {}).status(), "decoding");
      tasks.push_back({id, request});
    }
    double seconds[2] = {0.0, 0.0};
    int n_shared = 0;
    const auto take_turns = [&] {
      for (const Session::DecodeTask& task : tasks) must((*must(gpu.sequence(task.id), "finding")).decode(task.request, {}).status(), "decoding");
    };
    const auto share = [&] {
      for (Result<DecodeOutcome>& outcome : gpu.decode_together(tasks, {})) n_shared += must(std::move(outcome), "decoding together").n_shared;
    };
    share();  // The graph for so many is made.
    n_shared = 0;
    for (int round = 0; round < n_rounds; ++round) {
      for (const bool together : {false, true}) {
        const auto begin = std::chrono::steady_clock::now();
        together ? share() : take_turns();
        seconds[together ? 1 : 0] += seconds_since(begin);
      }
    }
    const double n_tokens = double(n_rounds * n_steps * n);
    std::printf("%d sequences: %.0f tokens a second in turns, %.0f together (%.2fx; %.0f %% of steps shared), %.3f ms a step of all\n", n,
                n_tokens / seconds[0], n_tokens / seconds[1], seconds[0] / seconds[1], 100.0 * n_shared / n_tokens,
                seconds[1] * 1e3 / (n_rounds * n_steps));
    for (const Session::DecodeTask& task : tasks) gpu.close_sequence(task.id);
  }
}

/// A context of segments and questions about it, as the engine has them.
bool real(const RealOptions& options, const std::string& library) {
  std::vector<uint32_t> text;
  std::ifstream file(options.tokens, std::ios::binary);
  for (uint32_t id = 0; file.read(reinterpret_cast<char*>(&id), sizeof(id));) text.push_back(id);
  if (text.size() < 40000) {
    std::printf("There are too few tokens in %s.\n", options.tokens.c_str());
    return false;
  }
  ModelOptions model = options.model;
  const auto opening = std::chrono::steady_clock::now();
  const std::unique_ptr<Session> cores = must(Session::open(model), "opening the CPU");
  const double cores_open = seconds_since(opening);
  model.cuda_library = library;
  const auto opening_gpu = std::chrono::steady_clock::now();
  const std::unique_ptr<Session> gpu = must(Session::open(model), "opening the GPU");
  std::printf("opened in %.2f s on the cores, %.2f s on %s; %.0f MiB page-locked\n", cores_open, seconds_since(opening_gpu),
              gpu->model().device().c_str(), gpu->model().gpu() == nullptr ? 0.0 : double(gpu->model().gpu()->host_bytes()) / 1048576.0);
  if (gpu->model().gpu() == nullptr) {
    std::printf("%s\n", gpu->model().gpu_problem().c_str());
    return false;
  }
  const test::TempFolder folder;
  // As much as there is, in segments of 4,096 after a header of 64.
  const std::span<const uint32_t> all(text);
  const SequenceId header = must(gpu->create_sequence(0, {}), "creating");
  must((*must(gpu->sequence(header), "finding")).set_tokens(all.first(64)).status(), "setting tokens");
  must((*must(gpu->sequence(header), "finding")).prefill(1 << 20, {}).status(), "prefilling");
  std::vector<SequenceId> attended = {header};
  const auto start = std::chrono::steady_clock::now();
  size_t n_indexed = 0;
  double longest = 0.0;
  double saving = 0.0;
  std::vector<std::string> files = {folder.path_of("header.kv")};
  must((*must(gpu->sequence(header), "finding")).save(files[0], "key").status(), "saving");
  for (size_t from = 64; from + 4096 <= std::min<size_t>(text.size(), 64 + 131072 - 4096); from += 4096) {
    const SequenceId id = must(gpu->create_sequence(64, std::span(&header, 1)), "creating");
    Sequence& segment = *must(gpu->sequence(id), "finding");
    must(segment.set_tokens(all.subspan(from, 4096)).status(), "setting tokens");
    const auto pass = std::chrono::steady_clock::now();
    must(segment.prefill(1 << 20, {}).status(), "prefilling");
    longest = std::max(longest, seconds_since(pass));
    const auto save = std::chrono::steady_clock::now();
    files.push_back(folder.path_of(std::to_string(from) + ".kv"));
    must(segment.save(files.back(), "key").status(), "saving");
    saving += seconds_since(save);
    attended.push_back(id);
    n_indexed += 4096;
  }
  const double indexing = seconds_since(start) - saving;
  std::printf("indexed %zu tokens in %.2f s (%.0f a second), a segment at most %.0f ms; saved them in %.2f s more\n", n_indexed,
              indexing, double(n_indexed) / indexing, longest * 1e3, saving);

  SelectionOptions selection;
  selection.policy = Policy::kNosa;
  const auto ask = [&](Session& session, const std::vector<SequenceId>& sees, int n_question, int n_answer, bool masses, int top,
                       const std::vector<DecodeStep>* teacher, const char* what) {
    const SequenceId id = must(session.create_sequence(16384, sees), "creating");
    Sequence& tail = *must(session.sequence(id), "finding");
    must(tail.select(selection), "selecting");
    const auto begin = std::chrono::steady_clock::now();
    must(tail.prefetch({}).status(), "bringing blocks");
    const double bringing = seconds_since(begin);
    must(tail.set_tokens(all.subspan(text.size() - size_t(n_question), size_t(n_question))).status(), "setting tokens");
    DecodeRequest request;
    request.n_steps = 1;
    request.top = top;
    request.masses = masses;
    std::vector<DecodeStep> steps;
    const auto question = std::chrono::steady_clock::now();
    double first = 0.0;
    for (int i = 0; i < n_answer; ++i) {
      if (teacher != nullptr) {
        request.forced = true;
        request.teacher = {(*teacher)[size_t(i)].token};
      }
      steps.push_back(must(tail.decode(request, {}), "decoding").steps[0]);
      if (i == 0) first = seconds_since(question);
    }
    const double rest = (seconds_since(question) - first) / std::max(1, n_answer - 1);
    std::printf("%s: blocks brought in %.0f ms, first token of a question of %d after %.1f ms, then %.3f ms a token%s\n", what,
                bringing * 1e3, n_question, first * 1e3, rest * 1e3, masses ? " with masses" : "");
    if (!session.memory().gpu_problem.empty()) std::printf("  the GPU failed: %s\n", session.memory().gpu_problem.c_str());
    session.close_sequence(id);
    return steps;
  };
  const std::vector<DecodeStep> cold = ask(*gpu, attended, 200, 64, false, 2, nullptr, "GPU, first question, two best told");
  ask(*gpu, attended, 200, 256, false, 0, nullptr, "GPU, again");
  ask(*gpu, attended, 200, 256, true, 0, nullptr, "GPU, again");
  ask(*gpu, attended, 40, 16, false, 0, nullptr, "GPU, a completion");
  time_together(*gpu, attended, selection, all);
  // A GPU that has lost everything but the files, and cores that read what the GPU wrote.
  const auto load = [&](Session& session) {
    std::vector<SequenceId> loaded;
    for (size_t i = 0; i < files.size(); ++i) {
      const auto sees = i == 0 ? std::span<const SequenceId>() : std::span<const SequenceId>(loaded).first(1);
      loaded.push_back(must(session.create_sequence(i == 0 ? 0 : 64, sees), "creating"));
      must((*must(session.sequence(loaded.back()), "finding")).load(files[i], "key").status(), "loading");
    }
    return loaded;
  };
  for (const SequenceId id : attended) gpu->close_sequence(id);
  const auto loading = std::chrono::steady_clock::now();
  const std::vector<SequenceId> on_gpu = load(*gpu);
  std::printf("loaded the files in %.2f s\n", seconds_since(loading));
  const std::vector<DecodeStep> after = ask(*gpu, on_gpu, 200, 64, false, 2, &cold, "GPU, from files");
  const std::vector<SequenceId> on_cores = load(*cores);
  const std::vector<DecodeStep> other = ask(*cores, on_cores, 200, 16, false, 2, &cold, "cores, from the GPU's files");
  std::vector<double> same, errors;
  int n_differ = 0;
  for (size_t i = 0; i < after.size(); ++i) same.push_back(std::fabs(double(after[i].logprob) - double(cold[i].logprob)));
  for (size_t i = 0; i < other.size(); ++i) {
    errors.push_back(std::fabs(double(other[i].logprob) - double(cold[i].logprob)));
    const double margin = double(other[i].top[0].logprob) - double(other[i].top[1].logprob);
    if (other[i].top[0].id != cold[i].top[0].id && margin > 0.3) n_differ += 1;
  }
  std::printf("log-probabilities: from files p50 %.2g max %.2g; against the cores p50 %.2g max %.2g, %d of %zu other tokens\n", at(same, 0.5),
              at(same, 1.0), at(errors, 0.5), at(errors, 1.0), n_differ, other.size());
  check(at(same, 1.0) <= 1e-3, "what comes from files gives other numbers");
  check(n_differ == 0, "the cores prefer other tokens");
  check(gpu->memory().gpu_problem.empty(), gpu->memory().gpu_problem);
  return failures == 0;
}

int run(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // What was found so far is there when time runs out.
  if (argc < 2) {
    std::printf("Say where libnosa_cuda.so is.\n");
    return 2;
  }
  int n_steps = 0;
  int n_blocks_long = 0;
  RealOptions options;
  options.model.n_threads = int(std::clamp(std::thread::hardware_concurrency() / 4, 1u, 16u));
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--steps") == 0) n_steps = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--long") == 0) n_blocks_long = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--model") == 0) options.model.path = argv[i + 1];
    if (std::strcmp(argv[i], "--adapter") == 0) options.model.adapter = argv[i + 1];
    if (std::strcmp(argv[i], "--base") == 0) options.model.base_sha256 = argv[i + 1];
    if (std::strcmp(argv[i], "--tokens") == 0) options.tokens = argv[i + 1];
    if (std::strcmp(argv[i], "--threads") == 0) options.model.n_threads = std::atoi(argv[i + 1]);
  }
  if (n_steps == 0) n_steps = n_blocks_long > 0 ? long_steps : 2000;
  const bool good = options.model.path.empty() ? compare_commands(argv[1], n_steps, n_blocks_long) : real(options, argv[1]);
  std::printf(good ? "PASS session_test\n" : "FAIL session_test\n");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) { return nosa::run(argc, argv); }
