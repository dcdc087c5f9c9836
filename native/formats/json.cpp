#include "formats/json.h"

#include <algorithm>
#include <charconv>
#include <system_error>

namespace nosa {
namespace {

/// Length of the well-formed UTF-8 sequence at the start of `text`, 0 when it is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t i, uint8_t low, uint8_t high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;  // A continuation byte, or an overlong form.
  if (lead < 0xe0) return continues(1, 0x80, 0xbf) ? 2 : 0;
  if (lead < 0xf0) {
    const uint8_t low = lead == 0xe0 ? 0xa0 : 0x80;   // Overlong below.
    const uint8_t high = lead == 0xed ? 0x9f : 0xbf;  // Surrogates above.
    return continues(1, low, high) && continues(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (lead < 0xf5) {
    const uint8_t low = lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xf4 ? 0x8f : 0xbf;  // U+10FFFF is the last.
    const bool whole =
        continues(1, low, high) && continues(2, 0x80, 0xbf) && continues(3, 0x80, 0xbf);
    return whole ? 4 : 0;
  }
  return 0;
}

void append_utf8(uint32_t code, std::string* out) {
  const auto put = [&](uint32_t bits) { out->push_back(static_cast<char>(bits)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 63));
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Recursive descent over one text. The first failure is kept and ends everything.
class Reader {
 public:
  Reader(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  Result<JsonValue> read() {
    JsonValue value;
    if (!read_value(0, &value)) return failure_;
    skip_space();
    if (at_ != text_.size()) {
      fail("something follows the value");
      return failure_;
    }
    return value;
  }

 private:
  bool fail(const char* what) {
    failure_ = Status::corrupt("byte " + std::to_string(at_) + ": " + what);
    return false;
  }

  bool exceed(const std::string& what) {
    failure_ = Status::unsupported("byte " + std::to_string(at_) + ": " + what);
    return false;
  }

  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }

  bool take(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }

  void skip_space() {
    while (next_is(' ') || next_is('\n') || next_is('\r') || next_is('\t')) ++at_;
  }

  bool read_value(int depth, JsonValue* out) {
    if (++n_values_ > limits_.values_max) {
      return exceed("more than " + std::to_string(limits_.values_max) + " values");
    }
    skip_space();
    if (at_ == text_.size()) return fail("the text ends where a value is needed");
    switch (text_[at_]) {
      case '{':
        return read_object(depth + 1, out);
      case '[':
        return read_array(depth + 1, out);
      case '"': {
        std::string value;
        if (!read_string(&value)) return false;
        *out = JsonValue(std::move(value));
        return true;
      }
      case 't':
        return read_word("true", JsonValue(true), out);
      case 'f':
        return read_word("false", JsonValue(false), out);
      case 'n':
        return read_word("null", JsonValue(), out);
      default:
        return read_number(out);
    }
  }

  bool read_word(std::string_view word, JsonValue value, JsonValue* out) {
    if (text_.substr(at_, word.size()) != word) return fail("no JSON value begins like this");
    at_ += word.size();
    *out = std::move(value);
    return true;
  }

  bool read_array(int depth, JsonValue* out) {
    if (depth > limits_.depth_max) return exceed("nested too deeply");
    take('[');
    JsonValue::Array items;
    skip_space();
    if (!take(']')) {
      do {
        if (!read_value(depth, &items.emplace_back())) return false;
        skip_space();
      } while (take(','));
      if (!take(']')) return fail("a comma or ] is missing");
    }
    *out = JsonValue(std::move(items));
    return true;
  }

  bool read_object(int depth, JsonValue* out) {
    if (depth > limits_.depth_max) return exceed("nested too deeply");
    take('{');
    JsonValue::Object members;
    skip_space();
    if (!take('}')) {
      do {
        skip_space();
        JsonValue::Member& member = members.emplace_back();
        if (!next_is('"')) return fail("a key in quotes is missing");
        if (!read_string(&member.first)) return false;
        skip_space();
        if (!take(':')) return fail("a colon is missing");
        if (!read_value(depth, &member.second)) return false;
        skip_space();
      } while (take(','));
      if (!take('}')) return fail("a comma or } is missing");
    }
    if (!has_unique_keys(members)) return fail("the object that ends here names a key twice");
    *out = JsonValue(std::move(members));
    return true;
  }

  static bool has_unique_keys(const JsonValue::Object& members) {
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const JsonValue::Member& member : members) keys.push_back(member.first);
    std::sort(keys.begin(), keys.end());
    return std::adjacent_find(keys.begin(), keys.end()) == keys.end();
  }

  bool read_string(std::string* out) {
    take('"');
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c == '\\') {
        if (!read_escape(out)) return false;
        continue;
      }
      if (static_cast<uint8_t>(c) < 0x20) return fail("a control character in a string");
      const size_t length = utf8_length(text_.substr(at_));
      if (length == 0) return fail("a string is not UTF-8");
      out->append(text_.substr(at_, length));
      at_ += length;
    }
    return fail("the text ends inside a string");
  }

