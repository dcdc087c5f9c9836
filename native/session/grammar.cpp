#include "session/grammar.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "core/check.h"

namespace nosa {
namespace {

constexpr int endless = 1 << 20;  // Levels of a value that has no end.

bool is_blank(uint8_t byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

template <typename Rule>
const Rule* rule_as(const ValueRule& rule) {
  return std::get_if<Rule>(&rule.is);
}

/// Which of the sorted `texts` in [low, high), alike in their first `at` bytes, go on with `byte`.
template <typename Texts, typename Projection>
std::pair<uint32_t, uint32_t> narrowed(const Texts& texts, Projection text, uint32_t low,
                                       uint32_t high, uint32_t at, uint8_t byte) {
  const auto next = [&](const auto& item) {
    const std::string& bytes = std::invoke(text, item);
    return at < bytes.size() ? int(uint8_t(bytes[at])) : -1;
  };
  const auto begin = texts.begin() + low;
  const auto end = texts.begin() + high;
  const auto first =
      std::partition_point(begin, end, [&](const auto& item) { return next(item) < byte; });
  const auto last =
      std::partition_point(first, end, [&](const auto& item) { return next(item) == byte; });
  return {uint32_t(first - texts.begin()), uint32_t(last - texts.begin())};
}

uint64_t bits(size_t low, size_t high) {
  const auto below = [](size_t n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; };
  return below(high) & ~below(low);
}

/// Sorts by text; false when one is there twice.
template <typename Items, typename Projection>
bool sort_distinct(Items& items, Projection text) {
  std::ranges::sort(items, {}, text);
  return std::ranges::adjacent_find(items, {}, text) == items.end();
}

}  // namespace

Result<Grammar> Grammar::create(CallRules rules, std::shared_ptr<const Vocabulary> vocabulary) {
  Grammar grammar(std::move(rules), std::move(vocabulary));
  if (Status status = grammar.sort_and_check(); !status.ok()) return status;
  grammar.measure();
  for (const CallRules::Call& call : grammar.rules_.calls) {
    if (1 + grammar.depth(call.arguments) > depth_max) {
      return Status::invalid_argument("The arguments of a call have no end within " +
                                      std::to_string(depth_max) + " levels.");
    }
  }
  if (Status status = grammar.check_bytes(); !status.ok()) return status;
  return grammar;
}

Grammar::Grammar(CallRules rules, std::shared_ptr<const Vocabulary> vocabulary)
    : rules_(std::move(rules)), vocabulary_(std::move(vocabulary)), open_borders_{0, 0} {
  int border = 0;
  for (size_t n = 1; n < rules_.open.size(); ++n) {
    while (border > 0 && rules_.open[size_t(border)] != rules_.open[n])
      border = open_borders_[size_t(border)];
    if (rules_.open[size_t(border)] == rules_.open[n]) ++border;
    open_borders_.push_back(border);
  }
}

int Grammar::open_match(int matched, uint8_t byte) const {
  while (matched > 0 && uint8_t(rules_.open[size_t(matched)]) != byte)
    matched = open_borders_[size_t(matched)];
  return uint8_t(rules_.open[size_t(matched)]) == byte ? matched + 1 : 0;
}

Status Grammar::sort_and_check() {
  const auto wrong = [](const char* what) {
    return Status::invalid_argument(std::string("A grammar ") + what);
  };
  const auto outside = [&](int value) {
    return value < 0 || size_t(value) >= rules_.values.size();
  };
  for (ValueRule& rule : rules_.values) {
    if (auto* text = std::get_if<ValueRule::Text>(&rule.is)) {
      if (text->texts.empty() || !sort_distinct(text->texts, std::identity()) ||
          text->texts[0].empty()) {
        return wrong("needs texts that are not empty and not there twice.");
      }
    } else if (auto* object = std::get_if<ValueRule::Object>(&rule.is)) {
      if (object->properties.size() > properties_max)
        return wrong("has an object of too many properties.");
      if (!sort_distinct(object->properties, &ValueRule::Property::key))
        return wrong("has a key twice.");
      if (object->rest != -1 && outside(object->rest))
        return wrong("names a value that is not there.");
      for (const ValueRule::Property& property : object->properties) {
        if (outside(property.value)) return wrong("names a value that is not there.");
      }
    } else if (const auto* array = rule_as<ValueRule::Array>(rule)) {
      if (outside(array->items)) return wrong("names a value that is not there.");
      if (array->n_min < 0 || array->n_max < array->n_min)
        return wrong("has an array of no possible length.");
    } else if (const auto* any = rule_as<ValueRule::AnyOf>(rule)) {
      for (const int value : any->values) {
        if (outside(value)) return wrong("names a value that is not there.");
        if (rule_as<ValueRule::AnyOf>(rules_.values[size_t(value)]) != nullptr) {
          return wrong("has alternatives within alternatives.");
        }
      }
    }
  }
  if (rules_.open.empty() || rules_.close.empty()) return wrong("needs marks around a call.");
  if (rules_.calls.empty()) return wrong("needs a call.");
  std::ranges::sort(rules_.calls, {}, &CallRules::Call::begin);
  for (size_t i = 0; i < rules_.calls.size(); ++i) {
    const CallRules::Call& call = rules_.calls[i];
    if (outside(call.arguments)) return wrong("names a value that is not there.");
    if (call.begin.empty()) return wrong("has a call without a beginning.");
    // What begins alike is sorted behind it.
    if (i > 0 && call.begin.starts_with(rules_.calls[i - 1].begin)) {
      return wrong("has a call whose beginning another begins with.");
    }
  }
  return {};
}

// Each round finds the values of one more level.
void Grammar::measure() {
  depths_.assign(rules_.values.size(), endless);
  bool changed = true;
  for (int round = 0; changed && round <= depth_max; ++round) {
    changed = false;
    for (size_t i = 0; i < depths_.size(); ++i) {
      const ValueRule& rule = rules_.values[i];
      int found = 1;
      if (const auto* object = rule_as<ValueRule::Object>(rule)) {
        for (const ValueRule::Property& property : object->properties) {
          if (property.required) found = std::max(found, 1 + depth(property.value));
        }
      } else if (const auto* array = rule_as<ValueRule::Array>(rule)) {
        if (array->n_min > 0) found += depth(array->items);
      } else if (const auto* any = rule_as<ValueRule::AnyOf>(rule)) {
        found = endless;
        for (const int value : any->values) found = std::min(found, depth(value));
      }
      found = std::min(found, endless);
      changed = changed || found != depths_[i];
      depths_[i] = found;
    }
  }
}

// Free text within values can be had of ASCII alone; what a text says byte for byte must be there.
Status Grammar::check_bytes() {
  std::bitset<256> needed;
  const auto need = [&](std::string_view text) {
    for (const char byte : text) needed.set(uint8_t(byte));
  };
  for (int byte = 0x20; byte < 0x7F; ++byte) needed.set(size_t(byte));
  for (const ValueRule& rule : rules_.values) {
    if (const auto* text = rule_as<ValueRule::Text>(rule)) std::ranges::for_each(text->texts, need);
    if (const auto* object = rule_as<ValueRule::Object>(rule)) {
      std::ranges::for_each(object->properties, need, &ValueRule::Property::key);
    }
  }
  for (const CallRules::Call& call : rules_.calls) {
    need(call.begin);
    need(call.end);
  }
  need(rules_.close);
  if (rules_.required) need(rules_.open);
  const auto is_there = [&](int byte) {
    return vocabulary_->byte_token(uint8_t(byte)).has_value();
  };
  for (int byte = 0; byte < 256; ++byte) {
    if (needed[size_t(byte)] && !is_there(byte)) {
      return Status::unsupported("The model's vocabulary has no token for byte " +
                                 std::to_string(byte) + " alone, which calls need.");
    }
  }
  has_continuations_ = true;
  for (int byte = 0x80; byte < 0xC0; ++byte)
    has_continuations_ = has_continuations_ && is_there(byte);
  return {};
}

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  if (grammar_->rules().required) begin_call(Level::Phase::kOpening, stacks_);
}

bool GrammarState::take(uint32_t id) {
  const std::string_view bytes = grammar_->vocabulary().bytes(id);
  if (bytes.empty()) {
    if (in_call()) return false;
    stacks_.n_matched =
        0;  // A mark that writes nothing stands between what is before and behind it.
    return true;
  }
  trial_ = stacks_;
  if (!take(trial_, bytes)) return false;
  std::swap(stacks_, trial_);
  has_first_ = false;
  return true;
}

bool GrammarState::accepts(uint32_t id) {
  const std::string_view bytes = grammar_->vocabulary().bytes(id);
  if (bytes.empty()) return !in_call();
  if (in_call()) {
    if (!has_first_) look_ahead();
    if (!first_[uint8_t(bytes[0])]) return false;
  }
  trial_ = stacks_;
  return take(trial_, bytes);
}

uint32_t GrammarState::some() {
  const Vocabulary& vocabulary = grammar_->vocabulary();
  for (int byte = 0; byte < 256; ++byte) {
    const std::optional<uint32_t> id = vocabulary.byte_token(uint8_t(byte));
    if (id && accepts(*id)) return *id;
  }
  CHECK(false);  // Grammar::create() has seen to it.
  return 0;
}

void GrammarState::look_ahead() {
  for (int byte = 0; byte < 256; ++byte) {
    trial_ = stacks_;
    first_[size_t(byte)] = take(trial_, uint8_t(byte));
  }
  has_first_ = true;
}

bool GrammarState::take(Stacks& stacks, std::string_view bytes) {
  for (const char byte : bytes) {
    if (!take(stacks, uint8_t(byte))) return false;
  }
  if (grammar_->has_continuations()) return true;
  // No token may be left that could end a character which is begun here.
  return std::ranges::none_of(stacks.threads, [&](const Thread& thread) {
    const Level& level = stacks.levels[thread.end - 1];
    const bool is_free = level.phase == Level::Phase::kString ||
                         (level.phase == Level::Phase::kKey && level.low == level.high);
    return is_free && level.string.in_character();
  });
}

bool GrammarState::take(Stacks& stacks, uint8_t byte) {
  if (stacks.threads.empty()) {
    stacks.n_matched = grammar_->open_match(stacks.n_matched, byte);
    if (stacks.n_matched == int(grammar_->rules().open.size()))
      begin_call(Level::Phase::kBegin, stacks);
    return true;
  }
  next_.levels.clear();
  next_.threads.clear();
  for (const Thread& thread : stacks.threads) {
    const size_t begin = next_.levels.size();
    next_.levels.insert(next_.levels.end(), stacks.levels.begin() + thread.begin,
                        stacks.levels.begin() + thread.end);
    feed(begin, byte);
  }
  if (next_.threads.empty()) return false;
  // All threads are at the same place of the text, so one that ended is the call's end.
  const Thread& any = next_.threads.front();
  if (any.begin == any.end) {
    next_.levels.clear();
    next_.threads.clear();
    next_.n_matched = 0;
  }
  std::swap(stacks, next_);
  return true;
}

void GrammarState::begin_call(Level::Phase phase, Stacks& stacks) const {
  Level level;
  level.phase = phase;
  level.high = uint32_t(grammar_->rules().calls.size());
  stacks.levels.assign(1, level);
  stacks.threads.assign(1, {0, 1});
  stacks.n_matched = 0;
}

// Takes the stack from `begin` on one byte further, as one thread, several, or none.
void GrammarState::feed(size_t begin, uint8_t byte) {
  std::vector<Level>& levels = next_.levels;
  for (;;) {
    int value = -1;
    switch (step(levels.back(), int(levels.size() - begin), byte, value)) {
      case Step::kTaken:
        return finish(begin);
      case Step::kDone:
        levels.pop_back();
        return finish(begin);
      case Step::kDoneBefore:
        levels.pop_back();
        break;
      case Step::kValue:
        return start(begin, value, byte);
      case Step::kWrong:
        levels.resize(begin);
        return;
    }
  }
}

void GrammarState::finish(size_t begin) {
  const std::span<const Level> levels(next_.levels);
  const auto is_same = [&](const Thread& thread) {
    return std::ranges::equal(levels.subspan(begin),
                              levels.subspan(thread.begin, thread.end - thread.begin));
  };
  if (next_.threads.size() == threads_max || std::ranges::any_of(next_.threads, is_same)) {
    next_.levels.resize(begin);
  } else {
    next_.threads.push_back({uint32_t(begin), uint32_t(levels.size())});
  }
}

// Begins a value with `byte` upon the stack from `begin` on.
void GrammarState::start(size_t begin, int value, uint8_t byte) {
  std::vector<Level>& levels = next_.levels;
  const ValueRule& rule = grammar_->rules().values[size_t(value)];
  const int depth = int(levels.size() - begin);
  if (const auto* any = rule_as<ValueRule::AnyOf>(rule)) {
    const size_t end = levels.size();
    for (const int each : any->values) {
      if (!fits(each, depth)) continue;
      const size_t copy = levels.size();
      for (size_t i = begin; i < end; ++i) levels.push_back(levels[i]);
      start(copy, each, byte);
    }
    return;
  }
  Level level;
  level.rule = value;
  level.phase = Level::Phase::kFirst;
  if (const auto* text = rule_as<ValueRule::Text>(rule)) {
    level.phase = Level::Phase::kText;
    level.high = uint32_t(text->texts.size());
    levels.push_back(level);
    return feed(begin, byte);
  }
  if (const auto* number = rule_as<ValueRule::Number>(rule)) {
    level.phase = Level::Phase::kNumber;
    level.number = NumberLexer(number->whole);
    levels.push_back(level);
    return feed(begin, byte);
  }
  uint8_t opening = '"';
  if (const auto* object = rule_as<ValueRule::Object>(rule)) {
    opening = '{';
    for (size_t i = 0; i < object->properties.size(); ++i) {
      if (!fits(object->properties[i].value, depth + 1)) level.seen |= bits(i, i + 1);
    }
  } else if (rule_as<ValueRule::Array>(rule) != nullptr) {
    opening = '[';
  } else {
    level.phase = Level::Phase::kString;
  }
  if (byte != opening) return levels.resize(begin);
  levels.push_back(level);
  finish(begin);
}

// `depth`: levels of the stack, this one among them. `value` begins with this byte, for kValue.
GrammarState::Step GrammarState::step(Level& level, int depth, uint8_t byte, int& value) const {
  using Phase = Level::Phase;
  if (level.phase <= Phase::kClosing) return step_call(level, byte, value);
  const ValueRule& rule = grammar_->rules().values[size_t(level.rule)];
  if (level.phase == Phase::kText) {
    const std::vector<std::string>& texts = rule_as<ValueRule::Text>(rule)->texts;
    const auto [low, high] =
        narrowed(texts, std::identity(), level.low, level.high, level.count, byte);
    // A number may end where another goes on.
    if (low == high)
      return texts[level.low].size() == level.count ? Step::kDoneBefore : Step::kWrong;
    level.low = low;
    level.high = high;
    ++level.count;
    return high == low + 1 && texts[low].size() == level.count ? Step::kDone : Step::kTaken;
  }
  if (level.phase == Phase::kString) {
    const StringLexer::Step lexed = level.string.take(byte);
    if (lexed == StringLexer::Step::kMore) return Step::kTaken;
    return lexed == StringLexer::Step::kClosed ? Step::kDone : Step::kWrong;
  }
  if (level.phase == Phase::kNumber) {
    if (level.number.take(byte)) return Step::kTaken;
    return level.number.may_end() ? Step::kDoneBefore : Step::kWrong;
  }
  if (level.phase != Phase::kKey && is_blank(byte)) {
    return ++level.n_blanks <= blanks_max ? Step::kTaken : Step::kWrong;
  }
  level.n_blanks = 0;
  if (const auto* object = rule_as<ValueRule::Object>(rule)) {
    return step_object(level, *object, depth, byte, value);
  }
  return step_array(level, *rule_as<ValueRule::Array>(rule), depth, byte, value);
}

GrammarState::Step GrammarState::step_call(Level& level, uint8_t byte, int& value) const {
  using Phase = Level::Phase;
  const CallRules& rules = grammar_->rules();
  const auto go = [&](Phase phase) {
    level.phase = phase;
    level.count = 0;
    level.n_blanks = 0;
    return Step::kTaken;
  };
  // Blanks may stand before a text, not in it.
  const auto blank_or_wrong = [&] {
    const bool may_be = level.count == 0 && level.phase != Phase::kOpening && is_blank(byte);
    return may_be && ++level.n_blanks <= blanks_max ? Step::kTaken : Step::kWrong;
  };
  const auto goes_on = [&](const std::string& text) {
    return level.count < text.size() && uint8_t(text[level.count]) == byte;
  };
  switch (level.phase) {
    case Phase::kOpening:
      if (!goes_on(rules.open)) return blank_or_wrong();
      return ++level.count == rules.open.size() ? go(Phase::kBegin) : Step::kTaken;
    case Phase::kBegin: {
      const auto [low, high] =
          narrowed(rules.calls, &CallRules::Call::begin, level.low, level.high, level.count, byte);
      if (low == high) return blank_or_wrong();
      level.low = low;
      level.high = high;
      ++level.count;
      if (high != low + 1 || rules.calls[low].begin.size() != level.count) return Step::kTaken;
      level.rule = int(low);
      return go(Phase::kArguments);
    }
    case Phase::kArguments:
      if (is_blank(byte)) return blank_or_wrong();
      go(Phase::kEnd);
      value = rules.calls[size_t(level.rule)].arguments;
      return Step::kValue;
    case Phase::kEnd: {
      const std::string& end = rules.calls[size_t(level.rule)].end;
      if (!end.empty()) {
        if (!goes_on(end)) return blank_or_wrong();
        return ++level.count == end.size() ? go(Phase::kClosing) : Step::kTaken;
      }
      go(Phase::kClosing);
      [[fallthrough]];
    }
    default:
      if (!goes_on(rules.close)) return blank_or_wrong();
      return ++level.count == rules.close.size() ? Step::kDone : Step::kTaken;
  }
}

GrammarState::Step GrammarState::step_object(Level& level, const ValueRule::Object& object,
                                             int depth, uint8_t byte, int& value) const {
  using Phase = Level::Phase;
  const size_t n = object.properties.size();
  const bool has_rest = object.rest >= 0 && fits(object.rest, depth);
  switch (level.phase) {
    case Phase::kKey:
      return step_key(level, object, has_rest, byte);
    case Phase::kColon:
      level.phase = Phase::kValue;
      return byte == ':' ? Step::kTaken : Step::kWrong;
    case Phase::kValue:
      value = level.low < n ? object.properties[level.low].value : object.rest;
      level.phase = Phase::kAfter;
      return Step::kValue;
    default:
      break;
  }
  const bool may_go_on = has_rest || (bits(0, n) & ~level.seen) != 0;
  if (byte == '}' && level.phase != Phase::kNext) {
    for (size_t i = 0; i < n; ++i) {
      if (object.properties[i].required && (level.seen & bits(i, i + 1)) == 0) return Step::kWrong;
    }
    return Step::kDone;
  }
  if (byte == ',' && level.phase == Phase::kAfter && may_go_on) {
    level.phase = Phase::kNext;
    return Step::kTaken;
  }
  if (byte != '"' || level.phase == Phase::kAfter || !may_go_on) return Step::kWrong;
  level.phase = Phase::kKey;
  level.string = {};
  level.count = 0;
  level.low = 0;
  level.high = uint32_t(n);
  return Step::kTaken;
}

// A key is one of the properties' that was not written yet or, where there may be others, any that
// is none of them; such a key has no escapes, behind which it could be one in disguise.
GrammarState::Step GrammarState::step_key(Level& level, const ValueRule::Object& object,
                                          bool has_rest, uint8_t byte) const {
  const std::vector<ValueRule::Property>& properties = object.properties;
  const bool was_escape = level.string.in_escape();
  const StringLexer::Step lexed = level.string.take(byte);
  if (lexed == StringLexer::Step::kWrong) return Step::kWrong;
  if (lexed == StringLexer::Step::kClosed) {
    level.phase = Level::Phase::kColon;
    if (level.low < level.high && properties[level.low].key.size() == level.count) {
      if ((level.seen & bits(level.low, level.low + 1)) != 0) return Step::kWrong;
      level.seen |= bits(level.low, level.low + 1);
      return Step::kTaken;
    }
    level.low = level.high = uint32_t(properties.size());
    return has_rest ? Step::kTaken : Step::kWrong;
  }
  const auto [low, high] =
      narrowed(properties, &ValueRule::Property::key, level.low, level.high, level.count, byte);
  ++level.count;
  const bool leads_to_one = low < high && (has_rest || (bits(low, high) & ~level.seen) != 0);
  if (!leads_to_one && (!has_rest || was_escape || byte == '\\')) return Step::kWrong;
  level.low = leads_to_one ? low : 0;
  level.high = leads_to_one ? high : 0;
  return Step::kTaken;
}

GrammarState::Step GrammarState::step_array(Level& level, const ValueRule::Array& array, int depth,
                                            uint8_t byte, int& value) const {
  using Phase = Level::Phase;
  const bool may_go_on = int64_t(level.count) < array.n_max && fits(array.items, depth);
  if (byte == ']' && level.phase != Phase::kNext) {
    return int64_t(level.count) >= array.n_min ? Step::kDone : Step::kWrong;
  }
  if (!may_go_on) return Step::kWrong;
  if (level.phase == Phase::kAfter) {
    level.phase = Phase::kNext;
    return byte == ',' ? Step::kTaken : Step::kWrong;
  }
  level.phase = Phase::kAfter;
  ++level.count;
  value = array.items;
  return Step::kValue;
}

}  // namespace nosa
