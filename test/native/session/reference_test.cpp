// The engine against the double-precision reference: every layout, family, type and file kind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "session/session.h"
#include "support/quantised_rows.h"
#include "support/reference_model.h"
#include "support/tiny_model.h"

namespace nosa::test {
namespace {

std::unique_ptr<Session> open_session(const std::string& path,
                                      Precision precision = Precision::kF32, int n_threads = 2) {
  Result<std::unique_ptr<Session>> session =
      Session::open({path, n_threads, precision, cpu::KernelChoice::kBest});
  EXPECT_TRUE(session.ok()) << session.status().message();
  return *std::move(session);
}

/// Makes the parts as sequences of a session; the last one stays empty.
std::vector<SequenceId> make_parts(Session& session, const std::vector<ReferenceModel::Part>& parts) {
  std::vector<SequenceId> ids;
  for (const ReferenceModel::Part& part : parts) {
    std::vector<SequenceId> attended;
    for (const size_t other : part.attends) attended.push_back(ids[other]);
    ids.push_back(session.create_sequence(part.base_position, attended).value());
    if (ids.size() == parts.size()) break;
    Sequence& sequence = *session.sequence(ids.back()).value();
    EXPECT_TRUE(sequence.set_tokens(part.tokens).ok());
    EXPECT_TRUE(sequence.prefill(1 << 20, {}).value().done);
  }
  return ids;
}

/// Log-probabilities by id after the tokens of `sequence`.
std::vector<float> next_logprobs(Sequence& sequence, int n_vocab) {
  DecodeRequest request;
  request.n_steps = 1;
  request.top = n_vocab;
  request.stop_ids.resize(size_t(n_vocab));  // Any token stops, so that none is kept.
  for (int id = 0; id < n_vocab; ++id) request.stop_ids[size_t(id)] = uint32_t(id);
  const DecodeOutcome outcome = sequence.decode(request, {}).value();
  std::vector<float> logprobs(static_cast<size_t>(n_vocab));
  for (const ScoredToken& token : outcome.steps.at(0).top) logprobs[token.id] = token.logprob;
  return logprobs;
}

double largest_difference(const std::vector<float>& got, const std::vector<double>& expected) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(double(got.at(i)) - expected[i]));
  }
  return largest;
}

/// The last part, token by token after a prefill of its first half, against the reference.
void expect_reference(const TinyModel& tiny, const std::string& path,
                      const std::vector<ReferenceModel::Part>& parts, double tolerance) {
  const ReferenceModel::Answer answer = ReferenceModel(tiny).run(parts);
  const auto session = open_session(path);
  const std::vector<SequenceId> ids = make_parts(*session, parts);
  Sequence& sequence = *session->sequence(ids.back()).value();
  const std::vector<uint32_t>& tokens = parts.back().tokens;
  const std::vector<size_t> lengths = {1, tokens.size() / 2, tokens.size() - 1, tokens.size()};
  for (const size_t n : lengths) {
    ASSERT_TRUE(sequence.set_tokens(std::span(tokens).first(n)).ok());
    const std::vector<float> got = next_logprobs(sequence, tiny.options().n_vocab);
    EXPECT_LT(largest_difference(got, answer.logprobs[n - 1]), tolerance) << "after " << n;
  }
}

TEST(Reference, ASequenceGivesWhatTheFormulasGive) {
  Random random;
  for (const char* architecture : {"llama", "qwen2"}) {
    for (const bool tied : {false, true}) {
      TinyOptions options;
      options.architecture = architecture;
      options.tied = tied;
      options.n_kv_heads = tied ? 1 : 2;
      const TinyModel tiny(options, random);
      const TempFolder folder;
      const ReferenceModel::Part part{0, tiny.random_tokens(201, random), {}};
      SCOPED_TRACE(architecture);
      expect_reference(tiny, tiny.write_gguf(folder, "tiny.gguf"), {part}, 2e-3);
    }
  }
}

