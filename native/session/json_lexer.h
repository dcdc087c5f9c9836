#pragma once

#include <cstdint>

namespace nosa {

/// A JSON string behind its opening quote, one byte at a time (RFC 8259, section 7): valid UTF-8,
/// no bare control characters. `\u` never names half of a surrogate pair; such characters are
/// written as they are.
class StringLexer {
 public:
  enum class Step : uint8_t { kMore, kClosed, kWrong };

  Step take(uint8_t byte);

  /// Between two characters, where the string may end.
  bool between_characters() const { return state_ == State::kPlain; }
  bool in_escape() const { return state_ >= State::kEscape; }
  /// Some of the bytes of a character are still to come.
  bool in_character() const { return state_ != State::kPlain && state_ < State::kEscape; }

  bool operator==(const StringLexer&) const = default;

 private:
  enum class State : uint8_t {
    kPlain,
    kOneMore,
    kTwoMore,
    kThreeMore,  // Any continuation bytes.
    kAfterE0,
    kAfterEd,
    kAfterF0,
    kAfterF4,  // The next one is limited: Unicode's table 3-7.
    kEscape,
    kHex1,
    kHex2,
    kHex3,
    kHex4,
    kHexBelow8,  // Behind `\ud`.
  };

  Step go(State state) {
    state_ = state;
    return Step::kMore;
  }
  Step go_within(uint8_t byte, uint8_t low, uint8_t high, State state) {
    return byte >= low && byte <= high ? go(state) : Step::kWrong;
  }
  Step begin(uint8_t byte);
  Step escape(uint8_t byte);

  State state_ = State::kPlain;
};

/// A JSON number (RFC 8259, section 6) of bounded length, so that it stays within what a double
/// holds and a model cannot go on with digits for ever.
class NumberLexer {
 public:
  static constexpr int digits_max = 15;  ///< Before the point, and behind it.
  static constexpr int exponent_digits_max = 2;

  explicit NumberLexer(bool whole = false) : whole_(whole) {}

  /// False when the byte does not go on with the number; it then has not changed.
  bool take(uint8_t byte);

  /// What was taken is a number.
  bool may_end() const {
    return state_ == State::kZero || state_ == State::kDigits || state_ == State::kFraction ||
           state_ == State::kExponent;
  }

  bool operator==(const NumberLexer&) const = default;

 private:
  enum class State : uint8_t {
    kStart,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kE,
    kExponentSign,
    kExponent
  };

  bool go(State state) {
    n_digits_ = state == state_ ? uint8_t(n_digits_ + 1) : uint8_t(1);
    state_ = state;
    return true;
  }

  State state_ = State::kStart;
  uint8_t n_digits_ = 0;  // Of the run that the state is in.
  bool whole_;
};

}  // namespace nosa
