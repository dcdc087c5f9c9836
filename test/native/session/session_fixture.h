#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "session/session.h"
#include "support/random.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace nosa::test {

/// A random tiny model on disk, and sessions with it.
class TinySession : public ::testing::Test {
 protected:
  explicit TinySession(const TinyOptions& options = {})
      : tiny(options, random), path(tiny.write_gguf(folder, "tiny.gguf")) {}

  std::unique_ptr<Session> open(int n_threads = 2, Precision precision = Precision::kFast) const {
    Result<std::unique_ptr<Session>> session =
        Session::open({path, n_threads, precision, cpu::KernelChoice::kBest});
    EXPECT_TRUE(session.ok()) << session.status().message();
    return *std::move(session);
  }

  static Sequence& create(Session& session, int base_position = 0,
                          std::vector<SequenceId> attended = {}) {
    return *session.sequence(session.create_sequence(base_position, attended).value()).value();
  }

  /// Every log-probability of `n_steps` forced steps after the tokens that the sequence has.
  std::vector<std::vector<ScoredToken>> forced_steps(Sequence& sequence,
                                                     std::vector<uint32_t> teacher) const {
    DecodeRequest request;
    request.n_steps = int(teacher.size());
    request.forced = true;
    request.teacher = std::move(teacher);
    request.top = tiny.options().n_vocab;
    const DecodeOutcome outcome = sequence.decode(request, {}).value();
    std::vector<std::vector<ScoredToken>> steps;
    for (const DecodeStep& step : outcome.steps) steps.push_back(step.top);
    return steps;
  }

  Random random;
  TempFolder folder;
  TinyModel tiny;
  std::string path;
};

/// A request for `n_steps` greedy tokens.
inline DecodeRequest draws(int n_steps) {
  DecodeRequest request;
  request.n_steps = n_steps;
  return request;
}

inline bool same_bits(const std::vector<ScoredToken>& a, const std::vector<ScoredToken>& b) {
  return std::ranges::equal(a, b, [](const ScoredToken& x, const ScoredToken& y) {
    return x.id == y.id && x.logprob == y.logprob;
  });
}

}  // namespace nosa::test
