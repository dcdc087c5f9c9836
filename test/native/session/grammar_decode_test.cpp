#include <atomic>
#include <chrono>
#include <thread>

#include "session/grammar.h"
#include "session_fixture.h"

namespace nosa::test {
namespace {

TinyOptions byte_options() {
  TinyOptions options;
  options.n_vocab = 300;
  return options;
}

/// A random model whose tokens are bytes, some longer ones, and control tokens behind them.
class GrammarDecodeTest : public TinySession {
 protected:
  GrammarDecodeTest() : TinySession(byte_options()) {
    std::string bytes;
    std::vector<uint32_t> offsets = {0};
    for (int byte = 0; byte < 256; ++byte) {
      bytes.push_back(char(byte));
      offsets.push_back(uint32_t(bytes.size()));
    }
    for (const char* token : {"<call>", "</call>", "{\"", "\": ", "\", \"", "\"}", "}}", "true",
                              "12", "path", "na", "me", "\xC3\xA9", "\xE2\x82"}) {
      bytes += token;
      offsets.push_back(uint32_t(bytes.size()));
    }
    while (offsets.size() <= 290) offsets.push_back(uint32_t(bytes.size()));
    vocabulary_ = std::make_shared<const Vocabulary>(Vocabulary::create(bytes, offsets).value());
  }

  /// {"name": "look", "arguments": {"path": one of 3 texts, "deep": true or false, optional}}, the
  /// calls short enough for a random model to come to their ends.
  std::shared_ptr<const Grammar> grammar(bool required) const {
    CallRules rules;
    rules.open = "<call>";
    rules.close = "</call>";
    rules.required = required;
    rules.values = {{ValueRule::Object{{{"path", 1, true}, {"deep", 2, false}}}},
                    {ValueRule::Text{{"\"a\"", "\"ab\"", "\"\xC3\xA9\""}}},
                    {ValueRule::Text{{"true", "false"}}},
                    {ValueRule::Object{{{"n", 4, true}}}},
                    {ValueRule::Number{true}}};
    rules.calls = {{"{\"name\": \"look\", \"arguments\": ", 0, "}"},
                   {"{\"name\": \"count\", \"arguments\": ", 3, "}"}};
    return std::make_shared<const Grammar>(Grammar::create(rules, vocabulary_).value());
  }

  std::string text(const std::vector<DecodeStep>& steps) const {
    std::string all;
    for (const DecodeStep& step : steps) all += vocabulary_->bytes(step.token);
    return all;
  }

