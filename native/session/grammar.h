#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/status.h"
#include "session/json_lexer.h"
#include "session/token_filter.h"
#include "session/vocabulary.h"

namespace nosa {

/// A JSON value of a schema. Values within values are named by their index among the rules' values.
struct ValueRule {
  /// One of these texts, byte for byte: constants, enumerations, true, false, null.
  struct Text {
    std::vector<std::string> texts;
  };
  struct String {};
  struct Number {
    bool whole = false;
  };
  struct Property {
    std::string key;  ///< As JSON writes it between the quotes.
    int value = 0;
    bool required = false;
  };
  /// Properties in any order, each at most once, as a model may have learnt to write them in
  /// another order than the schema's. `rest` is what other keys hold, or -1 when there are none.
  struct Object {
    std::vector<Property> properties;
    int rest = -1;
  };
  struct Array {
    int items = 0;
    int n_min = 0;
    int n_max = 0;
  };
  struct AnyOf {
    std::vector<int> values;
  };

  std::variant<Text, String, Number, Object, Array, AnyOf> is;
};

/// How a model calls functions: text in which `open` may stand; behind it one of the calls,
/// `begin`, then JSON, then `end`; then `close`; then text again. Blanks may stand between these
/// five.
struct CallRules {
  struct Call {
    std::string begin;
    int arguments = 0;
    std::string end;
  };
  std::vector<ValueRule> values;
  std::string open;
  std::string close;
  std::vector<Call> calls;
  bool required = false;  ///< The text begins with a call.
};

/// Rules that were looked over, for one vocabulary. Immutable.
class Grammar {
 public:
  static constexpr size_t properties_max = 64;
  /// Values within values, the call among them; deeper ones are never begun.
  static constexpr int depth_max = 64;

  /// Fails with kInvalidArgument for an index that leads nowhere, an object of more than
  /// properties_max properties or with one twice, a value that cannot end within depth_max, empty
  /// texts, or a call's beginning that another begins with; with kUnsupported when a byte that may
  /// be needed has no token of its own, as then a text could come to where no token fits.
  static Result<Grammar> create(CallRules rules, std::shared_ptr<const Vocabulary> vocabulary);

  const CallRules& rules() const { return rules_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

  /// Levels that the shortest value takes, itself among them.
  int depth(int value) const { return depths_[size_t(value)]; }

  /// Length of the longest beginning of `open` that ends with `byte`, behind `matched` bytes of it.
  int open_match(int matched, uint8_t byte) const;

  /// All bytes of a character, beyond ASCII, can be had as tokens of their own.
  bool has_continuations() const { return has_continuations_; }

 private:
  Grammar(CallRules rules, std::shared_ptr<const Vocabulary> vocabulary);

  Status sort_and_check();
  void measure();
  Status check_bytes();

  CallRules rules_;
  std::shared_ptr<const Vocabulary> vocabulary_;  // Shared with the other grammars of its model.
  std::vector<int> depths_;
  std::vector<int>
      open_borders_;  // Of each beginning of `open`: the longest one that it also ends with.
  bool has_continuations_ = false;
};

/// Where a text stands in a grammar, and which tokens may come next. Whatever tokens it took, there
/// is one that it takes next, and a shortest way to the call's end.
///
/// A set of stacks, because alternatives that begin alike are followed together; nearly always it
/// is one.
class GrammarState final : public TokenFilter {
 public:
  explicit GrammarState(std::shared_ptr<const Grammar> grammar);

  /// Goes on with a token; false when it does not fit, and then nothing has changed. In text
  /// between calls everything fits but what would begin a call wrongly.
  bool take(uint32_t id);

  /// In the midst of a call.
  bool in_call() const { return !stacks_.threads.empty(); }

  bool accepts(uint32_t id) override;
  uint32_t some() override;

 private:
  /// One level of a stack.
  struct Level {
    enum class Phase : uint8_t {
      kOpening,
      kBegin,
      kArguments,
      kEnd,
      kClosing,  // of a call
      kText,
      kString,
      kNumber,
      kFirst,
      kKey,
      kColon,
      kValue,
      kAfter,
      kNext,  // of an object or array
    };
    int rule = -1;  // Of values; of a call the index of the call, once it is known.
    Phase phase = Phase::kText;
    uint8_t n_blanks = 0;  // Since the last byte that was none.
    StringLexer string;
    NumberLexer number;
    uint32_t count = 0;  // Bytes of a text, items of an array.
    uint32_t low = 0;    // Sorted texts or keys that begin as what was written: [low, high).
    uint32_t high = 0;
    uint64_t seen = 0;  // Properties that were written, or do not fit any more.

    bool operator==(const Level&) const = default;
  };
  struct Thread {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  /// Threads within one array, with gaps where some ended.
  struct Stacks {
    std::vector<Level> levels;
    std::vector<Thread> threads;
    int n_matched = 0;  // Bytes of `open`, while there is no thread.
  };
  enum class Step : uint8_t { kTaken, kWrong, kDone, kDoneBefore, kValue };

  static constexpr int blanks_max = 32;
  static constexpr size_t threads_max = 16;

  bool take(Stacks& stacks, std::string_view bytes);
  bool take(Stacks& stacks, uint8_t byte);
  void begin_call(Level::Phase phase, Stacks& stacks) const;
  void feed(size_t begin, uint8_t byte);
  void start(size_t begin, int value, uint8_t byte);
  void finish(size_t begin);
  Step step(Level& level, int depth, uint8_t byte, int& value) const;
  Step step_call(Level& level, uint8_t byte, int& value) const;
  Step step_object(Level& level, const ValueRule::Object& object, int depth, uint8_t byte,
                   int& value) const;
  Step step_key(Level& level, const ValueRule::Object& object, bool has_rest, uint8_t byte) const;
  Step step_array(Level& level, const ValueRule::Array& array, int depth, uint8_t byte,
                  int& value) const;
  bool fits(int value, int depth) const {
    return depth + grammar_->depth(value) <= Grammar::depth_max;
  }
  void look_ahead();

  std::shared_ptr<const Grammar>
      grammar_;  // Kept alive from both threads: commands outlive their call.
  Stacks stacks_;
  Stacks trial_;            // What is being tried.
  Stacks next_;             // What one byte makes of it.
  std::bitset<256> first_;  // Bytes that fit next; looked for when first asked.
  bool has_first_ = false;
};

}  // namespace nosa
