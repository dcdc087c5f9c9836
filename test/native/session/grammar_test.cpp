#include "session/grammar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "session/sampler.h"
#include "support/random.h"

namespace nosa::test {
namespace {

/// Byte tokens 0 to 255 and longer ones behind them; the last one is a control token.
std::shared_ptr<const Vocabulary> vocabulary_of(const std::vector<std::string>& longer,
                                                const std::set<int>& without = {}) {
  std::string bytes;
  std::vector<uint32_t> offsets = {0};
  for (int byte = 0; byte < 256; ++byte) {
    if (!without.contains(byte)) bytes.push_back(char(byte));
    offsets.push_back(uint32_t(bytes.size()));
  }
  for (const std::string& token : longer) {
    bytes += token;
    offsets.push_back(uint32_t(bytes.size()));
  }
  offsets.push_back(uint32_t(bytes.size()));
  return std::make_shared<const Vocabulary>(Vocabulary::create(bytes, offsets).value());
}

/// Pieces of what calls are made of, and of what they are not.
std::vector<std::string> pieces(Random& random) {
  std::vector<std::string> all = {"<tool_call>",
                                  "</tool_call>",
                                  "{\"",
                                  "\": \"",
                                  "\", \"",
                                  "\"}",
                                  "}}",
                                  "[]",
                                  "{}",
                                  "true",
                                  "false",
                                  "null",
                                  "12",
                                  "-1",
                                  "0.5",
                                  "e5",
                                  "name",
                                  "arguments",
                                  "\": ",
                                  ">\n{\"",
                                  "}\n</tool",
                                  "\xC3\xA9",
                                  "\xF0\x9F\x98",
                                  "\xE2\x82",
                                  "\\u00",
                                  "\\\\",
                                  "  ",
                                  "\n\n",
                                  "\t",
                                  "a",
                                  "ab",
                                  "abc",
                                  "key",
                                  "],[",
                                  "<tool_call>{\"name\"",
                                  "oops<tool_call>\n"};
  for (int i = 0; i < 150; ++i) {
    std::string piece;
    const std::string_view alphabet = "abk{}[]\",:0123 \n\\<>/truefalsnE.-\xC3\xA9\xE2\x82\xAC";
    for (int64_t n = random.between(1, 6); n > 0; --n) {
      piece.push_back(alphabet[size_t(random.between(0, int64_t(alphabet.size()) - 1))]);
    }
    all.push_back(piece);
  }
  return all;
}

/// Rules at random, of which every value has an end.
class RandomRules {
 public:
  explicit RandomRules(Random& random) : random_(random) {}

  CallRules make() {
    rules_ = {};
    rules_.open = "<tool_call>";
    rules_.close = "</tool_call>";
    const int64_t n = random_.between(1, 4);
    for (int64_t i = 0; i < n; ++i) {
      const int arguments = object(int(random_.between(0, 4)));
      rules_.calls.push_back(
          {"{\"name\": \"f" + std::to_string(i * 11) + "\", \"arguments\": ", arguments, "}"});
    }
    rules_.required = random_.between(0, 1) == 1;
    return rules_;
  }

 private:
  int add(ValueRule rule) {
    rules_.values.push_back(std::move(rule));
    return int(rules_.values.size()) - 1;
  }

  int value(int levels, bool alternatives = true) {
    switch (random_.between(0, levels > 0 ? 8 : 3)) {
      case 0:
        return add({ValueRule::String{}});
      case 1:
        return add({ValueRule::Number{random_.between(0, 1) == 1}});
      case 2:
        return add({ValueRule::Text{{"true", "false"}}});
      case 3:
        return add({ValueRule::Text{texts()}});
      case 4:
        return alternatives ? any_of(levels) : object(levels - 1);
      case 5:
      case 6:
        return array(levels - 1);
      default:
        return object(levels - 1);
    }
  }

  std::vector<std::string> texts() {
    std::vector<std::string> all = {"1",     "10",          "-3.5",       "null",
                                    "\"a\"", "\"ab\"",      "\"a b\\n\"", "\"\xC3\xA9\"",
                                    "[1,2]", "{\"a\":null}"};
    for (size_t i = all.size() - 1; i > 0; --i)
      std::swap(all[i], all[size_t(random_.between(0, int64_t(i)))]);
    all.resize(size_t(random_.between(1, 5)));
    return all;
  }

