#include "session/segment_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "kv/xxh64.h"
#include "support/random.h"
#include "support/temp_folder.h"

namespace nosa::test {
namespace {

const KvShape shape{2, 3, 24, DType::kF16};

TEST(Xxh64, AgreesWithThePublishedVectors) {
  // Of the xxHash specification's reference implementation: its test bytes, several lengths.
  const auto hash = [](std::string_view text, uint64_t seed) {
    return xxh64(std::as_bytes(std::span(text)), seed);
  };
  EXPECT_EQ(hash("", 0), 0xEF46DB3751D8E999u);
  EXPECT_EQ(hash("a", 0), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(hash("abc", 0), 0x44BC2CF5AD770999u);
  EXPECT_EQ(hash("", 1), 0xD5AFBA1336A3BE4Bu);
  EXPECT_EQ(hash("Nobody inspects the spammish repetition", 0), 0xFBCEA83C8A378BF1u);
}

TEST(SegmentFile, ExtentsLieWhereTheIndexSaysAndCarryNothingElse) {
  Random random;
  const TempFolder folder;
  const std::string path = folder.path_of("segment");
  const SegmentIdentity identity{shape, 17, "key"};
  Result<SegmentWriter> writer = SegmentWriter::create(path, identity);
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE(std::filesystem::exists(path));  // Until it is finished.

  const size_t per_block = size_t(shape.extents_per_block());
  const size_t row_bytes = size_t(shape.head_dim) * shape.value_bytes();
  std::vector<uint32_t> tokens(100);
  std::iota(tokens.begin(), tokens.end(), 1u);
  std::vector<Bytes> extents;
  for (size_t i = 0; i < 2 * per_block; ++i) {
    extents.push_back(random.bytes(int64_t(shape.extent_bytes())));
  }
  for (int block = 0; block < 2; ++block) {
    std::vector<const std::byte*> pointers;
    for (size_t i = 0; i < per_block; ++i) pointers.push_back(extents[block * per_block + i].data());
    const size_t n = block == 0 ? 64 : 36;
    ASSERT_TRUE(writer->append(std::span(tokens).subspan(size_t(block) * 64, n), pointers).ok());
  }
  // A side-car of no tokens contradicts the index, which is then refused.
  ASSERT_TRUE(writer->finish(SideCar(shape)).ok());
  EXPECT_EQ(writer->checksums().size(), 2 * per_block);
  EXPECT_EQ(read_segment_index(path, identity).status().code(), StatusCode::kCorrupt);

  std::ifstream in(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)), {});
  for (size_t i = 0; i < 2 * per_block; ++i) {
    const size_t offset = size_t(SegmentIndex::extent_offset(shape, i));
    EXPECT_EQ(offset % KvShape::page_bytes, 0u);
    const std::string_view lies = std::string_view(file).substr(offset, shape.extent_bytes());
    EXPECT_EQ(xxh64(std::as_bytes(std::span(lies))), writer->checksums()[i]);
    const size_t n_rows = i < per_block ? 64 : 36;
    for (const size_t half : {size_t(0), row_bytes * 64}) {
      EXPECT_EQ(lies.substr(half, n_rows * row_bytes),
                text_of(extents[i]).substr(half, n_rows * row_bytes));
      const std::string_view rest = lies.substr(half + n_rows * row_bytes, (64 - n_rows) * row_bytes);
      EXPECT_EQ(rest.find_first_not_of('\0'), std::string_view::npos);
    }
    EXPECT_EQ(lies.substr(128 * row_bytes).find_first_not_of('\0'), std::string_view::npos);
  }
}

TEST(SegmentFile, WhatIsNotFinishedLeavesNothing) {
  const TempFolder folder;
  {
    Result<SegmentWriter> writer = SegmentWriter::create(folder.path_of("s"), {shape, 0, "k"});
    ASSERT_TRUE(writer.ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SegmentFile, AnEmptyOneIsAFileToo) {
  const TempFolder folder;
  const SegmentIdentity identity{shape, 0, std::string(5000, 'k')};
  Result<SegmentWriter> writer = SegmentWriter::create(folder.path_of("s"), identity);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->finish(SideCar(shape)).ok());
  const Result<SegmentIndex> index = read_segment_index(folder.path_of("s"), identity);
  ASSERT_TRUE(index.ok()) << index.status().message();
  EXPECT_TRUE(index->tokens.empty());
  EXPECT_TRUE(index->checksums.empty());
}

}  // namespace
}  // namespace nosa::test
