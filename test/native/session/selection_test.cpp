// Sequences whose queries choose their blocks: what must not change an answer, and what bounds it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <thread>

#include "session_fixture.h"

namespace nosa::test {
namespace {

// Few blocks, so that short contexts have more than a query may take.
constexpr SelectionBudget budget{
    .total_blocks = 9, .query_blocks = 4, .sink_blocks = 1, .window_blocks = 3};

TinyOptions model_options() {
  TinyOptions options;
  options.n_embd = 128;
  options.n_ff = 96;
  options.n_heads = 6;
  options.n_kv_heads = 2;
  options.head_dim = 32;
  options.n_layers = 2;
  options.dtype = DType::kQ8_0;
  return options;
}

SelectionOptions options_of(Policy policy) { return {policy, budget, {}, {}}; }

class SelectionTest : public TinySession {
 protected:
  SelectionTest() : TinySession(model_options()) {}

  std::unique_ptr<Session> open_limited(int n_threads, size_t memory_bytes_max) const {
    Result<std::unique_ptr<Session>> session =
        Session::open({.path = path, .n_threads = n_threads},
                      {.memory_bytes_max = memory_bytes_max, .spill_folder = folder.path()});
    EXPECT_TRUE(session.ok()) << session.status().message();
    return *std::move(session);
  }

  /// A sequence of these tokens, computed, that chooses by `options`.
  Sequence& prefilled(Session& session, const std::vector<uint32_t>& tokens,
                      const SelectionOptions& options, int n_at_once = 1 << 20) {
    Sequence& sequence = create(session);
    EXPECT_TRUE(sequence.select(options).ok());
    EXPECT_TRUE(sequence.set_tokens(tokens).ok());
    for (bool done = false; !done;) done = sequence.prefill(n_at_once, {}).value().done;
    return sequence;
  }

  /// Forced steps with the blocks that each chose.
  DecodeOutcome chosen_steps(Sequence& sequence, std::vector<uint32_t> teacher) const {
    DecodeRequest request;
    request.n_steps = int(teacher.size());
    request.forced = true;
    request.teacher = std::move(teacher);
    request.selections = true;
    return sequence.decode(request, {}).value();
  }
};

TEST_F(SelectionTest, PrefillEqualsStepByStepDecodeToTheBit) {
  for (const Precision precision : {Precision::kFast, Precision::kF32}) {
    for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2}) {
      const std::vector<uint32_t> tokens = tiny.random_tokens(int(random.between(800, 1100)), random);
      const auto session = open(2, precision);
      Sequence& at_once = prefilled(*session, tokens, options_of(policy));
      Sequence& by_step = create(*session);
      ASSERT_TRUE(by_step.select(options_of(policy)).ok());
      ASSERT_TRUE(by_step.set_tokens(std::span(tokens).first(1)).ok());
      forced_steps(by_step, {tokens.begin() + 1, tokens.end()});
      const auto a = forced_steps(at_once, {7, 8});
      const auto b = forced_steps(by_step, {7, 8});
      EXPECT_TRUE(same_bits(a[0], b[0]));
      EXPECT_TRUE(same_bits(a[1], b[1]));
      // Selection must have mattered, or the test says nothing.
      const auto dense = forced_steps(prefilled(*session, tokens, {}), {7});
      EXPECT_FALSE(same_bits(a[0], dense[0]));
    }
  }
}

TEST_F(SelectionTest, AnEditRightBehindRankedBlocksRanksTheLastOfThemAnew) {
  const auto session = open(2);
  for (int trial = 0; trial < 8; ++trial) {
    // The last query has blocks 11 to 13 in its window, so 0 to 10 are ranked; the last window of 10 ends in 11.
    std::vector<uint32_t> tokens = tiny.random_tokens(14 * kBlockTokens, random);
    Sequence& edited = prefilled(*session, tokens, options_of(Policy::kNosa));
    tokens.resize(size_t(11 * kBlockTokens) + size_t(random.between(1, 15)));
    const std::vector<uint32_t> more = tiny.random_tokens(6 * kBlockTokens, random);
    tokens.insert(tokens.end(), more.begin(), more.end());
    ASSERT_TRUE(edited.set_tokens(tokens).ok());
    ASSERT_TRUE(edited.prefill(1 << 20, {}).value().done);
    Sequence& fresh = prefilled(*session, tokens, options_of(Policy::kNosa));
    EXPECT_TRUE(same_bits(forced_steps(edited, {7})[0], forced_steps(fresh, {7})[0]));
  }
}

