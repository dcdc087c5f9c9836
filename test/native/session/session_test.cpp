#include "session/session.h"

#include <map>

#include "session_fixture.h"

namespace nosa::test {
namespace {

class SessionTest : public TinySession {};

TEST_F(SessionTest, AnAttendedSequenceLivesAsLongAsItIsAttended) {
  const auto session = open();
  const SequenceId header = session->create_sequence(0, {}).value();
  Sequence& sequence = *session->sequence(header).value();
  ASSERT_TRUE(sequence.set_tokens(tiny.random_tokens(70, random)).ok());
  ASSERT_TRUE(sequence.prefill(100, {}).ok());
  const std::vector<SequenceId> attended = {header};
  const SequenceId tail = session->create_sequence(70, attended).value();
  session->close_sequence(header);
  EXPECT_EQ(session->sequence(header).status().code(), StatusCode::kDisposed);
  EXPECT_EQ(session->memory().sequences, 2u);
  EXPECT_GT(session->memory().kv_blocks, 0u);

  // The fork attends the header too.
  const SequenceId fork = session->fork_sequence(tail).value();
  session->close_sequence(tail);
  session->close_sequence(tail);
  EXPECT_EQ(session->memory().sequences, 2u);
  session->close_sequence(fork);
  EXPECT_EQ(session->memory().sequences, 0u);
  EXPECT_EQ(session->memory().kv_bytes, 0u);
  session->check_integrity();
}

TEST_F(SessionTest, ClosedSequencesCannotBeUsed) {
  const auto session = open();
  const SequenceId id = session->create_sequence(0, {}).value();
  session->close_sequence(id);
  const std::vector<SequenceId> attended = {id};
  EXPECT_EQ(session->create_sequence(0, attended).status().code(), StatusCode::kDisposed);
  EXPECT_EQ(session->fork_sequence(id).status().code(), StatusCode::kDisposed);
  EXPECT_EQ(session->create_sequence(-1, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(SessionTest, BooksBalanceAfterAnyMixOfOperations) {
  const auto session = open();
  std::vector<SequenceId> ids;
  for (int step = 0; step < 400; ++step) {
    const auto any = [&] { return ids[size_t(random.between(0, int64_t(ids.size()) - 1))]; };
    const int64_t dice = ids.size() < 3 ? 0 : random.between(0, 6);
    if (dice == 0) {
      ids.push_back(session->create_sequence(int(random.between(0, 1000)), {}).value());
    } else if (dice == 1) {
      const std::vector<SequenceId> attended = {any()};
      Result<SequenceId> made = session->create_sequence(5, attended);
      if (made.ok()) ids.push_back(*made);
    } else if (dice == 2) {
      ids.push_back(session->fork_sequence(any()).value());
    } else if (dice == 3) {
      const auto tokens = tiny.random_tokens(int(random.between(0, 140)), random);
      (void)(*session->sequence(any()))->set_tokens(tokens).ok();  // Sealed ones refuse.
    } else if (dice == 4) {
      ASSERT_TRUE((*session->sequence(any()))->prefill(int(random.between(0, 150)), {}).ok());
    } else if (dice == 5) {
      (void)(*session->sequence(any()))->decode(draws(2), {}).ok();  // Empty ones refuse.
    } else {
      const size_t at = size_t(random.between(0, int64_t(ids.size()) - 1));
      session->close_sequence(ids[at]);
      ids.erase(ids.begin() + ptrdiff_t(at));
    }
    session->check_integrity();
  }
  for (const SequenceId id : ids) session->close_sequence(id);
  session->check_integrity();
  EXPECT_EQ(session->memory().kv_bytes, 0u);
  EXPECT_EQ(session->memory().sequences, 0u);
}

TEST_F(SessionTest, TheFingerprintTellsModelsAndKvTypesApart) {
  const auto a = open();
  const auto b = open(1);
  const auto exact = open(2, Precision::kF32);
  EXPECT_EQ(a->model().fingerprint(), b->model().fingerprint());
  EXPECT_NE(a->model().fingerprint(), exact->model().fingerprint());
  EXPECT_EQ(a->model().fingerprint().size(), 32u);

  TinyOptions turned = tiny.options();
  turned.theta = 20000.0f;
  Random same(1);
  Random again(1);
  const TinyModel first({}, same);
  const TinyModel second(turned, again);
  const auto open_path = [](const std::string& path) {
    return Session::open({path, 1, Precision::kFast, cpu::KernelChoice::kBest}).value();
  };
  const auto one = open_path(first.write_gguf(folder, "one.gguf"));
  const auto two = open_path(second.write_gguf(folder, "two.gguf"));
  const auto copy = open_path(first.write_gguf(folder, "copy.gguf"));
  EXPECT_NE(one->model().fingerprint(), two->model().fingerprint());
  EXPECT_EQ(one->model().fingerprint(), copy->model().fingerprint());
}

TEST_F(SessionTest, DecodesSeveralSequencesAsItDecodesEach) {
  const std::unique_ptr<Session> session = open();
  std::vector<Session::DecodeTask> tasks;
  std::vector<DecodeOutcome> want;
  for (int i = 0; i < 4; ++i) {
    const SequenceId id = session->create_sequence(0, {}).value();
    Sequence& sequence = **session->sequence(id);
    ASSERT_TRUE(sequence.set_tokens(tiny.random_tokens(int(random.between(1, 300)), random)).ok());
    const SequenceId copy = session->fork_sequence(id).value();
    DecodeRequest request = draws(int(random.between(0, 5)));
    request.top = 5;
    request.drafts = random.between(0, 1) == 0;
    request.sampling.temperature = 0.7f;
    request.sampling.seed = uint64_t(i);
    tasks.push_back({id, request});
    want.push_back((**session->sequence(copy)).decode(request, {}).value());
  }
  // One that is closed and one that comes again are refused; the others do not notice.
  const SequenceId closed = session->create_sequence(0, {}).value();
  session->close_sequence(closed);
  tasks.push_back({closed, draws(1)});
  tasks.push_back({tasks[0].id, draws(1)});
  const std::vector<Result<DecodeOutcome>> got = session->decode_together(tasks, {});
  ASSERT_EQ(got.size(), 6u);
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(got[i].ok()) << got[i].status().message();
    ASSERT_EQ(got[i]->steps.size(), want[i].steps.size());
    for (size_t step = 0; step < want[i].steps.size(); ++step) {
      EXPECT_EQ(got[i]->steps[step].token, want[i].steps[step].token);
      EXPECT_TRUE(same_bits(got[i]->steps[step].top, want[i].steps[step].top));
    }
    EXPECT_EQ(got[i]->n_shared, 0);
  }
  EXPECT_EQ(got[4].status().code(), StatusCode::kDisposed);
  EXPECT_EQ(got[5].status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(session->decode_together({}, {}).empty());
  EXPECT_EQ(session->step_sequences(), 1);
}

}  // namespace
}  // namespace nosa::test
