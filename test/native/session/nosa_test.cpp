// NOSA models, native ones and adapted ones, against a double-precision reference: selections, outputs, both layouts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "session/session.h"
#include "support/nosa_reference.h"
#include "support/sanitized.h"
#include "support/tiny_adapter.h"

namespace nosa::test {
namespace {

// Few blocks, so that short contexts have more than a query may take.
constexpr NosaReference::Constants constants = {
    .total_blocks = 8, .query_blocks = 3, .sink_blocks = 1, .window_blocks = 2};

struct Heads {
  int group;
  int n_kv_heads;
  int head_dim;
};

TinyOptions options_of(const Heads& heads, Random& random) {
  TinyOptions options;
  options.dtype = DType::kBF16;
  options.n_embd = 48;
  options.n_ff = 64;
  options.n_heads = heads.group * heads.n_kv_heads;
  options.n_kv_heads = heads.n_kv_heads;
  options.head_dim = heads.head_dim;
  options.n_vocab = 64;
  options.nosa = true;
  for (int i = 0; i < heads.head_dim / 2; ++i) {
    options.long_factors.push_back(1.0f + std::abs(random.normal(4.0f)));
  }
  return options;
}

std::unique_ptr<Session> open_session(const std::string& path, int n_threads = 2) {
  Result<std::unique_ptr<Session>> session =
      Session::open({path, n_threads, Precision::kF32, cpu::KernelChoice::kBest, {}});
  EXPECT_TRUE(session.ok()) << session.status().message();
  return *std::move(session);
}

SelectionOptions selection_of(const NosaReference::Constants& c) {
  SelectionOptions options;
  options.policy = Policy::kNosa;
  options.budget = {c.total_blocks, c.query_blocks, c.sink_blocks, c.window_blocks};
  return options;
}

/// What `n_steps` forced steps differed by, and whether they chose what they should.
struct Outcome {
  double largest = 0;
  int n_selections = 0;
  int n_near_ties = 0;
  int n_wrong = 0;
};

/// Forced steps of `sequence`, each held against the reference, which has the same tokens but the
/// last, and gets that too.
Outcome compare_steps(Sequence& sequence, const NosaReference& reference, NosaReference::Part& part,
                      const std::vector<uint32_t>& tokens, const TinyModel& tiny) {
  DecodeRequest request;
  request.n_steps = int(tokens.size());
  request.forced = true;
  request.teacher = tokens;
  request.top = tiny.options().n_vocab;
  request.selections = true;
  const DecodeOutcome outcome = sequence.decode(request, {}).value();
  EXPECT_EQ(outcome.steps.size(), tokens.size());

  // Step i chose for the token before its own, and drew what comes after that one.
  Outcome result;
  uint32_t token = 0;
  for (size_t i = 0; i < outcome.steps.size(); ++i) {
    const DecodeStep& got = outcome.steps[i];
    if (i > 0) {
      const auto expected = reference.step(part, token, constants, got.selections);
      for (const ScoredToken& top : got.top) {
        result.largest = std::max(result.largest, std::abs(top.logprob - expected.logprobs[top.id]));
      }
      result.n_selections += int(got.selections.size());
      result.n_near_ties += expected.n_near_ties;
      result.n_wrong += expected.n_wrong;
    }
    token = got.token;
  }
  return result;
}

void expect_reference(const Outcome& outcome) {
  testing::Test::RecordProperty("largest", std::to_string(outcome.largest));
  testing::Test::RecordProperty("near_ties", outcome.n_near_ties);
  EXPECT_LT(outcome.largest, 1e-3);
  EXPECT_EQ(outcome.n_wrong, 0);
  EXPECT_LE(outcome.n_near_ties, outcome.n_selections / 200) << "of " << outcome.n_selections;
}

class NosaHeads : public testing::TestWithParam<Heads> {
 protected:
  Random random;
  TempFolder folder;
};

TEST_P(NosaHeads, TwoThousandStepsOfOneSequenceChooseAndAnswerAsTheReference) {
  const TinyModel tiny(options_of(GetParam(), random), random);
  const auto session = open_session(tiny.write_folder(folder, "tiny", 1));
  Sequence& sequence = *session->sequence(session->create_sequence(0, {}).value()).value();
  ASSERT_TRUE(sequence.select(selection_of(constants)).ok());

  const NosaReference reference(tiny);
  NosaReference::Part part(reference, 0, {});
  // All blocks are seen at first, then too many.
  const std::vector<uint32_t> first = tiny.random_tokens(100, random);
  ASSERT_TRUE(sequence.set_tokens(first).ok());
  for (const uint32_t token : first) reference.step(part, token);
  const std::vector<uint32_t> tokens = tiny.random_tokens(kSanitized ? 301 : 2001, random);
  expect_reference(compare_steps(sequence, reference, part, tokens, tiny));
}

TEST_P(NosaHeads, ATailOverSegmentsChoosesAndAnswersAsTheReference) {
  const TinyModel tiny(options_of(GetParam(), random), random);
  const auto session = open_session(tiny.write_folder(folder, "tiny", 2));
  const NosaReference reference(tiny);
  std::vector<std::unique_ptr<NosaReference::Part>> parts;
  std::vector<SequenceId> ids;
  const auto add = [&](int base_position, int n_tokens, const std::vector<size_t>& attends) {
    std::vector<const NosaReference::Part*> part_attends;
    std::vector<SequenceId> id_attends;
    for (const size_t other : attends) {
      part_attends.push_back(parts[other].get());
      id_attends.push_back(ids[other]);
    }
    parts.push_back(std::make_unique<NosaReference::Part>(reference, base_position, part_attends));
    ids.push_back(session->create_sequence(base_position, id_attends).value());
    const std::vector<uint32_t> tokens = tiny.random_tokens(n_tokens, random);
    for (const uint32_t token : tokens) reference.step(*parts.back(), token);
    Sequence& sequence = *session->sequence(ids.back()).value();
    EXPECT_TRUE(sequence.set_tokens(tokens).ok());
    EXPECT_TRUE(sequence.prefill(1 << 20, {}).value().done);
  };

  // Of less than a window, of whole blocks, of a last block that no window touches.
  constexpr int header = 11;
  add(0, header, {});
  for (const int n_tokens : {64, 200, 3, 128, 70, 257, 31, 330}) add(header, n_tokens, {0});
  for (const SequenceId id : ids) {
    ASSERT_TRUE((*session->sequence(id))->prefill(1 << 20, {}).value().done);
  }
  std::vector<const NosaReference::Part*> part_attends;
  for (const auto& other : parts) part_attends.push_back(other.get());
  const int base_position = header + 400;
  Sequence& tail = *session->sequence(session->create_sequence(base_position, ids).value()).value();
  NosaReference::Part part(reference, base_position, part_attends);
  // A first token that sees everything, and from then on too many blocks.
  const std::vector<uint32_t> first = tiny.random_tokens(1, random);
  ASSERT_TRUE(tail.set_tokens(first).ok());
  ASSERT_TRUE(tail.prefill(1, {}).value().done);
  reference.step(part, first[0]);
  ASSERT_TRUE(tail.select(selection_of(constants)).ok());
  const std::vector<uint32_t> tokens = tiny.random_tokens(kSanitized ? 101 : 601, random);
  expect_reference(compare_steps(tail, reference, part, tokens, tiny));
}

/// Over a base of any type: f32 as it stands, or quantised, which the updates must not change.
void expect_adapted(const TinyOptions& options, int n_steps) {
  Random random;
  const TempFolder folder;
  const TinyModel base(options, random);
  const TinyAdapter adapter(base, 8, random);
  ModelOptions model;
  model.path = base.write_gguf(folder, "tiny.gguf");
  model.adapter = adapter.write(folder, "adapter.safetensors");
  model.base_sha256 = TinyAdapter::base_sha256;
  model.n_threads = 2;
  model.precision = Precision::kF32;
  Result<std::unique_ptr<Session>> session = Session::open(model);
  ASSERT_TRUE(session.ok()) << session.status().message();
  EXPECT_EQ((*session)->model().selection_source(), SelectionSource::kAdapter);

  Sequence& sequence = *(*session)->sequence((*session)->create_sequence(0, {}).value()).value();
  ASSERT_TRUE(sequence.select(selection_of(constants)).ok());
  const TinyModel merged = adapter.merged();
  const NosaReference reference(merged);
  NosaReference::Part part(reference, 0, {});
  const std::vector<uint32_t> first = base.random_tokens(300, random);
  ASSERT_TRUE(sequence.set_tokens(first).ok());
  for (const uint32_t token : first) reference.step(part, token);
  const std::vector<uint32_t> tokens = base.random_tokens(n_steps, random);
  expect_reference(compare_steps(sequence, reference, part, tokens, base));
}

TEST(Adapter, MakesANosaModelOfAnyOrdinaryOne) {
  for (const char* architecture : {"llama", "qwen2"}) {
    SCOPED_TRACE(architecture);
    TinyOptions options;
    options.architecture = architecture;
    options.n_vocab = 64;
    expect_adapted(options, 501);
  }
}

TEST(Adapter, LeavesQuantisedWeightsAsTheyAre) {
  TinyOptions options;
  options.dtype = DType::kQ4_K;
  options.n_embd = 256;
  options.n_ff = 256;
  options.head_dim = 64;
  options.n_vocab = 64;
  expect_adapted(options, 301);
}

INSTANTIATE_TEST_SUITE_P(Groups, NosaHeads,
                         testing::Values(Heads{1, 2, 64}, Heads{3, 2, 64}, Heads{7, 2, 64},
                                         Heads{8, 1, 128}, Heads{16, 1, 128}),
                         [](const testing::TestParamInfo<Heads>& info) {
                           return "of" + std::to_string(info.param.group) + "x" +
                                  std::to_string(info.param.head_dim);
                         });

}  // namespace
}  // namespace nosa::test