  int any_of(int levels) {
    ValueRule::AnyOf any;
    for (int64_t n = random_.between(1, 4); n > 0; --n)
      any.values.push_back(value(levels - 1, false));
    return add({std::move(any)});
  }

  int array(int levels) {
    const int items = value(levels);
    const int n_min = int(random_.between(0, 2));
    return add({ValueRule::Array{items, n_min, n_min + int(random_.between(0, 3))}});
  }

  int object(int levels) {
    std::vector<std::string> keys = {"a",        "ab",   "abc", "b",   "k\\\"q",
                                     "\xC3\xA9", "path", "",    "a b", "\\u0007"};
    ValueRule::Object object;
    for (const std::string& key : keys) {
      if (random_.between(0, 2) == 0)
        object.properties.push_back({key, value(levels), random_.between(0, 1) == 1});
    }
    if (random_.between(0, 2) == 0) object.rest = value(levels);
    return add({std::move(object)});
  }

  Random& random_;
  CallRules rules_;
};

/// An independent look at a finished call: recursive descent over the text, trying every
/// alternative.
class Checker {
 public:
  Checker(const CallRules& rules, std::string_view text) : rules_(rules), text_(text) {}

  /// Where the call that begins at `at` (behind its opening mark) ends, or npos.
  size_t call(size_t at) const {
    for (const CallRules::Call& call : rules_.calls) {
      const size_t from = blanks(at);
      if (text_.substr(from, call.begin.size()) != call.begin) continue;
      for (size_t end : value(call.arguments, blanks(from + call.begin.size()))) {
        end = blanks(end);
        if (text_.substr(end, call.end.size()) != call.end) continue;
        end = blanks(end + call.end.size());
        if (text_.substr(end, rules_.close.size()) == rules_.close)
          return end + rules_.close.size();
      }
    }
    return text_.npos;
  }

 private:
  using Ends = std::set<size_t>;

  size_t blanks(size_t at) const {
    while (at < text_.size() && std::strchr(" \n\r\t", text_[at]) != nullptr && text_[at] != 0)
      ++at;
    return at;
  }

  Ends value(int index, size_t at) const {
    const ValueRule& rule = rules_.values[size_t(index)];
    Ends ends;
    if (const auto* text = std::get_if<ValueRule::Text>(&rule.is)) {
      for (const std::string& each : text->texts) {
        if (text_.substr(at, each.size()) == each) ends.insert(at + each.size());
      }
    } else if (std::holds_alternative<ValueRule::String>(rule.is)) {
      if (const size_t end = string_end(at); end != text_.npos) ends.insert(end);
    } else if (const auto* number = std::get_if<ValueRule::Number>(&rule.is)) {
      if (const size_t end = number_end(at, number->whole); end != text_.npos) ends.insert(end);
    } else if (const auto* any = std::get_if<ValueRule::AnyOf>(&rule.is)) {
      for (const int each : any->values) ends.merge(value(each, at));
    } else if (const auto* array = std::get_if<ValueRule::Array>(&rule.is)) {
      if (at < text_.size() && text_[at] == '[') items(*array, blanks(at + 1), 0, ends);
    } else if (const auto* object = std::get_if<ValueRule::Object>(&rule.is)) {
      if (at < text_.size() && text_[at] == '{') members(*object, blanks(at + 1), {}, ends);
    }
    return ends;
  }

  // `at`: where an item, or the closing bracket, is due.
  void items(const ValueRule::Array& array, size_t at, int count, Ends& ends) const {
    if (count == 0 && array.n_min == 0 && at < text_.size() && text_[at] == ']')
      ends.insert(at + 1);
    if (count >= array.n_max) return;
    for (size_t end : value(array.items, at)) {
      end = blanks(end);
      if (end >= text_.size()) continue;
      if (text_[end] == ']' && count + 1 >= array.n_min) ends.insert(end + 1);
      if (text_[end] == ',') items(array, blanks(end + 1), count + 1, ends);
    }
  }