TEST_F(SelectionTest, EveryBlockSelectedIsDense) {
  const std::vector<uint32_t> tokens = tiny.random_tokens(700, random);
  const auto session = open();
  const auto dense = forced_steps(prefilled(*session, tokens, {}), {1, 2});
  for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2}) {
    SelectionOptions all = options_of(policy);
    all.budget.total_blocks = 11;  // As many as 702 tokens fill.
    const auto steps = forced_steps(prefilled(*session, tokens, all), {1, 2});
    EXPECT_TRUE(same_bits(steps[0], dense[0]));
    EXPECT_TRUE(same_bits(steps[1], dense[1]));
  }
}

TEST_F(SelectionTest, ChunksThreadsAndInterruptionsChangeNoBit) {
  const std::vector<uint32_t> tokens = tiny.random_tokens(1500, random);
  const auto session = open(2);
  const auto straight = forced_steps(prefilled(*session, tokens, options_of(Policy::kNosa)), {3, 4});
  const auto alone = open(1);
  const int n_at_once = int(random.between(1, 150));
  const auto cut =
      forced_steps(prefilled(*alone, tokens, options_of(Policy::kNosa), n_at_once), {3, 4});
  EXPECT_TRUE(same_bits(straight[0], cut[0])) << n_at_once;
  EXPECT_TRUE(same_bits(straight[1], cut[1])) << n_at_once;

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
  ASSERT_TRUE(broken.select(options_of(Policy::kNosa)).ok());
  ASSERT_TRUE(broken.set_tokens(tokens).ok());
  int n_interrupted = 0;
  uint64_t command = 0;
  for (bool done = false; !done;) {
    running.store(++command);
    const PrefillOutcome outcome = broken.prefill(1 << 20, StopFlag(stopped_up_to, command)).value();
    done = outcome.done;
    n_interrupted += outcome.interrupted ? 1 : 0;
  }
  over.store(true);
  stopper.join();
  EXPECT_GT(n_interrupted, 2);
  const auto resumed = forced_steps(broken, {3, 4});
  EXPECT_TRUE(same_bits(straight[0], resumed[0]));
  EXPECT_TRUE(same_bits(straight[1], resumed[1]));
}

TEST_F(SelectionTest, ANewSelectionWhileAChunkIsHalfDoneBeginsTheChunkAnew) {
  const std::vector<uint32_t> tokens = tiny.random_tokens(900, random);
  const auto session = open();
  Sequence& expected = create(*session);
  ASSERT_TRUE(expected.set_tokens(tokens).ok());
  ASSERT_TRUE(expected.prefill(768, {}).ok());
  ASSERT_TRUE(expected.select(options_of(Policy::kNosa)).ok());
  // Until one is caught in the middle.
  Sequence* caught = nullptr;
  for (int round = 0; round < 200 && caught == nullptr; ++round) {
    Sequence& parked = create(*session);
    ASSERT_TRUE(parked.set_tokens(tokens).ok());
    ASSERT_TRUE(parked.prefill(768, {}).ok());
    std::atomic<uint64_t> stopped_up_to{0};
    std::atomic<bool> begun{false};
    std::thread stopper([&] {
      while (!begun.load()) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::microseconds((200 - round) * 4));
      stopped_up_to.store(1);
    });
    begun.store(true);
    if (parked.prefill(128, StopFlag(stopped_up_to, 1)).value().interrupted) caught = &parked;
    stopper.join();
  }
  ASSERT_NE(caught, nullptr);
  Sequence& parked = *caught;
  ASSERT_TRUE(parked.select(options_of(Policy::kNosa)).ok());
  EXPECT_TRUE(same_bits(forced_steps(parked, {1})[0], forced_steps(expected, {1})[0]));
}