  bool read_escape(std::string* out) {
    take('\\');
    if (at_ == text_.size()) return fail("the text ends inside a string");
    const char c = text_[at_++];
    switch (c) {
      case '"':
      case '\\':
      case '/':
        out->push_back(c);
        return true;
      case 'b':
        out->push_back('\b');
        return true;
      case 'f':
        out->push_back('\f');
        return true;
      case 'n':
        out->push_back('\n');
        return true;
      case 'r':
        out->push_back('\r');
        return true;
      case 't':
        out->push_back('\t');
        return true;
      case 'u':
        return read_unicode_escape(out);
      default:
        return fail("an unknown escape in a string");
    }
  }

  bool read_unicode_escape(std::string* out) {
    uint32_t code = 0;
    if (!read_hex4(&code)) return false;
    if (code >= 0xdc00 && code <= 0xdfff) return fail("half a surrogate pair");
    if (code >= 0xd800 && code <= 0xdbff) {
      uint32_t low = 0;
      if (!take('\\') || !take('u')) return fail("half a surrogate pair");
      if (!read_hex4(&low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(code, out);
    return true;
  }

  bool read_hex4(uint32_t* out) {
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), *out, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) {
      return fail("\\u needs four hexadecimal digits");
    }
    at_ += 4;
    return true;
  }

  bool take_digits() {
    const size_t start = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > start;
  }

  bool read_number(JsonValue* out) {
    const size_t start = at_;
    take('-');
    if (!take('0') && !take_digits()) {
      at_ = start;
      return fail("no JSON value begins like this");
    }
    bool integral = true;
    if (take('.')) {
      integral = false;
      if (!take_digits()) return fail("a digit is missing");
    }
    if (take('e') || take('E')) {
      integral = false;
      if (!take('+')) take('-');
      if (!take_digits()) return fail("a digit is missing");
    }

    const char* const first = text_.data() + start;
    const char* const last = text_.data() + at_;
    int64_t whole = 0;
    if (integral && std::from_chars(first, last, whole).ec == std::errc()) {
      *out = JsonValue(whole);
      return true;
    }
    double value = 0.0;
    if (std::from_chars(first, last, value).ec != std::errc()) {
      at_ = start;
      return fail("a number that does not fit a double");
    }
    *out = JsonValue(value);
    return true;
  }

  std::string_view text_;
  const JsonLimits& limits_;
  size_t at_ = 0;
  size_t n_values_ = 0;
  Status failure_;
};

}  // namespace

std::optional<double> JsonValue::number() const {
  if (const auto whole = integer()) return static_cast<double>(*whole);
  return get<double>();
}

const JsonValue* JsonValue::find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  const auto at = std::find_if(members->begin(), members->end(),
                               [&](const Member& member) { return member.first == key; });
  return at == members->end() ? nullptr : &at->second;
}

Result<JsonValue> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.bytes_max) {
    return Status::unsupported("JSON of " + std::to_string(text.size()) + " bytes, more than the " +
                               std::to_string(limits.bytes_max) + " that are read");
  }
  return Reader(text, limits).read();
}

}  // namespace nosa
