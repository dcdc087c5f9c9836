#include "formats/json.h"

#include <gtest/gtest.h>

namespace nosa {
namespace {

JsonValue parsed(std::string_view text) {
  auto value = parse_json(text);
  EXPECT_TRUE(value.ok()) << text << ": " << value.status().message();
  return value.ok() ? *value : JsonValue();
}

TEST(Json, ReadsEveryKindOfValue) {
  const JsonValue value = parsed(R"( {"a": [1, -2.5e1, true, false, null], "b": {"c": "d"}} )");
  const JsonValue::Array& list = *value.find("a")->array();
  ASSERT_EQ(list.size(), 5u);
  EXPECT_EQ(list[0].integer(), 1);
  EXPECT_EQ(list[0].number(), 1.0);
  EXPECT_EQ(list[1].integer(), std::nullopt);
  EXPECT_EQ(list[1].number(), -25.0);
  EXPECT_EQ(list[2].boolean(), true);
  EXPECT_EQ(list[3].boolean(), false);
  EXPECT_TRUE(list[4].is_null());
  EXPECT_EQ(*value.find("b")->find("c")->string(), "d");
  EXPECT_EQ(value.find("c"), nullptr);
  EXPECT_EQ(list[0].find("c"), nullptr);
}

TEST(Json, KeepsWholeNumbersOf64Bits) {
  EXPECT_EQ(parsed("9223372036854775807").integer(), INT64_MAX);
  EXPECT_EQ(parsed("-9223372036854775808").integer(), INT64_MIN);
  EXPECT_EQ(parsed("9223372036854775808").integer(), std::nullopt);
  EXPECT_EQ(parsed("9223372036854775808").number(), 9223372036854775808.0);
  EXPECT_EQ(parsed("1e-06").number(), 1e-6);
  EXPECT_EQ(parsed("-0").integer(), 0);
}

TEST(Json, UnderstandsEscapesAndUtf8) {
  EXPECT_EQ(*parsed(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00")").string(),
            "\"\\/\b\f\n\r\tA\u00e9\u20ac\U0001f600");
  EXPECT_EQ(*parsed("\"\u00e9\u20ac\U0001f600\"").string(), "\u00e9\u20ac\U0001f600");
  EXPECT_EQ(parsed(R"("a\u0000b")").string()->size(), 3u);
}

class Malformed : public testing::TestWithParam<const char*> {};

TEST_P(Malformed, IsRefused) {
  const auto value = parse_json(GetParam());
  EXPECT_EQ(value.status().code(), StatusCode::kCorrupt) << GetParam();
  EXPECT_EQ(value.status().message().rfind("byte ", 0), 0u) << value.status().message();
}

INSTANTIATE_TEST_SUITE_P(
    Texts, Malformed,
    testing::Values("", " ", "{", "}", "[", "[1", "[1,", "[1,]", "[,]", "[1 2]", "{\"a\"}",
                    "{\"a\":}", "{\"a\":1,}", "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "1 2", "nul",
                    "True", "NaN", "Infinity", "-Infinity", "+1", "01", "-", "1.", ".5", "1e",
                    "1e+", "0x10", "1e999", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"",
                    "\"\\u+123\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\n\"",
                    "\"\x01\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"",
                    "\"\xf5\x80\x80\x80\"", "\"\xe2\x82\"", "{\"a\":1,\"a\":2}", "\xef\xbb\xbf{}",
                    "// c\n1", "[1]x"));

TEST(Json, NamesTheByteOfAFailure) {
  EXPECT_EQ(parse_json("[1 2]").status().message(), "byte 3: a comma or ] is missing");
}

TEST(Json, RefusesWhatIsTooDeepTooLongOrTooMany) {
  const std::string deep(1000000, '[');
  EXPECT_EQ(parse_json(deep).status().code(), StatusCode::kUnsupported);
  std::string nested_objects;
  for (int i = 0; i < 100; ++i) nested_objects += "{\"a\":";
  EXPECT_EQ(parse_json(nested_objects).status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(parse_json("[[1]]", {.depth_max = 2}).ok());
  EXPECT_FALSE(parse_json("[[[1]]]", {.depth_max = 2}).ok());
  EXPECT_EQ(parse_json("[1,2,3]", {.bytes_max = 6}).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(parse_json("[1,2,3]", {.values_max = 3}).status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(parse_json("[1,2,3]", {.values_max = 4}).ok());
}

TEST(Json, ReadsALargeObjectInReasonableTime) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i)
    text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text.back() = '}';
  EXPECT_EQ(parsed(text).object()->size(), 100000u);
}

}  // namespace
}  // namespace nosa