  void members(const ValueRule::Object& object, size_t at, const std::set<std::string>& seen,
               Ends& ends) const {
    const auto is_whole = [&](const std::set<std::string>& keys) {
      return std::ranges::all_of(object.properties, [&](const ValueRule::Property& property) {
        return !property.required || keys.contains(property.key);
      });
    };
    if (seen.empty() && is_whole(seen) && at < text_.size() && text_[at] == '}')
      ends.insert(at + 1);
    const size_t key_end = string_end(at);
    if (key_end == text_.npos) return;
    const std::string key(text_.substr(at + 1, key_end - at - 2));
    const auto known = std::ranges::find(object.properties, key, &ValueRule::Property::key);
    if (known != object.properties.end() && seen.contains(key)) return;
    const int inner = known != object.properties.end() ? known->value : object.rest;
    const size_t colon = blanks(key_end);
    if (inner < 0 || colon >= text_.size() || text_[colon] != ':') return;
    std::set<std::string> now = seen;
    now.insert(key);
    for (size_t end : value(inner, blanks(colon + 1))) {
      end = blanks(end);
      if (end >= text_.size()) continue;
      if (text_[end] == '}' && is_whole(now)) ends.insert(end + 1);
      if (text_[end] == ',') members(object, blanks(end + 1), now, ends);
    }
  }

  size_t string_end(size_t at) const {
    if (at >= text_.size() || text_[at] != '"') return text_.npos;
    for (++at; at < text_.size(); ++at) {
      const auto byte = uint8_t(text_[at]);
      if (byte == '"') return at + 1;
      if (byte < 0x20) return text_.npos;
      if (byte == '\\') {
        ++at;
        if (at >= text_.size()) return text_.npos;
        if (text_[at] == 'u') {
          if (text_.size() < at + 5 || !std::ranges::all_of(text_.substr(at + 1, 4), [](char c) {
                return std::isxdigit(uint8_t(c)) != 0;
              }))
            return text_.npos;
          at += 4;
        } else if (std::string_view("\"\\/bfnrt").find(text_[at]) == std::string_view::npos) {
          return text_.npos;
        }
      } else if (byte >= 0x80) {
        const size_t more = character_length(at) - 1;
        if (more > 3) return text_.npos;
        at += more;
      }
    }
    return text_.npos;
  }

  /// Bytes of a valid character of several, or 9.
  size_t character_length(size_t at) const {
    const auto byte = uint8_t(text_[at]);
    const size_t n = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    if (byte < 0xC0 || at + n > text_.size()) return 9;
    uint32_t point = byte & (0x7F >> n);
    for (size_t i = 1; i < n; ++i) {
      if ((uint8_t(text_[at + i]) & 0xC0) != 0x80) return 9;
      point = point << 6 | (uint8_t(text_[at + i]) & 0x3F);
    }
    const uint32_t least = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
    const bool is_surrogate = point >= 0xD800 && point <= 0xDFFF;
    return point < least || point > 0x10FFFF || is_surrogate ? 9 : n;
  }

  size_t number_end(size_t at, bool whole) const {
    const size_t begin = at;
    const auto digits = [&] {
      const size_t first = at;
      while (at < text_.size() && std::isdigit(uint8_t(text_[at])) != 0) ++at;
      return at - first;
    };
    if (at < text_.size() && text_[at] == '-') ++at;
    const size_t first = at;
    const size_t n = digits();
    if (n == 0 || (n > 1 && text_[first] == '0')) return text_.npos;
    if (!whole && at < text_.size() && text_[at] == '.') {
      ++at;
      if (digits() == 0) return text_.npos;
    }
    if (!whole && at < text_.size() && (text_[at] == 'e' || text_[at] == 'E')) {
      ++at;
      if (at < text_.size() && (text_[at] == '+' || text_[at] == '-')) ++at;
      if (digits() == 0) return text_.npos;
    }
    return std::isfinite(std::strtod(std::string(text_.substr(begin, at - begin)).c_str(), nullptr))
               ? at
               : text_.npos;
  }

