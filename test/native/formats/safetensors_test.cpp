#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/random.h"
#include "support/safetensors_writer.h"

namespace nosa {
namespace {

using test::Bytes;
using test::SafetensorsWriter;

void expect_corrupt(const Bytes& bytes, const std::string& part) {
  const Status status = parse_safetensors(bytes, "model.safetensors").status();
  EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.message();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  EXPECT_EQ(status.message().rfind("model.safetensors ", 0), 0u) << status.message();
}

Bytes zeros(size_t n) { return Bytes(n); }

TEST(Safetensors, ReadsEntriesInOrderOfOffset) {
  test::Random random;
  const Bytes a = random.bytes(24);
  const Bytes b = random.bytes(6);
  const Bytes file = SafetensorsWriter()
                         .add("model.a", "F32", {2, 3}, a)
                         .add("model.b", "BF16", {3}, b)
                         .add("ids", "I64", {1}, zeros(8))
                         .add("scalar", "F16", {}, zeros(2))
                         .finish();
  const auto entries = parse_safetensors(file, "model.safetensors");
  ASSERT_TRUE(entries.ok()) << entries.status().message();
  ASSERT_EQ(entries->size(), 4u);
  const SafetensorsEntry& first = entries->at(0);
  EXPECT_EQ(first.name, "model.a");
  EXPECT_EQ(first.dtype, DType::kF32);
  EXPECT_EQ(first.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(std::equal(a.begin(), a.end(), file.begin() + static_cast<int64_t>(first.offset)));
  EXPECT_EQ(entries->at(1).dtype, DType::kBF16);
  EXPECT_EQ(entries->at(1).n_bytes, 6u);
  EXPECT_EQ(entries->at(2).dtype, std::nullopt);
  EXPECT_EQ(entries->at(2).file_type, "I64");
  EXPECT_TRUE(entries->at(3).shape.empty());
}

TEST(Safetensors, AcceptsNoTensorsMetadataAndUnknownTypes) {
  EXPECT_TRUE(parse_safetensors(test::safetensors_file("{}", {}), "f").ok());
  const auto entries = parse_safetensors(
      test::safetensors_file(
          R"({"__metadata__":{"format":"pt"},"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})",
          zeros(2)),
      "f");
  ASSERT_TRUE(entries.ok()) << entries.status().message();
  EXPECT_EQ(entries->at(0).file_type, "F4");
}

TEST(Safetensors, AcceptsEmptyTensors) {
  const Bytes file =
      SafetensorsWriter().add("e", "F32", {0, 4}, {}).add("t", "F32", {1}, zeros(4)).finish();
  EXPECT_TRUE(parse_safetensors(file, "f").ok());
}

TEST(Safetensors, FailsCleanlyWhereverItIsCut) {
  const Bytes whole = SafetensorsWriter().add("t", "F32", {4}, zeros(16)).finish();
  for (size_t n_bytes = 0; n_bytes < whole.size(); ++n_bytes) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<int64_t>(n_bytes));
    ASSERT_EQ(parse_safetensors(cut, "f").status().code(), StatusCode::kCorrupt) << n_bytes;
  }
  Bytes cut = whole;
  cut.pop_back();
  expect_corrupt(cut, "is truncated: tensor t ends at byte " + std::to_string(whole.size()));
  expect_corrupt(Bytes(whole.begin(), whole.begin() + 20), "is truncated: its header ends at byte");
  expect_corrupt({}, "is empty");
}

TEST(Safetensors, RefusesOtherFiles) {
  expect_corrupt(test::bytes_of("GGUF or whatever else there is"),
                 "is not a safetensors file");
  expect_corrupt(test::safetensors_file("[]", {}), "no JSON object");
  expect_corrupt(test::safetensors_file("{\"a\":", {}), "no valid JSON");
}

TEST(Safetensors, RefusesOffsetsThatOverlapLeaveHolesOrContradictTheShape) {
  const auto two = [](const std::string& second, size_t n_bytes) {
    return test::safetensors_file(
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":)" + second + "}",
        zeros(n_bytes));
  };
  const auto b = [](const std::string& shape, const std::string& offsets) {
    return R"({"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  EXPECT_TRUE(parse_safetensors(two(b("[2]", "[8,16]"), 16), "f").ok());
  expect_corrupt(two(b("[2]", "[4,12]"), 12), "tensor b overlaps");
  expect_corrupt(two(b("[2]", "[0,8]"), 8), "overlaps");
  expect_corrupt(two(b("[2]", "[12,20]"), 20), "bytes before tensor b");
  expect_corrupt(two(b("[2]", "[8,16]"), 17), "bytes after the last tensor");
  expect_corrupt(two(b("[3]", "[8,16]"), 16), "not what its shape and type make");
  expect_corrupt(two(b("[2]", "[16,8]"), 16), "impossible data_offsets");
  expect_corrupt(two(b("[2]", "[-8,0]"), 16), "impossible data_offsets");
  expect_corrupt(two(b("[2]", "[8]"), 16), "lacks its dtype, shape or data_offsets");
  expect_corrupt(two(b("[2]", "[8,16.5]"), 16), "impossible data_offsets");
  expect_corrupt(two(b("[-2]", "[8,16]"), 16), "impossible shape");
  expect_corrupt(two(b("[4294967296,4294967296,4294967296]", "[8,16]"), 16), "impossible shape");
  expect_corrupt(two("7", 16), "lacks its dtype, shape or data_offsets");
}

TEST(SafetensorsIndex, ReadsWhichFileHoldsWhat) {
  const auto shards = parse_safetensors_index(
      R"({"metadata":{"total_size":1},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})",
      "index");
  ASSERT_TRUE(shards.ok());
  ASSERT_EQ(shards->size(), 2u);
  EXPECT_EQ(shards->at(1).tensor, "b");
  EXPECT_EQ(shards->at(1).file_name, "two.safetensors");
}

TEST(SafetensorsIndex, RefusesFilesOutsideItsFolder) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "..", "", "C:x", "a\\\\b", "a\\u0000"}) {
    const auto shards =
        parse_safetensors_index(std::string(R"({"weight_map":{"a":")") + name + "\"}}", "index");
    EXPECT_EQ(shards.status().code(), StatusCode::kCorrupt) << name;
  }
  EXPECT_FALSE(parse_safetensors_index("{}", "index").ok());
  EXPECT_FALSE(parse_safetensors_index("{\"weight_map\":{\"a\":1}}", "index").ok());
  EXPECT_FALSE(parse_safetensors_index("", "index").ok());
}

}  // namespace
}  // namespace nosa
