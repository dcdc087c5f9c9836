// Times what a grammar adds to drawing a token: a vocabulary of 151,936 random words, 20 best kept
// as in a chat.
//
//   bench_grammar [n_rounds]
//
// Without a grammar, between calls, in a string of a call, where a key is due, and where one text
// alone may follow. What is compared alternates. Scores are random, so that nearly all of what is
// liked has to be refused where little fits: the worst case. A model likes what fits.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "session/grammar.h"
#include "session/sampler.h"

namespace nosa {
namespace {

constexpr int n_vocab = 151'936;

std::shared_ptr<const Vocabulary> random_words(std::mt19937_64& random) {
  const std::string_view letters = "abcdefghijklmnopqrstuvwxyz {}[]\":,0123456789\n._-";
  std::string bytes;
  std::vector<uint32_t> offsets = {0};
  for (int id = 0; id < n_vocab; ++id) {
    if (id < 256) {
      bytes.push_back(char(id));
    } else {
      for (uint64_t n = 1 + random() % 9; n > 0; --n)
        bytes.push_back(letters[random() % letters.size()]);
    }
    offsets.push_back(uint32_t(bytes.size()));
  }
  return std::make_shared<const Vocabulary>(
      Vocabulary::create(std::move(bytes), std::move(offsets)).value());
}

CallRules rules() {
  CallRules rules;
  rules.open = "<tool_call>";
  rules.close = "</tool_call>";
  rules.values = {
      {ValueRule::Object{{{"path", 1, true}, {"limit", 2, false}, {"exact", 3, false}}}},
      {ValueRule::String{}},
      {ValueRule::Number{true}},
      {ValueRule::Text{{"true", "false"}}}};
  rules.calls = {{"{\"name\": \"read_file\", \"arguments\": ", 0, "}"}};
  return rules;
}

int run(int n_rounds) {
  std::mt19937_64 random(7);
  const auto grammar =
      std::make_shared<const Grammar>(Grammar::create(rules(), random_words(random)).value());
  std::vector<float> logits(n_vocab);
  std::normal_distribution<float> normal(0, 3);
  for (float& logit : logits) logit = normal(random);

  const std::string begun = "<tool_call>{\"name\": \"read_file\", \"arguments\": ";
  struct Place {
    const char* name;
    std::string text;
    std::vector<double> micros;
  };
  std::vector<Place> places = {{"no grammar", "", {}},
                               {"between calls", "words", {}},
                               {"in a string", begun + "{\"path\": \"src", {}},
                               {"where a key is due", begun + "{", {}},
                               {"in a fixed text", "<tool_call>{\"na", {}}};
  Sampler sampler;
  SamplingOptions options;
  options.temperature = 0.7f;
  options.top_k = 20;
  options.top_p = 0.8f;
  for (int round = 0; round < n_rounds; ++round) {
    for (Place& place : places) {
      GrammarState state(grammar);
      for (const char byte : place.text) CHECK(state.take(uint8_t(byte)));
      sampler.set_logits(logits);
      const auto begin = std::chrono::steady_clock::now();
      const uint32_t id =
          sampler.draw(options, {}, {}, uint64_t(round), place.text.empty() ? nullptr : &state);
      if (!place.text.empty()) CHECK(state.take(id));
      const std::chrono::duration<double, std::micro> spent =
          std::chrono::steady_clock::now() - begin;
      place.micros.push_back(spent.count());
    }
  }
  for (Place& place : places) {
    std::ranges::sort(place.micros);
    std::printf("%-20s %8.0f us a token (median of %d)\n", place.name,
                place.micros[place.micros.size() / 2], n_rounds);
  }
  return 0;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) {
  return nosa::run(argc > 1 ? std::max(1, std::atoi(argv[1])) : 200);
}