TEST(Reference, ATailSeesTheHeaderAndEverySegmentAsOneSoftmax) {
  Random random;
  TinyOptions options;
  options.architecture = "qwen2";
  const TinyModel tiny(options, random);
  const TempFolder folder;
  const std::string path = tiny.write_gguf(folder, "tiny.gguf");
  // Ragged: a header of less than a block, a segment of whole blocks, one of more than a chunk.
  const int header = 37;
  const int span = 192;
  const std::vector<ReferenceModel::Part> parts = {
      {0, tiny.random_tokens(header, random), {}},
      {header, tiny.random_tokens(128, random), {0}},
      {header, tiny.random_tokens(171, random), {0}},
      {header, tiny.random_tokens(1, random), {0}},
      {header + span, tiny.random_tokens(90, random), {0, 1, 2, 3}}};
  expect_reference(tiny, path, parts, 2e-3);

  const ReferenceModel::Answer answer = ReferenceModel(tiny).run(parts);
  const auto session = open_session(path);
  const std::vector<SequenceId> ids = make_parts(*session, parts);
  Sequence& tail = *session->sequence(ids.back()).value();
  ASSERT_TRUE(tail.set_tokens(std::span(parts.back().tokens).first(89)).ok());
  ASSERT_TRUE(tail.prefill(1000, {}).value().done);
  DecodeRequest request;
  request.n_steps = 2;
  request.forced = true;
  request.teacher = {parts.back().tokens[89], 0};
  request.masses = true;
  const DecodeOutcome outcome = tail.decode(request, {}).value();
  EXPECT_EQ(outcome.total_blocks, 1 + 2 + 3 + 1 + 2);
  EXPECT_EQ(outcome.attended_blocks, outcome.total_blocks);
  ASSERT_EQ(outcome.masses.size(), answer.masses.size());
  const std::vector<int> first_block = {0, 1, 3, 6};
  for (size_t i = 0; i < outcome.masses.size(); ++i) {
    const BlockMass& mass = outcome.masses[i];
    const size_t at = size_t(first_block[size_t(mass.sequence)] + mass.block);
    EXPECT_NEAR(mass.mass, answer.masses[at], 1e-4) << at;
    EXPECT_LE(mass.mass, outcome.masses[i == 0 ? 0 : i - 1].mass);
  }
}

TEST(Reference, OneSegmentAfterAHeaderIsTheSequenceLayout) {
  Random random;
  const TinyModel tiny({}, random);
  const TempFolder folder;
  const std::string path = tiny.write_gguf(folder, "tiny.gguf");
  const std::vector<uint32_t> tokens = tiny.random_tokens(150, random);
  const std::vector<uint32_t> header(tokens.begin(), tokens.begin() + 64);
  const std::vector<uint32_t> rest(tokens.begin() + 64, tokens.end());
  const ReferenceModel::Answer whole = ReferenceModel(tiny).run({{0, tokens, {}}});

  const auto session = open_session(path);
  const std::vector<SequenceId> ids = make_parts(*session, {{0, header, {}}, {64, rest, {0}}});
  Sequence& segment = *session->sequence(ids.back()).value();
  ASSERT_TRUE(segment.set_tokens(rest).ok());
  EXPECT_LT(largest_difference(next_logprobs(segment, tiny.options().n_vocab),
                               whole.logprobs.back()),
            2e-3);
}

TEST(Reference, EveryTypeOfWeightIsReadAsItStands) {
  Random random;
  for (const DType dtype : all_dtypes) {
    SCOPED_TRACE(dtype_name(dtype));
    TinyOptions options;
    options.architecture = dtype == DType::kQ4_K ? "llama" : "qwen2";
    options.dtype = dtype;
    options.n_embd = 256;
    options.n_ff = 256;
    options.n_heads = 4;
    options.head_dim = 64;
    options.n_layers = 1;
    options.n_vocab = 48;
    const TinyModel tiny(options, random);
    const TempFolder folder;
    const ReferenceModel::Part part{0, tiny.random_tokens(20, random), {}};
    expect_reference(tiny, tiny.write_gguf(folder, "tiny.gguf"), {part}, 2e-3);
  }
}

TEST(Reference, FoldersOfOneFileAndOfShardsAnswerAsTheGguf) {
  Random random;
  for (const char* architecture : {"llama", "qwen2"}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(std::string(architecture) + " " + dtype_name(dtype));
      TinyOptions options;
      options.architecture = architecture;
      options.dtype = dtype;
      const TinyModel tiny(options, random);
      const TempFolder folder;
      const ReferenceModel::Part part{0, tiny.random_tokens(70, random), {}};
      expect_reference(tiny, tiny.write_folder(folder, "one", 1), {part}, 2e-3);
      expect_reference(tiny, tiny.write_folder(folder, "three", 3), {part}, 2e-3);
    }
  }
}

TEST(Reference, QuantisedActivationsStayClose) {
  Random random;
  TinyOptions options;
  options.n_embd = 256;
  options.n_ff = 512;
  options.n_heads = 4;
  options.head_dim = 64;
  options.dtype = DType::kQ8_0;
  const TinyModel tiny(options, random);
  const TempFolder folder;
  const ReferenceModel::Part part{0, tiny.random_tokens(100, random), {}};
  const ReferenceModel::Answer answer = ReferenceModel(tiny).run({part});
  const auto session = open_session(tiny.write_gguf(folder, "tiny.gguf"), Precision::kFast);
  const std::vector<SequenceId> ids = make_parts(*session, {part});
  Sequence& sequence = *session->sequence(ids[0]).value();
  ASSERT_TRUE(sequence.set_tokens(part.tokens).ok());
  const std::vector<float> got = next_logprobs(sequence, options.n_vocab);
  double divergence = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double expected = answer.logprobs.back()[i];
    divergence += std::exp(expected) * (expected - got[i]);
  }
  EXPECT_LT(divergence, 0.01);
}

}  // namespace
}  // namespace nosa::test