TEST_F(SelectionTest, ConsecutiveSelectionsOverlapAsProven) {
  const auto session = open();
  Sequence& sequence =
      prefilled(*session, tiny.random_tokens(1000, random), options_of(Policy::kNosa));
  const std::vector<uint32_t> tokens = tiny.random_tokens(300, random);
  const DecodeOutcome outcome = chosen_steps(sequence, tokens);
  int n_changed_most = 0;
  for (size_t i = 0; i < outcome.steps.size(); ++i) {
    const auto& lists = outcome.steps[i].selections;
    ASSERT_EQ(lists.size(), 4u);
    for (size_t head = 0; head < lists.size(); ++head) {
      const auto& now = lists[head];
      ASSERT_EQ(int(now.size()), budget.total_blocks);
      ASSERT_TRUE(std::ranges::is_sorted(now));
      // The query of step i is at 999 + i.
      const int current = (999 + int(i)) / kBlockTokens;
      for (const int32_t forced : {0, current, current - 1, current - 2}) {
        EXPECT_TRUE(std::ranges::binary_search(now, forced));
      }
      if (i == 0) continue;
      const auto& before = outcome.steps[i - 1].selections[head];
      std::vector<int32_t> both;
      std::ranges::set_intersection(now, before, std::back_inserter(both));
      // A block that has just begun was in no selection before.
      const int n_begun = (999 + int(i)) % kBlockTokens == 0 ? 1 : 0;
      const int n_changed = budget.total_blocks - int(both.size());
      EXPECT_LE(n_changed, budget.query_picks() + n_begun) << "step " << i;
      n_changed_most = std::max(n_changed_most, n_changed);
    }
  }
  EXPECT_GT(n_changed_most, 0);
  EXPECT_EQ(outcome.attended_blocks, budget.total_blocks);
  EXPECT_EQ(outcome.total_blocks, blocks_for(1299));
}

class SegmentsTest : public SelectionTest {
 protected:
  static constexpr int n_header = 100;
  static constexpr int span = 640;

  struct Context {
    std::vector<SequenceId> ids;
    std::vector<std::string> files;
  };

  SegmentsTest() {
    texts.push_back(tiny.random_tokens(n_header, random));
    for (int i = 0; i < 5; ++i) {
      texts.push_back(tiny.random_tokens(int(random.between(300, span)), random));
    }
    question = tiny.random_tokens(400, random);
  }

  /// Header and segments, computed here.
  Context compute(Session& session) const {
    Context context;
    for (size_t i = 0; i < texts.size(); ++i) {
      std::vector<SequenceId> attended;
      if (i > 0) attended.push_back(context.ids[0]);
      const SequenceId id = session.create_sequence(i == 0 ? 0 : n_header, attended).value();
      Sequence& sequence = *session.sequence(id).value();
      EXPECT_TRUE(sequence.set_tokens(texts[i]).ok());
      EXPECT_TRUE(sequence.prefill(1 << 20, {}).value().done);
      context.ids.push_back(id);
    }
    return context;
  }

  void save(Session& session, Context& context) const {
    for (size_t i = 0; i < context.ids.size(); ++i) {
      context.files.push_back(folder.path_of("segment" + std::to_string(i)));
      Sequence& sequence = *session.sequence(context.ids[i]).value();
      EXPECT_TRUE(sequence.save(context.files[i], "key").ok());
    }
  }

  Context load(Session& session, const std::vector<std::string>& files) const {
    Context context{{}, files};
    for (size_t i = 0; i < files.size(); ++i) {
      std::vector<SequenceId> attended;
      if (i > 0) attended.push_back(context.ids[0]);
      const SequenceId id = session.create_sequence(i == 0 ? 0 : n_header, attended).value();
      const Result<int> n = (*session.sequence(id))->load(files[i], "key");
      EXPECT_TRUE(n.ok()) << n.status().message();
      context.ids.push_back(id);
    }
    return context;
  }

  Sequence& tail(Session& session, const Context& context, const SelectionOptions& options) const {
    const SequenceId id = session.create_sequence(n_header + span, context.ids).value();
    Sequence& sequence = *session.sequence(id).value();
    EXPECT_TRUE(sequence.select(options).ok());
    EXPECT_TRUE(sequence.set_tokens(question).ok());
    return sequence;
  }

  std::vector<std::vector<uint32_t>> texts;
  std::vector<uint32_t> question;
};

TEST_F(SegmentsTest, AMemoryLimitChangesNoBit) {
  const std::vector<uint32_t> teacher = tiny.random_tokens(100, random);
  std::vector<std::vector<std::vector<ScoredToken>>> answers;
  const auto free = open(2);
  Context context = compute(*free);
  save(*free, context);
  answers.push_back(forced_steps(tail(*free, context, options_of(Policy::kNosa)), teacher));
  EXPECT_EQ(free->memory().blocks_read, 0u);
  EXPECT_EQ(free->memory().memory_bytes_max, 0u);

  // One slab: far less than the context, and for a single query's blocks just enough.
  const size_t n_bytes = HostTier::slab_slots * free->model().kv_shape().extent_bytes();
  for (const int n_threads : {1, 2}) {
    for (const bool saved : {false, true}) {
      const auto session = open_limited(n_threads, n_bytes);
      const Context limited = saved ? load(*session, context.files) : compute(*session);
      answers.push_back(forced_steps(tail(*session, limited, options_of(Policy::kNosa)), teacher));
      const MemoryUse use = session->memory();
      EXPECT_LE(use.resident_bytes, n_bytes);
      EXPECT_EQ(use.memory_bytes_max, n_bytes);
      EXPECT_GT(use.kv_bytes, 2 * n_bytes);
      EXPECT_GT(use.blocks_read, 100u);
      EXPECT_EQ(use.disk_bytes_read, use.blocks_read * free->model().kv_shape().extent_bytes());
      EXPECT_EQ(saved && use.disk_bytes_written > use.kv_bytes / 2, false);
      session->check_integrity();
    }
  }
  for (const auto& answer : answers) {
    for (size_t i = 0; i < teacher.size(); ++i) ASSERT_TRUE(same_bits(answer[i], answers[0][i])) << i;
  }
}

