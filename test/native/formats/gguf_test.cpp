#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/gguf_writer.h"
#include "support/quantised_rows.h"
#include "support/random.h"

namespace nosa {
namespace {

using test::Bytes;
using test::GgufWriter;

Status failure_of(const Bytes& bytes) { return parse_gguf(bytes, "model.gguf").status(); }

void expect_failure(const Bytes& bytes, StatusCode code, const std::string& part) {
  const Status status = failure_of(bytes);
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  EXPECT_EQ(status.message().rfind("model.gguf ", 0), 0u) << status.message();
}

Bytes tensor_bytes(int64_t n) { return Bytes(static_cast<size_t>(n), std::byte{1}); }

TEST(Gguf, ReadsMetadataOfEveryType) {
  Bytes raw;
  test::append(uint8_t{200}, &raw);
  Bytes i8;
  test::append(int8_t{-5}, &i8);
  Bytes u16;
  test::append(uint16_t{60000}, &u16);
  Bytes i16;
  test::append(int16_t{-30000}, &i16);
  Bytes i64;
  test::append(int64_t{-1} << 40, &i64);
  Bytes f64;
  test::append(1e300, &f64);
  const Bytes bytes = GgufWriter()
                          .add_raw("u8", 0, raw)
                          .add_raw("i8", 1, i8)
                          .add_raw("u16", 2, u16)
                          .add_raw("i16", 3, i16)
                          .add_u32("u32", 4000000000u)
                          .add_i32("i32", -7)
                          .add_f32("f32", 1e-6f)
                          .add_bool("yes", true)
                          .add_string("text", "Qwen")
                          .add_u64("u64", UINT64_MAX)
                          .add_raw("i64", 11, i64)
                          .add_raw("f64", 12, f64)
                          .finish();
  const auto gguf = parse_gguf(bytes, "model.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  EXPECT_EQ(gguf->version, 3u);
  EXPECT_EQ(gguf->metadata.size(), 12u);
  EXPECT_EQ(gguf->metadata.front().first, "u8");
  EXPECT_EQ(gguf->find_unsigned("u8"), 200u);
  EXPECT_EQ(gguf->find_number("i8"), -5.0);
  EXPECT_EQ(gguf->find_unsigned("i8"), std::nullopt);
  EXPECT_EQ(gguf->find_unsigned("u16"), 60000u);
  EXPECT_EQ(gguf->find_number("i16"), -30000.0);
  EXPECT_EQ(gguf->find_unsigned("u32"), 4000000000u);
  EXPECT_EQ(gguf->find_number("i32"), -7.0);
  EXPECT_EQ(gguf->find_number("f32"), static_cast<double>(1e-6f));
  EXPECT_EQ(gguf->find_bool("yes"), true);
  EXPECT_EQ(gguf->find_string("text"), "Qwen");
  EXPECT_EQ(gguf->find_unsigned("u64"), UINT64_MAX);
  EXPECT_EQ(gguf->find_number("i64"), -std::ldexp(1.0, 40));
  EXPECT_EQ(gguf->find_number("f64"), 1e300);
  EXPECT_EQ(gguf->find("absent"), nullptr);
  EXPECT_EQ(gguf->find_string("u32"), std::nullopt);
  EXPECT_EQ(gguf->find_array("u32"), nullptr);
}

TEST(Gguf, WalksListsOfNumbersAndOfTexts) {
  const std::vector<std::string> tokens = {"<s>", "", "\xff\xfe", "a longer token"};
  const Bytes bytes = GgufWriter()
                          .add_strings("tokens", tokens)
                          .add_f32s("scores", {0.5f, -1.0f})
                          .add_i32s("types", {})
                          .finish();
  const auto gguf = parse_gguf(bytes, "model.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  std::vector<std::string> seen;
  ASSERT_NE(gguf->find_array("tokens"), nullptr);
  EXPECT_TRUE(gguf->find_array("tokens")->holds_strings());
  gguf->find_array("tokens")->for_each(
      [&](const GgufScalar& value) { seen.emplace_back(std::get<std::string_view>(value)); });
  EXPECT_EQ(seen, tokens);
  std::vector<double> scores;
  gguf->find_array("scores")->for_each(
      [&](const GgufScalar& value) { scores.push_back(std::get<double>(value)); });
  EXPECT_EQ(scores, (std::vector<double>{0.5, -1.0}));
  EXPECT_EQ(gguf->find_array("types")->size(), 0u);
}

TEST(Gguf, PlacesTensorsOfEveryType) {
  test::Random random;
  for (const uint32_t version : {2u, 3u}) {
    for (const uint64_t alignment : {8u, 32u, 4096u}) {
      GgufWriter writer(version, alignment);
      writer.add_u32("general.alignment", static_cast<uint32_t>(alignment));
      std::vector<Bytes> contents;
      for (const DType dtype : test::all_dtypes) {
        const int64_t cols = block_values(dtype) * random.between(1, 3);
        const int64_t rows = random.between(1, 5);
        contents.push_back(test::random_rows(dtype, rows, cols, random));
        writer.add_tensor(dtype_name(dtype), {cols, rows}, dtype, contents.back());
      }
      const Bytes bytes = writer.finish();
      const auto gguf = parse_gguf(bytes, "model.gguf");
      ASSERT_TRUE(gguf.ok()) << gguf.status().message();
      ASSERT_EQ(gguf->tensors.size(), contents.size());
      for (size_t i = 0; i < contents.size(); ++i) {
        const GgufTensor& tensor = gguf->tensors[i];
        EXPECT_EQ(tensor.dtype, test::all_dtypes[i]);
        EXPECT_EQ(tensor.n_dims, 2);
        EXPECT_EQ(tensor.dims[2], 1);
        EXPECT_EQ(tensor.offset % alignment, 0u);
        EXPECT_TRUE(
            std::equal(contents[i].begin(), contents[i].end(),
                       bytes.begin() + static_cast<int64_t>(tensor.offset),
                       bytes.begin() + static_cast<int64_t>(tensor.offset + tensor.n_bytes)));
      }
    }
  }
}

TEST(Gguf, KeepsTensorsOfTypesItDoesNotRead) {
  const Bytes bytes = GgufWriter().add_raw_tensor("t", {256}, 10, tensor_bytes(84)).finish();
  const auto gguf = parse_gguf(bytes, "model.gguf");
  ASSERT_TRUE(gguf.ok());
  EXPECT_EQ(gguf->tensors[0].dtype, std::nullopt);
  EXPECT_EQ(gguf_type_name(gguf->tensors[0].file_type), "Q2_K");
  EXPECT_EQ(gguf_type_name(999), "type 999");
}

TEST(Gguf, RefusesOtherFiles) {
  expect_failure({}, StatusCode::kCorrupt, "is empty");
  expect_failure(test::bytes_of("GG"), StatusCode::kCorrupt, "is not a GGUF file");
  expect_failure(test::bytes_of("PK\x03\x04 some archive"), StatusCode::kCorrupt,
                 "is not a GGUF file");
}

TEST(Gguf, RefusesVersionsItDoesNotKnow) {
  expect_failure(GgufWriter(1).finish(), StatusCode::kUnsupported, "is GGUF version 1");
  expect_failure(GgufWriter(4).finish(), StatusCode::kUnsupported, "is GGUF version 4");
  expect_failure(GgufWriter(0x03000000).finish(), StatusCode::kUnsupported, "big-endian");
}

TEST(Gguf, SaysHowFarATruncatedTensorReaches) {
  Bytes bytes = GgufWriter()
                    .add_tensor("blk.3.ffn_up.weight", {4, 2}, DType::kF32, tensor_bytes(32))
                    .finish();
  const std::string end = std::to_string(bytes.size());
  bytes.pop_back();
  const Status status = failure_of(bytes);
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_EQ(status.message(), "model.gguf is truncated: tensor blk.3.ffn_up.weight ends at byte " +
                                  end + " but the file has " + std::to_string(bytes.size()) +
                                  " bytes; download it again");
}

TEST(Gguf, FailsCleanlyWhereverItIsCut) {
  const Bytes whole = GgufWriter()
                          .add_string("general.architecture", "llama")
                          .add_strings("tokens", {"a", "bc"})
                          .add_f32s("scores", {1, 2, 3})
                          .add_u64("n", 3)
                          .add_tensor("t", {32, 2}, DType::kQ8_0, tensor_bytes(68))
                          .finish();
  ASSERT_TRUE(failure_of(whole).ok());
  for (size_t n_bytes = 0; n_bytes < whole.size(); ++n_bytes) {
    // A copy of exactly this size, so that the address sanitizer sees the first byte too many.
    const Bytes cut(whole.begin(), whole.begin() + static_cast<int64_t>(n_bytes));
    ASSERT_EQ(failure_of(cut).code(), StatusCode::kCorrupt) << n_bytes;
  }
}

TEST(Gguf, RefusesTensorsThatOverlapOrLeaveTheFile) {
  const auto two_tensors = [](uint64_t second_offset) {
    return GgufWriter()
        .add_tensor("a", {16}, DType::kF32, tensor_bytes(64))
        .add_tensor("b", {8}, DType::kF32, tensor_bytes(32))
        .move_tensor(second_offset)
        .finish();
  };
  EXPECT_TRUE(failure_of(two_tensors(64)).ok());
  expect_failure(two_tensors(32), StatusCode::kCorrupt, "tensors a and b overlap");
  expect_failure(two_tensors(48), StatusCode::kCorrupt, "not aligned");
  expect_failure(two_tensors(96), StatusCode::kCorrupt, "is truncated: tensor b ends at byte");
  expect_failure(two_tensors(UINT64_MAX - 31), StatusCode::kCorrupt, "impossible offset");
}

TEST(Gguf, RefusesImpossibleShapes) {
  const auto shaped = [](const std::vector<int64_t>& dims, DType dtype) {
    return GgufWriter().add_tensor("t", dims, dtype, tensor_bytes(64)).finish();
  };
  expect_failure(shaped({0}, DType::kF32), StatusCode::kCorrupt, "dimension without elements");
  expect_failure(shaped({-4}, DType::kF32), StatusCode::kCorrupt, "dimension without elements");
  expect_failure(shaped({1ll << 31, 1ll << 31, 4}, DType::kF32), StatusCode::kCorrupt,
                 "impossible size");
  expect_failure(shaped({31}, DType::kQ8_0), StatusCode::kCorrupt,
                 "no whole number of Q8_0 blocks");
  expect_failure(shaped({32, 7}, DType::kQ4_K), StatusCode::kCorrupt, "Q4_K blocks");
  expect_failure(shaped({}, DType::kF32), StatusCode::kCorrupt, "has 0 dimensions");
  expect_failure(shaped({1, 1, 1, 1, 1}, DType::kF32), StatusCode::kCorrupt, "has 5 dimensions");
}

TEST(Gguf, RefusesNamesThatOccurTwice) {
  expect_failure(GgufWriter().add_u32("k", 1).add_u32("k", 2).finish(), StatusCode::kCorrupt,
                 "two metadata values k");
  expect_failure(GgufWriter()
                     .add_tensor("t", {8}, DType::kF32, tensor_bytes(32))
                     .add_tensor("t", {8}, DType::kF32, tensor_bytes(32))
                     .finish(),
                 StatusCode::kCorrupt, "two tensors t");
}

TEST(Gguf, RefusesStrangeMetadata) {
  expect_failure(GgufWriter().add_raw("k", 13, tensor_bytes(8)).finish(), StatusCode::kCorrupt,
                 "unknown type 13");
  Bytes list_of_lists;
  test::append(uint32_t{9}, &list_of_lists);
  test::append(uint64_t{0}, &list_of_lists);
  expect_failure(GgufWriter().add_raw("k", 9, list_of_lists).finish(), StatusCode::kUnsupported,
                 "list of lists");
  Bytes strange_list;
  test::append(uint32_t{77}, &strange_list);
  test::append(uint64_t{0}, &strange_list);
  expect_failure(GgufWriter().add_raw("k", 9, strange_list).finish(), StatusCode::kCorrupt,
                 "unknown type 77");
  for (const uint32_t alignment : {0u, 3u, 1u << 30}) {
    expect_failure(GgufWriter().add_u32("general.alignment", alignment).finish(),
                   StatusCode::kCorrupt, "general.alignment");
  }
}

TEST(Gguf, DoesNotBelieveCountsThatTheFileCannotHold) {
  for (const uint32_t element_type : {0u, 6u, 8u, 12u}) {
    for (const uint64_t size : {uint64_t{100}, uint64_t{1} << 61, UINT64_MAX}) {
      Bytes list;
      test::append(element_type, &list);
      test::append(size, &list);
      expect_failure(GgufWriter().add_raw("k", 9, list).finish(), StatusCode::kCorrupt,
                     "is truncated");
    }
  }
  for (const size_t count_at : {size_t{8}, size_t{16}}) {
    Bytes bytes = GgufWriter().add_u32("k", 1).finish();
    const uint64_t count = uint64_t{1} << 60;
    std::memcpy(bytes.data() + count_at, &count, sizeof(count));
    expect_failure(bytes, StatusCode::kCorrupt, "is truncated");
  }
}

TEST(Gguf, MessagesShowNoRubbishOfDamagedNames) {
  const Bytes bytes =
      GgufWriter().add_tensor("a\x01\xff" + std::string(200, 'b'), {0}, DType::kF32, {}).finish();
  const std::string message = failure_of(bytes).message();
  EXPECT_NE(message.find("a??bbb"), std::string::npos) << message;
  EXPECT_LT(message.size(), 200u);
}

TEST(Gguf, SurvivesRandomDamage) {
  const Bytes whole = GgufWriter()
                          .add_string("general.architecture", "llama")
                          .add_strings("tokens", {"a", "bc", "def"})
                          .add_f32s("scores", {1, 2, 3})
                          .add_tensor("t", {32, 2}, DType::kQ8_0, tensor_bytes(68))
                          .add_tensor("u", {256}, DType::kQ6_K, tensor_bytes(210))
                          .finish();
  test::Random random;
  for (int round = 0; round < 20000; ++round) {
    Bytes damaged = whole;
    const auto n_changes = random.between(1, 4);
    for (int64_t i = 0; i < n_changes; ++i) {
      damaged[static_cast<size_t>(random.between(0, 230))] = static_cast<std::byte>(random.bits());
    }
    const auto gguf = parse_gguf(damaged, "model.gguf");
    if (!gguf.ok()) continue;
    for (const GgufTensor& tensor : gguf->tensors) {
      ASSERT_LE(tensor.offset + tensor.n_bytes, damaged.size());
    }
    for (const auto& [key, value] : gguf->metadata) {
      if (const auto* list = std::get_if<GgufArray>(&value)) {
        uint64_t n = 0;
        list->for_each([&](const GgufScalar&) { ++n; });
        ASSERT_EQ(n, list->size());
      }
    }
  }
}

}  // namespace
}  // namespace nosa