  const CallRules& rules_;
  std::string_view text_;
};

/// Ends what was begun: closes what can be closed, else writes one of the keys that are required
/// somewhere, else the first byte that fits.
std::string ending(GrammarState& state, const CallRules& rules, const Vocabulary& vocabulary,
                   Random& random) {
  std::vector<std::string> keys;
  for (const ValueRule& rule : rules.values) {
    const auto* object = std::get_if<ValueRule::Object>(&rule.is);
    if (object == nullptr) continue;
    for (const ValueRule::Property& property : object->properties) {
      if (property.required)
        keys.insert(keys.end(), {",\"" + property.key + "\":", "\"" + property.key + "\":"});
    }
  }
  std::vector<std::string> bytes;
  for (const char byte : std::string_view("\":,<n0123456789-aetfru/_clo{[>"))
    bytes.emplace_back(1, byte);
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, char(byte));
  const std::vector<std::string> quote = {"\""};
  const std::vector<std::string> brackets = {"}", "]"};

  std::string written;
  const auto takes_one = [&](const std::vector<std::string>& moves) {
    return std::ranges::any_of(moves, [&](const std::string& move) {
      GrammarState after = state;
      const auto take = [&](char byte) {
        const std::optional<uint32_t> id = vocabulary.byte_token(uint8_t(byte));
        return id && after.take(*id);
      };
      if (!std::ranges::all_of(move, take)) return false;
      state = after;
      written += move;
      return true;
    });
  };
  while (state.in_call()) {
    for (size_t i = keys.size(); i > 1; --i)
      std::swap(keys[i - 1], keys[size_t(random.between(0, int64_t(i) - 1))]);
    const bool in_string = state.accepts('~');
    const bool taken = (in_string && takes_one(quote)) || takes_one(brackets) || takes_one(keys) ||
                       takes_one(bytes);
    if (!taken) return written + " and nothing fits";
    if (written.size() > 200'000) return written.substr(0, 200) + " and no end";
  }
  return written;
}

TEST(Grammar, EveryCallThatIsDrawnIsOneOfTheRules) {
  Random random;
  RandomRules made(random);
  int n_calls = 0;
  for (int round = 0; round < 150; ++round) {
    const auto vocabulary = vocabulary_of(pieces(random));
    const CallRules rules = made.make();
    Result<Grammar> grammar = Grammar::create(rules, vocabulary);
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    GrammarState state(std::make_shared<const Grammar>(*std::move(grammar)));
    EXPECT_EQ(state.in_call(), rules.required);
    std::string text;
    const uint32_t control = uint32_t(vocabulary->size()) - 1;
    for (int step = 0; step < 120; ++step) {
      // Mostly longer tokens, and now and then the tag.
      const int64_t choice = random.between(0, 9);
      uint32_t id = uint32_t(random.between(choice < 6 ? 256 : 0, int64_t(control)));
      if (!state.in_call() && choice == 7) id = 256;
      if (id == control) {
        EXPECT_EQ(state.accepts(id), !state.in_call());
        continue;
      }
      const bool accepted = state.accepts(id);
      ASSERT_EQ(state.take(id), accepted);
      if (!accepted) {
        id = state.some();
        if (choice != 3) continue;
        ASSERT_TRUE(state.accepts(id));
        ASSERT_TRUE(state.take(id));
      }
      text += vocabulary->bytes(id);
    }
    text += ending(state, rules, *vocabulary, random);
    ASSERT_FALSE(state.in_call()) << text;

    // Every opening mark outside of a call begins one that the checker finds valid, to its end.
    size_t at = 0;
    ASSERT_TRUE(!rules.required || text.starts_with(rules.open)) << text;
    while ((at = text.find(rules.open, at)) != text.npos) {
      const size_t end = Checker(rules, text).call(at + rules.open.size());
      ASSERT_NE(end, text.npos) << text.substr(at);
      at = end;
      ++n_calls;
    }
  }
  EXPECT_GT(n_calls, 100);
}

TEST(Grammar, WhateverTheRulesAllowIsTaken) {
  // The other way round: valid values in forms of the test's own, with blanks where JSON has them.
  CallRules rules;
  rules.open = "<c>";
  rules.close = "</c>";
  rules.values = {{ValueRule::Object{
                      {{"path", 1, true}, {"n", 2, false}, {"list", 3, false}, {"any", 5, false}}}},
                  {ValueRule::String{}},
                  {ValueRule::Number{true}},
                  {ValueRule::Array{4, 1, 3}},
                  {ValueRule::Text{{"1", "10", "\"x\""}}},
                  {ValueRule::AnyOf{{6, 7, 1, 8, 9}}},
                  {ValueRule::Object{{}, 5}},
                  {ValueRule::Array{5, 0, 1 << 20}},
                  {ValueRule::Number{}},
                  {ValueRule::Text{{"true", "false", "null"}}}};
  rules.calls = {{"{\"name\": \"f\", \"arguments\": ", 0, "}"}};
  const auto vocabulary = vocabulary_of({});
  const auto grammar = std::make_shared<const Grammar>(Grammar::create(rules, vocabulary).value());
  const auto fits = [&](const std::string& arguments) {
    GrammarState state(grammar);
    const std::string text =
        "So: <<c>\n{\"name\": \"f\", \"arguments\": " + arguments + "}\n</c> done";
    return std::ranges::all_of(text, [&](char byte) { return state.take(uint8_t(byte)); }) &&
           !state.in_call();
  };
  for (const char* good : {R"({"path": "a"})", R"({ "n" : -0 , "path":"\u00e9\"\\" })",
                           R"({"list":["x",10, 1],"path":""})",
                           R"({"any":{"a":[{},[],[[1.5e-7]],null],"":true},"path":"é😀"})",
                           "{\n    \"path\": \"a\"\n}"}) {
    EXPECT_TRUE(fits(good)) << good;
  }
  for (const char* bad : {R"({})",
                          R"({"path": 1})",
                          R"({"path": "a", "path": "b"})",
                          R"({"path": "a", "other": 1})",
                          R"({"path": "a",})",
                          R"({"path": "a", "n": 01})",
                          R"({"path": "a", "n": 1.5})",
                          R"({"path": "a", "list": []})",
                          "[]",
                          R"({"path": "a", "list": [1,1,1,1]})",
                          R"({"path": "a", "list": [100]})",
                          R"({"path": "\x"})",
                          R"({"path": "\ud800"})",
                          "{\"path\": \"\xC3\"}",
                          "{\"path\": \"\xED\xA0\x80\"}",
                          "{\"path\": \"\n\"}",
                          R"({"path": "a", "n": 1234567890123456})",
                          R"({"path": "a", "any": 1e999})",
                          R"({"\u0070ath": "a"})",
                          "{                                        \"path\": \"a\"}"}) {
    EXPECT_FALSE(fits(bad)) << bad;
  }
}

