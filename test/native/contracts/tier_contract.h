// What every tier must do, whatever it is made of. Include it, instantiate TierContract over
// factories that make an empty tier with room for `kContractSlots` extents of `kContractExtent` bytes.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "kv/page_memory.h"
#include "kv/tier.h"

namespace nosa {

inline constexpr size_t kContractExtent = 8192;
inline constexpr int kContractSlots = 64;

using TierFactory = std::function<std::unique_ptr<Tier>()>;

class TierContract : public testing::TestWithParam<TierFactory> {
 protected:
  std::unique_ptr<Tier> tier = GetParam()();
  std::mt19937_64 rng{std::random_device{}()};
  PageMemory pages = PageMemory::map(kContractExtent * kContractSlots).value();

  std::byte* page(int i) { return pages.data() + size_t(i) * kContractExtent; }

  void fill(int i) {
    for (size_t at = 0; at < kContractExtent; at += 8) {
      const uint64_t value = rng();
      std::memcpy(page(i) + at, &value, 8);
    }
  }
  std::vector<std::byte> copy(int i) { return {page(i), page(i) + kContractExtent}; }
};

TEST_P(TierContract, GivesBackTheBytesItTookWhateverTheOrder) {
  std::vector<TierSlot> slots;
  std::vector<std::vector<std::byte>> expected;
  std::vector<TierTransfer> transfers;
  for (int i = 0; i < kContractSlots; ++i) {
    slots.push_back(tier->take().value());
    fill(i);
    expected.push_back(copy(i));
    transfers.push_back({slots[i], page(i)});
  }
  EXPECT_EQ(tier->n_taken(), size_t(kContractSlots));
  ASSERT_TRUE(tier->write(transfers).ok());

  std::memset(pages.data(), 0xA5, kContractExtent * kContractSlots);
  std::shuffle(transfers.begin(), transfers.end(), rng);
  ASSERT_TRUE(tier->read(transfers).ok());
  for (int i = 0; i < kContractSlots; ++i) EXPECT_EQ(copy(i), expected[i]) << "slot " << i;
  for (const TierSlot slot : slots) tier->release(slot);
  EXPECT_EQ(tier->n_taken(), 0u);
}

TEST_P(TierContract, AReleasedSlotCanBeTakenAgainAndOthersKeepTheirBytes) {
  const TierSlot kept = tier->take().value();
  fill(0);
  const auto expected = copy(0);
  const TierTransfer transfer{kept, page(0)};
  ASSERT_TRUE(tier->write({&transfer, 1}).ok());
  for (int round = 0; round < 200; ++round) {
    const TierSlot other = tier->take().value();
    fill(1);
    const TierTransfer noise{other, page(1)};
    ASSERT_TRUE(tier->write({&noise, 1}).ok());
    tier->release(other);
  }
  std::memset(page(0), 0xA5, kContractExtent);
  ASSERT_TRUE(tier->read({&transfer, 1}).ok());
  EXPECT_EQ(copy(0), expected);
}

TEST_P(TierContract, SaysSoWhenItIsFull) {
  std::vector<TierSlot> slots;
  for (;;) {
    const Result<TierSlot> slot = tier->take();
    if (!slot.ok()) {
      EXPECT_TRUE(slot.status().code() == StatusCode::kOutOfMemory ||
                  slot.status().code() == StatusCode::kNoSpace);
      break;
    }
    slots.push_back(*slot);
    ASSERT_LT(slots.size(), 10000u);
  }
  EXPECT_GE(slots.size(), size_t(kContractSlots));
  tier->release(slots.back());
  EXPECT_TRUE(tier->take().ok());
}

TEST_P(TierContract, WritesBehindTheCallersBackWhileItReadsAndTakes) {
  for (int round = 0; round < 20; ++round) {
    std::vector<TierSlot> slots;
    std::vector<TierTransfer> transfers;
    std::vector<std::vector<std::byte>> expected;
    for (int i = 0; i < kContractSlots / 2; ++i) {
      slots.push_back(tier->take().value());
      fill(i);
      expected.push_back(copy(i));
      transfers.push_back({slots[i], page(i)});
    }
    const std::span<const TierTransfer> all(transfers);
    ASSERT_TRUE(tier->write(all.first(8)).ok());
    tier->start_writing(all.subspan(8));
    const TierTransfer early{slots[round % 8], page(kContractSlots - 1)};
    ASSERT_TRUE(tier->read({&early, 1}).ok());
    EXPECT_EQ(copy(kContractSlots - 1), expected[round % 8]);
    slots.push_back(tier->take().value());
    ASSERT_TRUE(tier->finish_writing().ok());
    EXPECT_FALSE(tier->is_writing());
    std::memset(pages.data(), 0xA5, kContractExtent * kContractSlots);
    ASSERT_TRUE(tier->read(transfers).ok());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(copy(int(i)), expected[i]) << "slot " << i;
    for (const TierSlot slot : slots) tier->release(slot);
  }
}

TEST_P(TierContract, NoTransfersAreFine) {
  EXPECT_TRUE(tier->read({}).ok());
  EXPECT_TRUE(tier->write({}).ok());
}

}  // namespace nosa
