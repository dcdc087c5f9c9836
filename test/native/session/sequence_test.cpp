#include "session/sequence.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "session_fixture.h"

namespace nosa::test {
namespace {

TinyOptions wide_options() {
  TinyOptions options;
  options.n_embd = 256;
  options.n_ff = 512;
  options.head_dim = 64;
  options.n_layers = 3;
  options.dtype = DType::kQ8_0;
  return options;
}

class SequenceTest : public TinySession {};
class WideSequenceTest : public TinySession {
 protected:
  WideSequenceTest() : TinySession(wide_options()) {}
};

TEST_F(WideSequenceTest, PrefillEqualsStepByStepDecodeToTheBit) {
  for (const Precision precision : {Precision::kFast, Precision::kF32}) {
    const auto session = open(2, precision);
    const std::vector<uint32_t> tokens = tiny.random_tokens(161, random);
    Sequence& at_once = create(*session);
    ASSERT_TRUE(at_once.set_tokens(tokens).ok());
    ASSERT_TRUE(at_once.prefill(1 << 20, {}).value().done);
    Sequence& by_step = create(*session);
    ASSERT_TRUE(by_step.set_tokens(std::span(tokens).first(1)).ok());
    const auto steps = forced_steps(by_step, {tokens.begin() + 1, tokens.end()});
    ASSERT_EQ(by_step.n_tokens(), 161);
    const auto a = forced_steps(at_once, {7});
    const auto b = forced_steps(by_step, {7});
    EXPECT_TRUE(same_bits(a[0], b[0]));
    EXPECT_EQ(steps.size(), 160u);
  }
}

TEST_F(WideSequenceTest, OneAndTwoThreadsGiveTheSameBits) {
  const std::vector<uint32_t> tokens = tiny.random_tokens(300, random);
  std::vector<std::vector<ScoredToken>> answers;
  for (const int n_threads : {1, 2}) {
    const auto session = open(n_threads);
    Sequence& sequence = create(*session);
    ASSERT_TRUE(sequence.set_tokens(tokens).ok());
    answers.push_back(forced_steps(sequence, {1, 2}).back());
  }
  EXPECT_TRUE(same_bits(answers[0], answers[1]));
}

TEST_F(WideSequenceTest, ResumedEqualsUninterruptedToTheBit) {
  const std::vector<uint32_t> tokens = tiny.random_tokens(600, random);
  const auto session = open();
  Sequence& straight = create(*session);
  ASSERT_TRUE(straight.set_tokens(tokens).ok());
  ASSERT_TRUE(straight.prefill(1 << 20, {}).value().done);

  // Raised again and again from another thread, wherever the pass happens to be.
  std::atomic<uint64_t> stopped_up_to{0};
  std::atomic<uint64_t> running{0};
  std::atomic<bool> over{false};
  std::thread stopper([&] {
    Random delays(fresh_seed());
    while (!over.load()) {
      std::this_thread::sleep_for(std::chrono::microseconds(delays.between(50, 3000)));
      stopped_up_to.store(running.load());
    }
  });
  Sequence& broken = create(*session);
  Sequence& other = create(*session);
  ASSERT_TRUE(broken.set_tokens(tokens).ok());
  int n_interrupted = 0;
  uint64_t command = 0;
  for (bool done = false; !done;) {
    running.store(++command);
    const PrefillOutcome outcome =
        broken.prefill(int(random.between(1, 200)), StopFlag(stopped_up_to, command)).value();
    done = outcome.done;
    n_interrupted += outcome.interrupted ? 1 : 0;
    // Something else comes in between and must not disturb what is parked.
    if (outcome.interrupted && n_interrupted < 20) {
      ASSERT_TRUE(other.set_tokens(tiny.random_tokens(5, random)).ok());
      forced_steps(other, {3});
      session->check_integrity();
    }
  }
  over.store(true);
  stopper.join();
  EXPECT_GT(n_interrupted, 2);
  const auto a = forced_steps(straight, {9, 8});
  const auto b = forced_steps(broken, {9, 8});
  EXPECT_TRUE(same_bits(a[0], b[0]));
  EXPECT_TRUE(same_bits(a[1], b[1]));
}

TEST_F(SequenceTest, AFlagRaisedBeforeParksAtOnceAndLosesNothing) {
  const auto session = open();
  Sequence& sequence = create(*session);
  ASSERT_TRUE(sequence.set_tokens(tiny.random_tokens(10, random)).ok());
  const std::atomic<uint64_t> stopped{1};
  const StopFlag raised(stopped, 1);
  const PrefillOutcome outcome = sequence.prefill(100, raised).value();
  EXPECT_TRUE(outcome.interrupted);
  EXPECT_FALSE(outcome.done);
  DecodeRequest request;
  request.n_steps = 3;
  const DecodeOutcome decoded = sequence.decode(request, raised).value();
  EXPECT_TRUE(decoded.interrupted);
  EXPECT_TRUE(decoded.steps.empty());
  EXPECT_TRUE(sequence.score(1, raised).value().interrupted);
  EXPECT_TRUE(sequence.prefill(100, {}).value().done);
}

TEST_F(SequenceTest, ARewoundSequenceAnswersAsAFreshOne) {
  const auto session = open();
  Sequence& rewound = create(*session);
  std::vector<uint32_t> current;
  for (int round = 0; round < 20; ++round) {
    const int n_common = int(random.between(0, std::min(rewound.n_tokens(), 200)));
    std::vector<uint32_t> tokens = tiny.random_tokens(int(random.between(1, 150)), random);
    tokens.insert(tokens.begin(), current.begin(), current.begin() + n_common);
    current = tokens;
    const int kept = rewound.set_tokens(tokens).value();
    EXPECT_LE(kept, int(tokens.size()));
    const auto a = forced_steps(rewound, {5, 6});
    current.insert(current.end(), {5, 6});
    Sequence& fresh = create(*session);
    ASSERT_TRUE(fresh.set_tokens(tokens).ok());
    const auto b = forced_steps(fresh, {5, 6});
    ASSERT_TRUE(same_bits(a[0], b[0])) << "round " << round;
    ASSERT_TRUE(same_bits(a[1], b[1])) << "round " << round;
    session->check_integrity();
  }
}

TEST_F(SequenceTest, SetTokensKeepsTheLongestCommonPrefix) {
  const auto session = open();
  Sequence& sequence = create(*session);
  const std::vector<uint32_t> tokens = tiny.random_tokens(200, random);
  EXPECT_EQ(sequence.set_tokens(tokens).value(), 0);
  ASSERT_EQ(sequence.prefill(150, {}).value().computed, 150);
  EXPECT_EQ(sequence.set_tokens(tokens).value(), 150);
  std::vector<uint32_t> changed = tokens;
  changed[77] = (changed[77] + 1) % 160;
  EXPECT_EQ(sequence.set_tokens(changed).value(), 77);
  EXPECT_EQ(sequence.set_tokens(std::span(changed).first(30)).value(), 30);
  EXPECT_EQ(sequence.set_tokens({}).value(), 0);
  EXPECT_EQ(session->memory().kv_blocks, 0u);
}

TEST_F(SequenceTest, ForksGrowApartAndShareWhatTheyHave) {
  const auto session = open();
  const std::vector<uint32_t> tokens = tiny.random_tokens(150, random);
  const SequenceId id = session->create_sequence(0, {}).value();
  Sequence& origin = *session->sequence(id).value();
  ASSERT_TRUE(origin.set_tokens(tokens).ok());
  ASSERT_TRUE(origin.prefill(1000, {}).value().done);
  const size_t n_blocks = session->memory().kv_blocks;
  Sequence& fork = *session->sequence(session->fork_sequence(id).value()).value();
  EXPECT_EQ(session->memory().kv_blocks, n_blocks);

  const std::vector<uint32_t> left = tiny.random_tokens(90, random);
  const std::vector<uint32_t> right = tiny.random_tokens(90, random);
  const auto a = forced_steps(origin, left);
  const auto b = forced_steps(fork, right);
  session->check_integrity();
  for (const auto& [steps, suffix] : {std::pair(a, left), std::pair(b, right)}) {
    Sequence& fresh = create(*session);
    ASSERT_TRUE(fresh.set_tokens(tokens).ok());
    const auto expected = forced_steps(fresh, suffix);
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_TRUE(same_bits(steps[i], expected[i])) << i;
  }
}

TEST_F(SequenceTest, AForkOfAParkedSequenceAnswersAsItsOrigin) {
  const auto session = open();
  const std::vector<uint32_t> tokens = tiny.random_tokens(90, random);
  const SequenceId id = session->create_sequence(0, {}).value();
  Sequence& origin = *session->sequence(id).value();
  ASSERT_TRUE(origin.set_tokens(tokens).ok());
  ASSERT_TRUE(origin.prefill(40, {}).ok());
  const std::atomic<uint64_t> stopped{1};
  ASSERT_TRUE(origin.prefill(50, StopFlag(stopped, 1)).value().interrupted);
  Sequence& fork = *session->sequence(session->fork_sequence(id).value()).value();
  const auto a = forced_steps(fork, {1});
  const auto b = forced_steps(origin, {1});
  EXPECT_TRUE(same_bits(a[0], b[0]));
  session->check_integrity();
}

TEST_F(SequenceTest, ScoresAreTheLogprobsOfDecoding) {
  const auto session = open();
  const std::vector<uint32_t> tokens = tiny.random_tokens(300, random);
  Sequence& decoded = create(*session);
  ASSERT_TRUE(decoded.set_tokens(std::span(tokens).first(1)).ok());
  DecodeRequest request;
  request.forced = true;
  request.n_steps = 299;
  request.teacher.assign(tokens.begin() + 1, tokens.end());
  const DecodeOutcome steps = decoded.decode(request, {}).value();

  Sequence& scored = create(*session);
  ASSERT_TRUE(scored.set_tokens(tokens).ok());
  ASSERT_TRUE(scored.prefill(int(random.between(1, 299)), {}).ok());
  for (const int from : {1, 64, 170, 299, 300}) {
    const ScoreOutcome outcome = scored.score(from, {}).value();
    EXPECT_FALSE(outcome.interrupted);
    ASSERT_EQ(outcome.logprobs.size(), size_t(300 - from));
    for (size_t i = 0; i < outcome.logprobs.size(); ++i) {
      EXPECT_EQ(outcome.logprobs[i], steps.steps[size_t(from) - 1 + i].logprob) << from + int(i);
    }
  }
  EXPECT_EQ(scored.n_computed(), 300);
  EXPECT_EQ(scored.score(0, {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(scored.score(301, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(SequenceTest, StopIdsEndAndAreNotKept) {
  const auto session = open();
  Sequence& sequence = create(*session);
  ASSERT_TRUE(sequence.set_tokens(tiny.random_tokens(20, random)).ok());
  DecodeRequest request;
  request.n_steps = 5;
  const DecodeOutcome free = sequence.decode(request, {}).value();
  ASSERT_EQ(free.steps.size(), 5u);
  ASSERT_EQ(sequence.n_tokens(), 25);

  request.stop_ids = {free.steps[0].token};
  const auto tokens = tiny.random_tokens(20, random);
  Sequence& again = create(*session);
  ASSERT_TRUE(again.set_tokens(tokens).ok());
  const DecodeOutcome first = again.decode(draws(1), {}).value();
  ASSERT_TRUE(again.set_tokens(tokens).ok());
  request.stop_ids = {first.steps[0].token};
  const DecodeOutcome stopped = again.decode(request, {}).value();
  EXPECT_TRUE(stopped.stopped);
  EXPECT_EQ(stopped.steps.size(), 1u);
  EXPECT_EQ(again.n_tokens(), 20);

  request.banned_ids = request.stop_ids;
  const DecodeOutcome banned = again.decode(request, {}).value();
  EXPECT_NE(banned.steps[0].token, first.steps[0].token);
}

TEST_F(SequenceTest, TheSameSeedDrawsTheSameTokens) {
  const auto session = open();
  const auto tokens = tiny.random_tokens(20, random);
  DecodeRequest request;
  request.n_steps = 40;
  request.sampling.temperature = 1.5f;
  std::vector<std::vector<uint32_t>> drawn;
  for (const uint64_t seed : {1u, 1u, 2u}) {
    Sequence& sequence = create(*session);
    ASSERT_TRUE(sequence.set_tokens(tokens).ok());
    request.sampling.seed = seed;
    // In one command or in several: the draw knows only its position.
    std::vector<uint32_t> ids;
    for (const int n : drawn.empty() ? std::vector<int>{40} : std::vector<int>{1, 30, 9}) {
      request.n_steps = n;
      const DecodeOutcome outcome = sequence.decode(request, {}).value();
      for (const DecodeStep& step : outcome.steps) ids.push_back(step.token);
    }
    drawn.push_back(ids);
  }
  EXPECT_EQ(drawn[0], drawn[1]);
  EXPECT_NE(drawn[0], drawn[2]);
}

TEST_F(SequenceTest, BadCallsAreRefusedByName) {
  const auto session = open();
  const SequenceId id = session->create_sequence(0, {}).value();
  Sequence& sequence = *session->sequence(id).value();
  const std::vector<uint32_t> outside = {1, 160};
  EXPECT_EQ(sequence.set_tokens(outside).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence.decode(draws(1), {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence.prefill(100, {}).value().computed, 0);
  EXPECT_TRUE(sequence.prefill(100, {}).value().done);

  ASSERT_TRUE(sequence.set_tokens(tiny.random_tokens(5, random)).ok());
  const std::vector<SequenceId> attended = {id};
  EXPECT_EQ(session->create_sequence(5, attended).status().code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(sequence.prefill(100, {}).ok());
  const SequenceId tail = session->create_sequence(5, attended).value();
  EXPECT_EQ(sequence.set_tokens({}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence.decode(draws(1), {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(sequence.score(1, {}).ok());
  session->close_sequence(tail);
  EXPECT_TRUE(sequence.decode(draws(1), {}).ok());
}

class SavedSequenceTest : public SequenceTest {
 protected:
  SavedSequenceTest() : session(open()), saved(create(*session, 3)) {
    EXPECT_TRUE(saved.set_tokens(tiny.random_tokens(int(random.between(65, 200)), random)).ok());
    EXPECT_TRUE(saved.prefill(1000, {}).ok());
    file = folder.path_of("saved");
    EXPECT_TRUE(saved.save(file, "the key").ok());
  }

  std::unique_ptr<Session> session;
  Sequence& saved;
  std::string file;
};

TEST_F(SavedSequenceTest, WhatIsLoadedAnswersAsWhatWasSaved) {
  const auto a = forced_steps(saved, {4, 5});
  const auto other = open(1);
  Sequence& loaded = create(*other, 3);
  EXPECT_EQ(loaded.load(file, "the key").value(), saved.n_tokens() - 2);
  const auto b = forced_steps(loaded, {4, 5});
  EXPECT_TRUE(same_bits(a[0], b[0]));
  EXPECT_TRUE(same_bits(a[1], b[1]));
  other->check_integrity();
}

TEST_F(SavedSequenceTest, EqualSequencesMakeEqualFilesReadableByTheirOwnerOnly) {
  namespace fs = std::filesystem;
  Sequence& again = create(*session, 3);
  ASSERT_EQ(again.load(file, "the key").value(), saved.n_tokens());
  const int64_t bytes = again.save(folder.path_of("again"), "the key").value();
  std::ifstream a(file, std::ios::binary), b(folder.path_of("again"), std::ios::binary);
  const std::string first((std::istreambuf_iterator<char>(a)), {});
  const std::string second((std::istreambuf_iterator<char>(b)), {});
  EXPECT_EQ(int64_t(first.size()), bytes);
  EXPECT_TRUE(first == second);
  EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  size_t n_files = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    n_files += entry.path().filename() != "tiny.gguf" ? 1 : 0;
  }
  EXPECT_EQ(n_files, 2u);  // Nothing is left aside.
}

TEST_F(SavedSequenceTest, AnyFlippedByteIsNoticed) {
  std::ifstream in(file, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  for (int round = 0; round < 60; ++round) {
    std::string bad = good;
    const size_t at = round < 20 ? size_t(round) * 7 : size_t(random.between(0, int64_t(bad.size()) - 1));
    bad[at] = char(bad[at] ^ (1 << random.between(0, 7)));
    const std::string path = folder.write("bad", bad);
    Sequence& sequence = create(*session, 3);
    Result<int> loaded = sequence.load(path, "the key");
    ASSERT_FALSE(loaded.ok()) << "byte " << at;
    EXPECT_TRUE(loaded.status().code() == StatusCode::kCorrupt ||
                loaded.status().code() == StatusCode::kUnsupported)
        << at << " " << loaded.status().message();
    EXPECT_EQ(sequence.n_tokens(), 0);
  }
  session->check_integrity();
}

TEST_F(SavedSequenceTest, TruncatedAndForeignFilesAreRefused) {
  std::ifstream in(file, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  Sequence& sequence = create(*session, 3);
  for (const size_t n : {size_t(0), size_t(100), size_t(4096), good.size() / 2, good.size() / 4096 / 2 * 4096,
                         good.size() - 4096, good.size() - 1}) {
    const std::string path = folder.write("short", good.substr(0, n));
    EXPECT_EQ(sequence.load(path, "the key").status().code(), StatusCode::kCorrupt) << n;
  }
  EXPECT_EQ(sequence.load(folder.write("long", good + std::string(4096, '\0')), "the key").status().code(),
            StatusCode::kCorrupt);
  EXPECT_EQ(sequence.load(file, "another key").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence.load(folder.path_of("none"), "the key").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(create(*session, 4).load(file, "the key").status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(saved.load(file, "the key").status().code(), StatusCode::kInvalidArgument);
  const auto exact = open(1, Precision::kF32);
  EXPECT_EQ(create(*exact, 3).load(file, "the key").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(saved.save(folder.path_of("no/folder"), "k").status().code(), StatusCode::kNotFound);
}

TEST_F(SequenceTest, AnEmptySequenceIsSavedAndLoaded) {
  const auto session = open();
  Sequence& empty = create(*session);
  ASSERT_TRUE(empty.save(folder.path_of("empty"), "k").ok());
  EXPECT_EQ(create(*session).load(folder.path_of("empty"), "k").value(), 0);
}

}  // namespace
}  // namespace nosa::test