TEST(Grammar, TokensMayStraddleTheMarks) {
  CallRules rules;
  rules.open = "<c>";
  rules.close = "</c>";
  rules.values = {{ValueRule::Object{}}};
  rules.calls = {{"{\"f\":", 0, "}"}, {"{\"g\":", 0, "}"}};
  const auto vocabulary = vocabulary_of(
      {"ab<", "c>{\"", "c> x", "g\":{", "}}</", "c>, and <c", ">{\"f\":{}}</c><c>{\"h"});
  const auto grammar = std::make_shared<const Grammar>(Grammar::create(rules, vocabulary).value());
  GrammarState state(grammar);
  EXPECT_TRUE(state.take(256));
  EXPECT_FALSE(state.accepts(258));  // Ends the mark, and what follows is no call.
  EXPECT_FALSE(state.take(258));
  EXPECT_TRUE(state.take(257));
  EXPECT_TRUE(state.in_call());
  EXPECT_TRUE(state.take(259));
  EXPECT_TRUE(state.take(260));
  EXPECT_TRUE(state.take(261));
  EXPECT_FALSE(state.in_call());
  EXPECT_FALSE(state.accepts(262));  // A second call within the token, that is none of ours.
  EXPECT_TRUE(state.take('>'));
  EXPECT_TRUE(state.in_call());
}