TEST_F(SegmentsTest, ReadingAheadChangesNoBitAndSparesReadsOnDemand) {
  const std::vector<uint32_t> teacher = tiny.random_tokens(20, random);
  const auto free = open(2);
  Context context = compute(*free);
  save(*free, context);
  for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2}) {
    const auto expected = forced_steps(tail(*free, context, options_of(policy)), teacher);
    for (const size_t n_slabs : {1, 2, 100}) {
      const size_t n_bytes = n_slabs * HostTier::slab_slots * free->model().kv_shape().extent_bytes();
      const auto demand = open_limited(2, n_bytes);
      forced_steps(tail(*demand, load(*demand, context.files), options_of(policy)), teacher);
      const auto ahead = open_limited(2, n_bytes);
      Sequence& sequence = tail(*ahead, load(*ahead, context.files), options_of(policy));
      const PrefetchOutcome outcome = sequence.prefetch({}).value();
      EXPECT_GT(outcome.blocks, 0u);
      EXPECT_FALSE(outcome.interrupted);
      const auto steps = forced_steps(sequence, teacher);
      for (size_t i = 0; i < teacher.size(); ++i) ASSERT_TRUE(same_bits(steps[i], expected[i])) << i;
      const MemoryUse use = ahead->memory();
      EXPECT_EQ(use.blocks_prefetched, outcome.blocks);
      EXPECT_GT(use.prefetched_used, 0u);
      EXPECT_LE(use.prefetched_used, use.blocks_prefetched);
      if (n_slabs == 100) {
        // What every query takes is all used, and is not read again.
        EXPECT_EQ(use.prefetched_used, use.blocks_prefetched);
        EXPECT_EQ(use.blocks_read + use.blocks_prefetched, demand->memory().blocks_read);
      }
      // In the middle of a chunk and with nothing missing it does no harm either.
      ASSERT_TRUE(sequence.prefetch({}).ok());
      ASSERT_TRUE(same_bits(forced_steps(sequence, {1})[0],
                            forced_steps(tail(*free, context, options_of(policy)), [&] {
                              std::vector<uint32_t> longer = teacher;
                              longer.push_back(1);
                              return longer;
                            }()).back()));
      ahead->check_integrity();
    }
  }
}

TEST_F(SegmentsTest, ASavedTailGoesOnAsItWas) {
  const auto session = open();
  const Context context = compute(*session);
  Sequence& first = tail(*session, context, options_of(Policy::kNosa));
  ASSERT_TRUE(first.prefill(1000, {}).value().done);
  ASSERT_TRUE(first.save(folder.path_of("tail"), "key").ok());
  const SequenceId id = session->create_sequence(n_header + span, context.ids).value();
  Sequence& loaded = *session->sequence(id).value();
  ASSERT_TRUE(loaded.select(options_of(Policy::kNosa)).ok());
  ASSERT_TRUE(loaded.load(folder.path_of("tail"), "key").ok());
  const std::vector<uint32_t> teacher = tiny.random_tokens(150, random);
  const auto a = forced_steps(first, teacher);
  const auto b = forced_steps(loaded, teacher);
  for (size_t i = 0; i < teacher.size(); ++i) ASSERT_TRUE(same_bits(a[i], b[i])) << i;
}

