#include <atomic>
#include <chrono>
#include <thread>

#include "session/draft.h"
#include "session_fixture.h"

namespace nosa::test {
namespace {

// Text that repeats itself, so that guesses are right now and then: random models repeat themselves as well.
class DraftedDecodeTest : public TinySession {
 protected:
  DraftedDecodeTest() : TinySession({}) {}

  std::vector<uint32_t> repeating_tokens(int n) {
    const std::vector<uint32_t> phrase = tiny.random_tokens(9, random);
    std::vector<uint32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(phrase[size_t(i) % phrase.size()]);
    return tokens;
  }

  /// Greedy at temperature 0.
  DecodeRequest request(float temperature, int n_steps, bool drafts) const {
    DecodeRequest made = draws(n_steps);
    made.sampling.temperature = temperature;
    made.sampling.seed = 7;
    made.top = 4;
    made.drafts = drafts;
    return made;
  }

  static void expect_same_steps(const std::vector<DecodeStep>& a, const std::vector<DecodeStep>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].token, b[i].token) << i;
      EXPECT_EQ(a[i].logprob, b[i].logprob) << i;
      EXPECT_TRUE(same_bits(a[i].top, b[i].top)) << i;
    }
  }
};

TEST_F(DraftedDecodeTest, StepsAreTheSameToTheBit) {
  const auto session = open();
  int n_drafted = 0;
  int n_right = 0;
  const std::vector<float> temperatures = {0.0f, 0.0f, 0.7f, 3.0f};
  // Now and then a random model repeats nothing of what it wrote; another text is tried then.
  for (size_t i = 0; i < temperatures.size() || (n_right == 0 && i < 40); ++i) {
    const float temperature = i < temperatures.size() ? temperatures[i] : 0.0f;
    const std::vector<uint32_t> tokens = repeating_tokens(int(random.between(20, 150)));
    Sequence& plain = create(*session);
    Sequence& drafted = create(*session);
    ASSERT_TRUE(plain.set_tokens(tokens).ok());
    ASSERT_TRUE(drafted.set_tokens(tokens).ok());
    for (const int n_steps : {1, 2, 60, 140}) {
      const DecodeOutcome a = plain.decode(request(temperature, n_steps, false), {}).value();
      const DecodeOutcome b = drafted.decode(request(temperature, n_steps, true), {}).value();
      expect_same_steps(a.steps, b.steps);
      EXPECT_EQ(plain.n_tokens(), drafted.n_tokens());
      EXPECT_EQ(a.n_drafted, 0);
      n_drafted += b.n_drafted;
      n_right += b.n_right;
      session->check_integrity();
    }
    EXPECT_TRUE(same_bits(forced_steps(plain, {1, 2})[1], forced_steps(drafted, {1, 2})[1]));
  }
  EXPECT_GT(n_drafted, 0);
  EXPECT_GT(n_right, 0);
}

TEST_F(DraftedDecodeTest, GuessesComeFromWhatIsAttendedToo) {
  const auto session = open();
  const std::vector<uint32_t> context = repeating_tokens(300);
  const SequenceId header = session->create_sequence(0, {}).value();
  ASSERT_TRUE((*session->sequence(header))->set_tokens(context).ok());
  ASSERT_TRUE((*session->sequence(header))->prefill(1 << 20, {}).value().done);
  SelectionOptions options;
  options.policy = Policy::kNosa;
  options.budget = {4, 2, 1, 2};
  std::vector<std::vector<DecodeStep>> steps;
  int n_drafted = 0;
  for (const bool drafts : {false, true}) {
    Sequence& tail = create(*session, 300, {header});
    ASSERT_TRUE(tail.select(options).ok());
    // One token waits behind those read: whatever the model draws later, the first guess follows these
    // five, which stand in the context alone.
    ASSERT_TRUE(tail.set_tokens(std::vector<uint32_t>(context.begin(), context.begin() + 4)).ok());
    ASSERT_TRUE(tail.prefill(1 << 20, {}).value().done);
    ASSERT_TRUE(tail.set_tokens(std::vector<uint32_t>(context.begin(), context.begin() + 5)).ok());
    const DecodeOutcome outcome = tail.decode(request(0.5f, 200, drafts), {}).value();
    n_drafted += outcome.n_drafted;
    steps.push_back(outcome.steps);
  }
  expect_same_steps(steps[0], steps[1]);
  EXPECT_GT(n_drafted, 0);
}

TEST_F(DraftedDecodeTest, AStopIdEndsWithinAGuess) {
  const auto session = open();
  const std::vector<uint32_t> tokens = repeating_tokens(60);
  Sequence& free = create(*session);
  ASSERT_TRUE(free.set_tokens(tokens).ok());
  const DecodeOutcome outcome = free.decode(request(0, 40, false), {}).value();
  for (const size_t at : {size_t(1), size_t(7), size_t(23)}) {
    std::vector<size_t> ends;
    for (const bool drafts : {false, true}) {
      Sequence& sequence = create(*session);
      ASSERT_TRUE(sequence.set_tokens(tokens).ok());
      DecodeRequest stopping = request(0, 40, drafts);
      stopping.stop_ids = {outcome.steps[at].token};
      const DecodeOutcome stopped = sequence.decode(stopping, {}).value();
      EXPECT_TRUE(stopped.stopped);
      EXPECT_EQ(sequence.n_tokens(), int(tokens.size() + stopped.steps.size()) - 1);
      ends.push_back(stopped.steps.size());
    }
    EXPECT_EQ(ends[0], ends[1]);
  }
}

TEST_F(DraftedDecodeTest, InterruptedAnywhereItGoesOnTheSame) {
  const auto session = open();
  const std::vector<uint32_t> tokens = repeating_tokens(100);
  Sequence& plain = create(*session);
  ASSERT_TRUE(plain.set_tokens(tokens).ok());
  const DecodeOutcome whole = plain.decode(request(0.3f, 200, false), {}).value();

  std::atomic<uint64_t> stopped_up_to{0};
  std::atomic<uint64_t> running{0};
  std::atomic<bool> over{false};
  std::thread stopper([&] {
    Random delays(fresh_seed());
    while (!over.load()) {
      // Often at once and seldom late: a stop hits the logits too, which take a small part of a step.
      const int longest = 1 << delays.between(0, 11);
      const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(delays.between(0, longest));
      while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
      stopped_up_to.store(running.load());
    }
  });
  int n_interrupted = 0;
  uint64_t command = 0;
  for (int round = 0; round < 60; ++round) {
    Sequence& broken = create(*session);
    ASSERT_TRUE(broken.set_tokens(tokens).ok());
    std::vector<DecodeStep> steps;
    while (steps.size() < whole.steps.size()) {
      running.store(++command);
      const int n_left = int(whole.steps.size() - steps.size());
      const DecodeOutcome outcome =
          broken.decode(request(0.3f, n_left, true), StopFlag(stopped_up_to, command)).value();
      steps.insert(steps.end(), outcome.steps.begin(), outcome.steps.end());
      n_interrupted += outcome.interrupted ? 1 : 0;
      session->check_integrity();
    }
    expect_same_steps(whole.steps, steps);
  }
  over.store(true);
  stopper.join();
  EXPECT_GT(n_interrupted, 0);
}

}  // namespace
}  // namespace nosa::test
