// Times a real model with and without selection.
//
//   bench_selection MODEL IDS decode [n_threads] [n_rounds] [size]  one token after 4 k, 32 k and 128 k
//   bench_selection MODEL IDS prefill [n_threads] [n_tokens]        a sequence, `full` beside `nosa`
//
// IDS is a file of token ids of real text, as a JSON array; its start is repeated when it is short. With a
// size, such as 128k, only that one is decoded with `nosa`, beside 4k.
//
// What is compared alternates, so that whatever else the machine does hits all alike. A long context
// is one computed segment, loaded again and again: every copy has memory of its own. A prefill is
// sampled: chunks at even distances, computed both ways from the same cache.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "core/check.h"
#include "session/session.h"

namespace nosa {
namespace {

constexpr int segment_tokens = 8192;

/// With one thread its own processor time, which other programs hardly touch; else the clock's.
bool one_thread = false;

double seconds() {
#if defined(__linux__)
  if (one_thread) {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
  }
#endif
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

std::vector<uint32_t> all_ids;

bool read_ids(const char* path) {
  std::ifstream in(path);
  char separator = 0;
  for (uint32_t id = 0; in >> separator && separator != ']' && in >> id;) all_ids.push_back(id);
  return !all_ids.empty();
}

std::vector<uint32_t> text_tokens(int n) {
  std::vector<uint32_t> tokens;
  for (size_t i = 0; i < size_t(n); ++i) tokens.push_back(all_ids[i % all_ids.size()]);
  return tokens;
}

SelectionOptions options_of(Policy policy) { return {policy, {}, {}, {}}; }

Sequence& open_sequence(Session& session, int base_position, const std::vector<SequenceId>& attended) {
  return *session.sequence(session.create_sequence(base_position, attended).value()).value();
}

DecodeRequest steps(int n) {
  DecodeRequest request;
  request.n_steps = n;
  return request;
}

/// Segments of a context; computed once and kept beside other temporary files.
std::vector<SequenceId> load_context(Session& session, const std::string& name, int n_segments) {
  const auto folder = std::filesystem::temp_directory_path();
  const std::string file = (folder / ("nosa-bench-" + name + ".segment")).string();
  if (!std::filesystem::exists(file)) {
    const SequenceId id = session.create_sequence(0, {}).value();
    Sequence& segment = *session.sequence(id).value();
    CHECK(segment.set_tokens(text_tokens(segment_tokens)).ok());
    CHECK(segment.prefill(segment_tokens, {}).ok());
    CHECK(segment.save(file, "bench").ok());
    session.close_sequence(id);
  }
  std::vector<SequenceId> ids;
  for (int i = 0; i < n_segments; ++i) {
    ids.push_back(session.create_sequence(0, {}).value());
    CHECK((*session.sequence(ids.back()))->load(file, "bench").ok());
  }
  return ids;
}

void bench_decode(Session& session, const std::string& name, int n_rounds, const std::string& size) {
  constexpr int n_steps = 8;
  struct Case {
    const char* label;
    int n_segments;  // 0: half of one
    Policy policy;
    bool exact_keys = false;
    Sequence* tail = nullptr;
    std::vector<double> times = {};
  };
  std::vector<Case> cases = {{"4k full", 0, Policy::kFull},    {"4k nosa", 0, Policy::kNosa},
                             {"32k full", 4, Policy::kFull},   {"32k nosa", 4, Policy::kNosa},
                             {"128k nosa", 16, Policy::kNosa}, {"128k infllmv2", 16, Policy::kInfLlmV2},
                             {"128k exact keys", 16, Policy::kNosa, true}};
  if (!size.empty()) {
    std::erase_if(cases, [&](const Case& each) {
      return each.policy != Policy::kNosa || (each.n_segments > 0 && !std::string(each.label).starts_with(size));
    });
  }
  const std::vector<SequenceId> segments = load_context(session, name, 16);
  for (Case& each : cases) {
    const std::vector<SequenceId> attended(segments.begin(), segments.begin() + each.n_segments);
    each.tail = &open_sequence(session, segment_tokens, attended);
    SelectionOptions options = options_of(each.policy);
    options.exact_keys = each.exact_keys;
    CHECK(each.tail->select(options).ok());
    CHECK(each.tail->set_tokens(text_tokens(each.n_segments == 0 ? 4096 : 64)).ok());
    CHECK(each.tail->decode(steps(2), {}).ok());
  }
  for (int round = 0; round < n_rounds; ++round) {
    for (Case& each : cases) {
      const double start = seconds();
      CHECK(each.tail->decode(steps(n_steps), {}).ok());
      each.times.push_back((seconds() - start) / n_steps * 1e3);
    }
  }
  for (Case& each : cases) {
    std::ranges::sort(each.times);
    std::printf("%-16s %7.2f ms a token (best), %7.2f (median)\n", each.label, each.times[0],
                each.times[each.times.size() / 2]);
  }
}

void bench_prefill(Session& session, int n_tokens) {
  constexpr int n_samples = 8;
  constexpr int n_sample_tokens = 128;
  const std::vector<uint32_t> tokens = text_tokens(n_tokens + n_sample_tokens);
  const SequenceId id = session.create_sequence(0, {}).value();
  Sequence& base = *session.sequence(id).value();
  CHECK(base.select(options_of(Policy::kNosa)).ok());
  double sums[2] = {0, 0};
  for (int sample = 0; sample < n_samples; ++sample) {
    const int at = int((sample + 0.5) * n_tokens / n_samples) / 128 * 128;
    CHECK(base.set_tokens(std::span(tokens).first(size_t(at))).ok());
    CHECK(base.prefill(at, {}).ok());
    double best[2] = {1e9, 1e9};
    for (int run = 0; run < 4; ++run) {
      const Policy policy = run % 2 == 0 ? Policy::kFull : Policy::kNosa;
      const SequenceId fork_id = session.fork_sequence(id).value();
      Sequence& fork = *session.sequence(fork_id).value();
      CHECK(fork.select(options_of(policy)).ok());
      CHECK(fork.set_tokens(std::span(tokens).first(size_t(at + n_sample_tokens))).ok());
      const double start = seconds();
      CHECK(fork.prefill(n_sample_tokens, {}).ok());
      best[run % 2] = std::min(best[run % 2], seconds() - start);
      session.close_sequence(fork_id);
    }
    std::printf("at %6d: full %6.2f, nosa %6.2f ms a token\n", at, best[0] * 1e3 / n_sample_tokens,
                best[1] * 1e3 / n_sample_tokens);
    std::fflush(stdout);
    for (int i = 0; i < 2; ++i) sums[i] += best[i];
  }
  std::printf("%d tokens: full %.1f s, nosa %.1f s, ratio %.2f\n", n_tokens,
              sums[0] / n_samples / n_sample_tokens * n_tokens,
              sums[1] / n_samples / n_sample_tokens * n_tokens, sums[0] / sums[1]);
}

int run(int n_args, char** args) {
  if (n_args < 4 || !read_ids(args[2])) {
    std::fprintf(stderr, "usage: bench_selection MODEL IDS decode|prefill [n_threads] [n_rounds|n_tokens]\n");
    return 2;
  }
  const std::string mode = args[3];
  const int n_threads = n_args > 4 ? std::atoi(args[4]) : 2;
  one_thread = n_threads == 1;
  auto session = Session::open({.path = args[1], .n_threads = n_threads});
  if (!session.ok()) {
    std::fprintf(stderr, "%s\n", session.status().message().c_str());
    return 1;
  }
  if (mode == "decode") {
    bench_decode(**session, (*session)->model().fingerprint(), n_args > 5 ? std::atoi(args[5]) : 8,
                 n_args > 6 ? args[6] : "");
  } else {
    bench_prefill(**session, n_args > 5 ? std::atoi(args[5]) : 32768);
  }
  return 0;
}

}  // namespace
}  // namespace nosa

int main(int n_args, char** args) { return nosa::run(n_args, args); }
