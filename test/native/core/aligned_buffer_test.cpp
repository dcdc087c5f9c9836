#include "core/aligned_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace nosa {
namespace {

TEST(AlignedBuffer, IsZeroedAndAligned) {
  for (const size_t alignment : {size_t{64}, size_t{4096}, size_t{1} << 21}) {
    auto buffer = AlignedBuffer::create(1001, alignment);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(buffer->bytes().size(), 1001u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->bytes().data()) % alignment, 0u);
    EXPECT_TRUE(std::all_of(buffer->bytes().begin(), buffer->bytes().end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_EQ(buffer->as<uint64_t>().size(), 125u);
  }
}

TEST(AlignedBuffer, MayBeEmpty) {
  auto buffer = AlignedBuffer::create(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_TRUE(buffer->bytes().empty());
  EXPECT_TRUE(buffer->as<float>().empty());
}

TEST(AlignedBuffer, MovesItsMemory) {
  auto made = AlignedBuffer::create(64);
  ASSERT_TRUE(made.ok());
  AlignedBuffer first = *std::move(made);
  const std::byte* data = first.bytes().data();
  AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.bytes().data(), data);
  AlignedBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), data);
}

TEST(AlignedBuffer, SaysWhenThereIsNotEnoughMemory) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer aborts on such a request";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the address sanitizer aborts on such a request";
#endif
#endif
  const auto buffer = AlignedBuffer::create(size_t{1} << 62);
  EXPECT_EQ(buffer.status().code(), StatusCode::kOutOfMemory);
}

}  // namespace
}  // namespace nosa
