#include "session/json_lexer.h"

#include <string_view>

namespace nosa {
namespace {

bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

bool is_hex(uint8_t byte) {
  return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

}  // namespace

StringLexer::Step StringLexer::take(uint8_t byte) {
  switch (state_) {
    case State::kPlain:
      return begin(byte);
    case State::kOneMore:
      return go_within(byte, 0x80, 0xBF, State::kPlain);
    case State::kTwoMore:
      return go_within(byte, 0x80, 0xBF, State::kOneMore);
    case State::kThreeMore:
      return go_within(byte, 0x80, 0xBF, State::kTwoMore);
    case State::kAfterE0:
      return go_within(byte, 0xA0, 0xBF, State::kOneMore);
    case State::kAfterEd:
      return go_within(byte, 0x80, 0x9F, State::kOneMore);
    case State::kAfterF0:
      return go_within(byte, 0x90, 0xBF, State::kTwoMore);
    case State::kAfterF4:
      return go_within(byte, 0x80, 0x8F, State::kTwoMore);
    case State::kEscape:
      return escape(byte);
    case State::kHex1:
      if (byte == 'd' || byte == 'D') return go(State::kHexBelow8);
      return is_hex(byte) ? go(State::kHex2) : Step::kWrong;
    case State::kHexBelow8:
      return go_within(byte, '0', '7', State::kHex3);
    case State::kHex2:
      return is_hex(byte) ? go(State::kHex3) : Step::kWrong;
    case State::kHex3:
      return is_hex(byte) ? go(State::kHex4) : Step::kWrong;
    case State::kHex4:
      return is_hex(byte) ? go(State::kPlain) : Step::kWrong;
  }
  return Step::kWrong;
}

StringLexer::Step StringLexer::begin(uint8_t byte) {
  if (byte == '"') return Step::kClosed;
  if (byte == '\\') return go(State::kEscape);
  if (byte < 0x20) return Step::kWrong;
  if (byte < 0x80) return Step::kMore;
  if (byte == 0xE0) return go(State::kAfterE0);
  if (byte == 0xED) return go(State::kAfterEd);
  if (byte == 0xF0) return go(State::kAfterF0);
  if (byte == 0xF4) return go(State::kAfterF4);
  if (byte >= 0xC2 && byte <= 0xDF) return go(State::kOneMore);
  if (byte >= 0xE1 && byte <= 0xEF) return go(State::kTwoMore);
  return go_within(byte, 0xF1, 0xF3, State::kThreeMore);
}

StringLexer::Step StringLexer::escape(uint8_t byte) {
  constexpr std::string_view single = "\"\\/bfnrt";
  if (byte == 'u') return go(State::kHex1);
  return single.find(char(byte)) == single.npos ? Step::kWrong : go(State::kPlain);
}

bool NumberLexer::take(uint8_t byte) {
  const bool digit = is_digit(byte);
  switch (state_) {
    case State::kStart:
      if (byte == '-') return go(State::kMinus);
      [[fallthrough]];
    case State::kMinus:
      return digit && go(byte == '0' ? State::kZero : State::kDigits);
    case State::kDigits:
      if (digit) return n_digits_ < digits_max && go(State::kDigits);
      [[fallthrough]];
    case State::kZero:
      if (whole_) return false;
      if (byte == '.') return go(State::kPoint);
      return (byte == 'e' || byte == 'E') && go(State::kE);
    case State::kPoint:
      return digit && go(State::kFraction);
    case State::kFraction:
      if (digit) return n_digits_ < digits_max && go(State::kFraction);
      return (byte == 'e' || byte == 'E') && go(State::kE);
    case State::kE:
      if (byte == '+' || byte == '-') return go(State::kExponentSign);
      [[fallthrough]];
    case State::kExponentSign:
      return digit && go(State::kExponent);
    case State::kExponent:
      return digit && n_digits_ < exponent_digits_max && go(State::kExponent);
  }
  return false;
}

}  // namespace nosa