TEST_F(SegmentsTest, MaskedBlocksAreNeverAttendedToAndPinnedOnesAlways) {
  const auto session = open();
  const Context context = compute(*session);
  for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2, Policy::kFull}) {
    SelectionOptions options = options_of(policy);
    options.masked = {{2, 0, 3}, {3, 1, 2}, {5, 2, 4}, {0, 0, 1}};
    options.pinned = {{1, 2, 3}, {2, 1, 4}};  // Of the second, one block is left.
    Sequence& sequence = tail(*session, context, options);
    const DecodeOutcome outcome = chosen_steps(sequence, tiny.random_tokens(80, random));

    std::vector<int32_t> first_blocks;
    int32_t n_context = 0;
    for (const auto& text : texts) {
      first_blocks.push_back(n_context);
      n_context += blocks_for(int(text.size()));
    }
    const auto index = [&](int segment, int block) { return first_blocks[size_t(segment)] + block; };
    const std::vector<int32_t> masked = {index(0, 0), index(2, 0), index(2, 1), index(2, 2),
                                         index(3, 1), index(5, 2), index(5, 3)};
    const std::vector<int32_t> pinned = {index(1, 2), index(2, 3)};
    for (const DecodeStep& step : outcome.steps) {
      ASSERT_EQ(step.selections.size(), 4u);
      for (const auto& chosen : step.selections) {
        ASSERT_FALSE(chosen.empty());
        if (policy != Policy::kFull) { ASSERT_EQ(int(chosen.size()), budget.total_blocks); }
        for (const int32_t b : masked) ASSERT_FALSE(std::ranges::binary_search(chosen, b)) << b;
        for (const int32_t b : pinned) ASSERT_TRUE(std::ranges::binary_search(chosen, b)) << b;
      }
    }
  }
}

TEST_F(SegmentsTest, AMaskedSegmentIsAsOneThatIsNotThere) {
  const auto session = open();
  const Context context = compute(*session);
  Context without = context;
  without.ids.erase(without.ids.begin() + 3);
  const std::vector<uint32_t> teacher = tiny.random_tokens(70, random);
  for (const Policy policy : {Policy::kNosa, Policy::kInfLlmV2, Policy::kFull}) {
    SelectionOptions options = options_of(policy);
    const auto expected = forced_steps(tail(*session, without, options), teacher);
    options.masked = {{3, 0, blocks_for(int(texts[3].size()))}};
    const auto got = forced_steps(tail(*session, context, options), teacher);
    for (size_t i = 0; i < teacher.size(); ++i) ASSERT_TRUE(same_bits(got[i], expected[i])) << i;
  }
}

TEST_F(SegmentsTest, MassesCoverWhatWasChosenAndSumToWhatTheOwnTokensLeave) {
  const auto session = open();
  const Context context = compute(*session);
  Sequence& sequence = tail(*session, context, options_of(Policy::kNosa));
  ASSERT_TRUE(sequence.prefill(1000, {}).ok());
  DecodeRequest request;
  request.n_steps = 2;
  request.forced = true;
  request.teacher = {1, 2};
  request.masses = true;
  request.selections = true;
  const DecodeOutcome outcome = sequence.decode(request, {}).value();
  double total = 0;
  int n_attended = 0;
  for (const BlockMass& mass : outcome.masses) {
    EXPECT_GE(mass.mass, 0.0f);
    total += mass.mass;
    n_attended += mass.mass > 0 ? 1 : 0;
  }
  EXPECT_GT(total, 0.0);
  EXPECT_LT(total, 1.0);
  EXPECT_GT(n_attended, 1);
  EXPECT_LE(n_attended, 4 * budget.total_blocks);
}

TEST_F(SegmentsTest, ASelectionThatMakesNoSenseIsRefusedAndChangesNothing) {
  const auto session = open();
  const Context context = compute(*session);
  Sequence& sequence = tail(*session, context, options_of(Policy::kNosa));
  for (const BlockRange& range : {BlockRange{6, 0, 1}, BlockRange{-1, 0, 1}, BlockRange{1, 2, 1},
                                  BlockRange{1, -1, 1}, BlockRange{0, 0, 3}}) {
    SelectionOptions options = options_of(Policy::kNosa);
    options.masked = {range};
    EXPECT_EQ(sequence.select(options).code(), StatusCode::kInvalidArgument);
    options.masked.clear();
    options.pinned = {range};
    EXPECT_EQ(sequence.select(options).code(), StatusCode::kInvalidArgument);
  }
  SelectionOptions options = options_of(Policy::kNosa);
  options.pinned = {{1, 0, 3}};
  EXPECT_EQ(sequence.select(options).code(), StatusCode::kInvalidArgument);
  options.budget.total_blocks = 10;
  EXPECT_TRUE(sequence.select(options).ok());
  options.budget.window_blocks = 0;
  EXPECT_EQ(sequence.select(options).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nosa::test