  DecodeRequest request(std::shared_ptr<const Grammar> grammar, int from, int n_steps,
                        float temperature) const {
    DecodeRequest made = draws(n_steps);
    made.sampling.temperature = temperature;
    made.sampling.seed = 11;
    made.sampling.repetition_penalty = 1.3f;
    made.grammar = std::move(grammar);
    made.grammar_from = from;
    return made;
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
};

TEST_F(GrammarDecodeTest, ARandomModelCallsAsItMust) {
  const auto session = open();
  int n_whole = 0;
  for (int round = 0; round < 12; ++round) {
    Sequence& sequence = create(*session);
    const std::vector<uint32_t> prompt = tiny.random_tokens(20, random);
    ASSERT_TRUE(sequence.set_tokens(prompt).ok());
    DecodeRequest asked = request(grammar(true), 20, 0, round % 3 == 0 ? 0.0f : 5.0f);
    asked.sampling.top_k = round % 2 == 0 ? 20 : 0;
    asked.sampling.seed = random.bits();
    asked.stop_ids = {299};
    std::string all;
    // In short commands, as the engine does: the state comes from the tokens alone.
    for (int command = 0; command < 40 && all.find("</call>") == all.npos; ++command) {
      asked.n_steps = int(random.between(1, 9));
      const DecodeOutcome outcome = sequence.decode(asked, {}).value();
      all += text(outcome.steps);
    }
    ASSERT_TRUE(all.starts_with("<call>")) << all;
    const size_t end = all.find("</call>");
    if (end == all.npos) continue;  // It still writes blanks, or digits.
    ++n_whole;
    std::string call;
    for (const char byte : all.substr(6, end - 6)) {
      if (std::string_view(" \n\r\t").find(byte) == std::string_view::npos) call.push_back(byte);
    }
    const bool is_look = call.starts_with(R"({"name":"look","arguments":{)");
    const bool is_count = call.starts_with(R"({"name":"count","arguments":{"n":)");
    EXPECT_TRUE(is_look || is_count) << all;
    EXPECT_TRUE(call.ends_with("}}")) << all;
    EXPECT_TRUE(!is_look || call.find("\"path\":\"") != call.npos) << all;
  }
  EXPECT_GT(n_whole, 0);
}

TEST_F(GrammarDecodeTest, DraftsAndInterruptionsChangeNothing) {
  const auto session = open();
  const std::vector<uint32_t> phrase = tiny.random_tokens(9, random);
  std::vector<uint32_t> prompt;
  for (int i = 0; i < 60; ++i) prompt.push_back(phrase[size_t(i) % phrase.size()]);
  for (const bool required : {true, false}) {
    const auto rules = grammar(required);
    Sequence& plain = create(*session);
    ASSERT_TRUE(plain.set_tokens(prompt).ok());
    const DecodeOutcome whole = plain.decode(request(rules, 60, 150, 0.8f), {}).value();

    std::atomic<uint64_t> stopped_up_to{0};
    std::atomic<uint64_t> running{0};
    std::atomic<bool> over{false};
    std::thread stopper([&] {
      Random delays(fresh_seed());
      while (!over.load()) {
        std::this_thread::sleep_for(std::chrono::microseconds(delays.between(0, 3000)));
        stopped_up_to.store(running.load());
      }
    });
    uint64_t command = 0;
    for (const bool drafts : {false, true}) {
      Sequence& broken = create(*session);
      ASSERT_TRUE(broken.set_tokens(prompt).ok());
      std::vector<DecodeStep> steps;
      while (steps.size() < whole.steps.size()) {
        running.store(++command);
        DecodeRequest asked = request(rules, 60, int(whole.steps.size() - steps.size()), 0.8f);
        asked.drafts = drafts;
        const DecodeOutcome outcome =
            broken.decode(asked, StopFlag(stopped_up_to, command)).value();
        steps.insert(steps.end(), outcome.steps.begin(), outcome.steps.end());
        session->check_integrity();
      }
      EXPECT_EQ(text(steps), text(whole.steps));
      for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i].logprob, whole.steps[i].logprob);
    }
    over.store(true);
    stopper.join();
  }
}

TEST_F(GrammarDecodeTest, TextWithoutCallsIsWhatItWasWithoutGrammar) {
  const auto session = open();
  const std::vector<uint32_t> prompt = tiny.random_tokens(30, random);
  std::vector<std::vector<DecodeStep>> answers;
  for (const bool with : {false, true}) {
    Sequence& sequence = create(*session);
    ASSERT_TRUE(sequence.set_tokens(prompt).ok());
    DecodeRequest asked = request(with ? grammar(false) : nullptr, 30, 60, 0.9f);
    asked.sampling.top_k = 20;
    asked.banned_ids = {256, '<'};
    answers.push_back(sequence.decode(asked, {}).value().steps);
  }
  ASSERT_EQ(answers[0].size(), answers[1].size());
  for (size_t i = 0; i < answers[0].size(); ++i)
    EXPECT_EQ(answers[0][i].token, answers[1][i].token);
}

TEST_F(GrammarDecodeTest, WhatIsThereMustFollowTheGrammarToo) {
  const auto session = open();
  Sequence& sequence = create(*session);
  ASSERT_TRUE(sequence.set_tokens(std::vector<uint32_t>{5, 256, '{', 'x'}).ok());
  EXPECT_EQ(sequence.decode(request(grammar(false), 1, 3, 0), {}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence.decode(request(grammar(false), 5, 3, 0), {}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(sequence.decode(request(grammar(false), 2, 3, 0), {}).ok());
  DecodeRequest forced = request(grammar(false), 2, 1, 0);
  forced.forced = true;
  forced.teacher = {7};
  EXPECT_EQ(sequence.decode(forced, {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nosa::test