TEST(Grammar, CharactersAreNotLeftHalfWrittenWhereNoTokenCouldEndThem) {
  CallRules rules;
  rules.open = "<c>";
  rules.close = "</c>";
  rules.required = true;
  rules.values = {{ValueRule::Object{{{"s", 1, true}}}}, {ValueRule::String{}}};
  rules.calls = {{"{", 0, "}"}};
  const std::vector<std::string> longer = {"<c>{{\"s\":\"", "\xC3\xA9", "\xE2\x82", "\xAC"};
  for (const bool whole : {true, false}) {
    const auto vocabulary = whole ? vocabulary_of(longer) : vocabulary_of(longer, {0x82});
    GrammarState state(std::make_shared<const Grammar>(Grammar::create(rules, vocabulary).value()));
    ASSERT_TRUE(state.take(256));
    EXPECT_EQ(state.accepts(0xE2), whole);
    EXPECT_EQ(state.accepts(258), whole);
    ASSERT_TRUE(state.take(257));
    EXPECT_TRUE(state.accepts('"'));
  }
  EXPECT_EQ(Grammar::create(rules, vocabulary_of({}, {'}'})).status().code(),
            StatusCode::kUnsupported);
}

TEST(Grammar, DepthIsBoundedAndEveryValueCanStillEnd) {
  Random random;
  // Lists within lists for ever: the deepest that may be opened is the one that can be closed.
  CallRules rules;
  rules.open = "<c>";
  rules.close = "</c>";
  rules.required = true;
  rules.values = {{ValueRule::Object{{{"a", 1, true}, {"b", 0, false}}}},
                  {ValueRule::Array{1, 0, 9}}};
  rules.calls = {{"{", 0, "}"}};
  const auto vocabulary = vocabulary_of({});
  for (const std::string deeper : {"[", "{\"b\":"}) {
    GrammarState state(std::make_shared<const Grammar>(Grammar::create(rules, vocabulary).value()));
    for (const char byte : std::string(deeper == "[" ? "<c>{{\"a\":" : "<c>{"))
      ASSERT_TRUE(state.take(uint8_t(byte)));
    int n_taken = 0;
    while (n_taken < 1000 && state.take(uint8_t(deeper[size_t(n_taken) % deeper.size()])))
      ++n_taken;
    EXPECT_LT(n_taken, 400);
    EXPECT_GT(n_taken, 40);
    EXPECT_TRUE(ending(state, rules, *vocabulary, random).ends_with("</c>"));
  }
  rules.values[0] = {ValueRule::Object{{{"a", 0, true}}}};
  EXPECT_EQ(Grammar::create(rules, vocabulary).status().code(), StatusCode::kInvalidArgument);
}

TEST(Grammar, RulesThatMakeNoSenseAreRefused) {
  const auto vocabulary = vocabulary_of({});
  CallRules sound;
  sound.open = "<c>";
  sound.close = "</c>";
  sound.values = {{ValueRule::Object{}}};
  sound.calls = {{"{", 0, "}"}};
  ASSERT_TRUE(Grammar::create(sound, vocabulary).ok());
  const std::vector<std::function<void(CallRules&)>> mistakes = {
      [](CallRules& rules) { rules.open = ""; },
      [](CallRules& rules) { rules.close = ""; },
      [](CallRules& rules) { rules.calls.clear(); },
      [](CallRules& rules) { rules.calls[0].arguments = 1; },
      [](CallRules& rules) { rules.calls[0].begin = ""; },
      [](CallRules& rules) {
        rules.calls.push_back({"{\"", 0, "}"});
      },
      [](CallRules& rules) { rules.values[0] = {ValueRule::Text{}}; },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Text{{"a", ""}}};
      },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Text{{"a", "a"}}};
      },
      [](CallRules& rules) { rules.values[0] = {ValueRule::AnyOf{}}; },
      [](CallRules& rules) { rules.values[0] = {ValueRule::AnyOf{{0}}}; },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Array{7, 0, 1}};
      },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Array{0, 2, 1}};
      },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Object{{{"a", 0, false}, {"a", 0, false}}}};
      },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Object{{{"a", 4, false}}}};
      },
      [](CallRules& rules) {
        rules.values[0] = {ValueRule::Object{{}, 4}};
      },
  };
  for (size_t i = 0; i < mistakes.size(); ++i) {
    CallRules rules = sound;
    mistakes[i](rules);
    EXPECT_EQ(Grammar::create(rules, vocabulary).status().code(), StatusCode::kInvalidArgument)
        << i;
  }
  EXPECT_FALSE(Vocabulary::create("ab", {0, 1}).ok());
  EXPECT_FALSE(Vocabulary::create("ab", {0, 2, 1, 2}).ok());
  EXPECT_FALSE(Vocabulary::create("", {}).ok());
}

/// Accepts what it was told.
class Allowed final : public TokenFilter {
 public:
  explicit Allowed(std::vector<bool> allowed) : allowed_(std::move(allowed)) {}
  bool accepts(uint32_t id) override { return allowed_[id]; }
  uint32_t some() override {
    return uint32_t(std::ranges::find(allowed_, true) - allowed_.begin());
  }

 private:
  std::vector<bool> allowed_;
};

TEST(FilteredSampler, DrawsAsIfAllOthersWereBanned) {
  Random random;
  const int n = 600;
  for (int round = 0; round < 60; ++round) {
    const std::vector<float> logits = random.normals(n, 3.0f);
    const int64_t share = random.between(0, 2);  // Few, half or most are allowed.
    std::vector<bool> allowed(n);
    std::vector<uint32_t> others = {};
    for (int id = 0; id < n; ++id) {
      allowed[size_t(id)] = share == 0   ? random.between(0, 99) == 0
                            : share == 1 ? random.between(0, 1) == 0
                                         : random.between(0, 30) != 0;
    }
    allowed[size_t(random.between(0, n - 1))] = true;
    for (int id = 0; id < n; ++id) {
      if (!allowed[size_t(id)]) others.push_back(uint32_t(id));
    }
    Allowed filter(allowed);
    Sampler sampler;
    sampler.set_logits(logits);
    SamplingOptions options;
    options.temperature = random.between(0, 2) == 0 ? 0.0f : 0.8f;
    options.top_k = random.between(0, 1) == 0 ? 0 : int(random.between(1, 90));
    options.top_p = random.between(0, 1) == 0 ? 1.0f : 0.7f;
    options.min_p = random.between(0, 1) == 0 ? 0.0f : 0.05f;
    options.repetition_penalty = 1.1f;
    options.seed = random.bits();
    for (uint64_t position = 0; position < 40; ++position) {
      const uint32_t drawn = sampler.draw(options, {}, {}, position, &filter);
      ASSERT_TRUE(allowed[drawn]);
      ASSERT_EQ(drawn, sampler.draw(options, {}, others, position));
    }
  }
}

TEST(FilteredSampler, TheSharesAreThoseOfTheAllowedAlone) {
  Random random;
  const int n = 12;
  const std::vector<float> logits = random.normals(n, 1.5f);
  std::vector<bool> allowed(n);
  for (int id = 0; id < n; ++id) allowed[size_t(id)] = id % 3 != 0;
  std::vector<double> expected(n);
  for (int id = 0; id < n; ++id)
    expected[size_t(id)] = allowed[size_t(id)] ? std::exp(double(logits[size_t(id)])) : 0;
  const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
  Allowed filter(allowed);
  Sampler sampler;
  sampler.set_logits(logits);
  SamplingOptions options;
  options.temperature = 1;
  options.seed = random.bits();
  const int n_draws = 40'000;
  std::vector<int> counts(n);
  for (int i = 0; i < n_draws; ++i) ++counts[sampler.draw(options, {}, {}, uint64_t(i), &filter)];
  for (int id = 0; id < n; ++id) {
    const double share = expected[size_t(id)] / total;
    const double deviation = std::sqrt(share * (1 - share) / n_draws);
    EXPECT_NEAR(double(counts[size_t(id)]) / n_draws, share, 6 * deviation + 1e-9) << id;
  }
}

TEST(FilteredSampler, WhereNothingAllowedHasAChanceTheFilterNamesOne) {
  const std::vector<float> logits = {1, -std::numeric_limits<float>::infinity(), 2};
  Allowed filter({false, true, false});
  Sampler sampler;
  sampler.set_logits(logits);
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingOptions options;
    options.temperature = temperature;
    EXPECT_EQ(sampler.draw(options, {}, {}, 0, &filter), 1u);
    const std::vector<uint32_t> banned = {1};
    EXPECT_EQ(sampler.draw(options, {}, banned, 0, &filter), 1u);
  }
}

}  // namespace
}  // namespace nosa::test
