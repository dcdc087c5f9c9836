#include "kv/block_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <random>

#include "kv/disk_tier.h"

namespace nosa {
namespace {

constexpr size_t kExtent = 4096;
constexpr size_t kSlabBytes = kExtent * HostTier::slab_slots;

DiskTierOptions disk_options(size_t spill_bytes_max) {
  return {.extent_bytes = kExtent,
          .spill_folder = std::filesystem::temp_directory_path().string(),
          .spill_bytes_max = spill_bytes_max,
          .n_readers = 2};
}

void stamp(std::byte* extent, uint64_t value) {
  for (size_t at = 0; at < kExtent; at += 8) std::memcpy(extent + at, &value, 8);
}

bool has_stamp(const std::byte* extent, uint64_t value) {
  for (size_t at = 0; at < kExtent; at += 8) {
    if (std::memcmp(extent + at, &value, 8) != 0) return false;
  }
  return true;
}

TEST(BlockStore, WithoutATierBelowTheLimitIsTheLimit) {
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes});
  std::vector<BlockId> held;
  for (int i = 0; i < HostTier::slab_slots; ++i) held.push_back(store.hold().value());
  EXPECT_EQ(store.hold().status().code(), StatusCode::kOutOfMemory);
  store.release(held.back());
  held.back() = store.hold().value();
  store.check_integrity();
  for (const BlockId block : held) store.release(block);
  EXPECT_EQ(store.mapped_bytes(), 0u);
  store.check_integrity();
}

TEST(BlockStore, AForkCopiesABlockWhenOneOfThemWrites) {
  BlockStore store({.extent_bytes = kExtent});
  const BlockId block = store.hold().value();
  stamp(store.data(block), 1);
  store.retain(block);
  const BlockId copy = store.make_private(block).value();
  EXPECT_NE(copy, block);
  stamp(store.data(copy), 2);
  EXPECT_TRUE(has_stamp(store.data(block), 1));
  EXPECT_EQ(store.make_private(block).value(), block);
  store.check_integrity();
}

TEST(BlockStore, BlocksBeyondTheLimitComeBackWithTheirBytes) {
  DiskTier disk(disk_options(kExtent * 4096));
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes}, &disk);
  std::vector<BlockId> blocks;
  for (uint64_t i = 0; i < 500; ++i) {
    store.begin_step();
    blocks.push_back(store.hold().value());
    stamp(store.data(blocks.back()), i);
    ASSERT_LE(store.mapped_bytes(), kSlabBytes);
  }
  store.check_integrity();
  std::mt19937 rng(std::random_device{}());
  for (int round = 0; round < 300; ++round) {
    store.begin_step();
    std::vector<BlockId> wanted;
    std::vector<uint64_t> values;
    for (int i = 0; i < 32; ++i) {
      values.push_back(rng() % blocks.size());
      wanted.push_back(blocks[values.back()]);
    }
    ASSERT_TRUE(store.make_resident(wanted).ok());
    for (size_t i = 0; i < wanted.size(); ++i) ASSERT_TRUE(has_stamp(store.data(wanted[i]), values[i]));
  }
  EXPECT_GT(store.n_loaded(), 0u);
  for (const BlockId block : blocks) store.release(block);
  EXPECT_EQ(disk.n_taken(), 0u);
  EXPECT_EQ(store.mapped_bytes(), 0u);
  store.check_integrity();
}

TEST(BlockStore, AStepThatNeedsMoreThanFitsFailsAndChangesNothing) {
  DiskTier disk(disk_options(kExtent * 4096));
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes}, &disk);
  std::vector<BlockId> blocks;
  for (uint64_t i = 0; i < 200; ++i) {
    store.begin_step();
    blocks.push_back(store.hold().value());
    stamp(store.data(blocks.back()), i);
  }
  store.begin_step();
  EXPECT_EQ(store.make_resident(blocks).code(), StatusCode::kOutOfMemory);
  store.check_integrity();
  store.begin_step();
  ASSERT_TRUE(store.make_resident({&blocks[7], 1}).ok());
  EXPECT_TRUE(has_stamp(store.data(blocks[7]), 7));
}

TEST(BlockStore, AWriteMakesTheCopyBelowStale) {
  DiskTier disk(disk_options(kExtent * 4096));
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes}, &disk);
  const BlockId block = store.hold().value();
  stamp(store.data(block), 1);
  auto push_out = [&] {
    std::vector<BlockId> fillers;
    for (int i = 0; i < 2 * HostTier::slab_slots; ++i) {
      store.begin_step();
      fillers.push_back(store.hold().value());
    }
    EXPECT_FALSE(store.resident(block));
    for (const BlockId filler : fillers) store.release(filler);
  };
  push_out();
  store.begin_step();
  ASSERT_EQ(store.make_private(block).value(), block);
  EXPECT_TRUE(has_stamp(store.data(block), 1));
  stamp(store.data(block), 2);
  push_out();
  store.begin_step();
  ASSERT_TRUE(store.make_resident({&block, 1}).ok());
  EXPECT_TRUE(has_stamp(store.data(block), 2));
  store.check_integrity();
}

TEST(BlockStore, AFullDiskIsAnErrorAndLosesNothing) {
  DiskTier disk(disk_options(kExtent * 10));
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes}, &disk);
  std::vector<BlockId> blocks;
  Status status;
  for (uint64_t i = 0; i < 500 && status.ok(); ++i) {
    store.begin_step();
    const Result<BlockId> block = store.hold();
    status = block.status();
    if (!block.ok()) break;
    blocks.push_back(*block);
    stamp(store.data(*block), i);
  }
  EXPECT_EQ(status.code(), StatusCode::kNoSpace);
  EXPECT_EQ(blocks.size(), size_t(HostTier::slab_slots) + 10);
  EXPECT_EQ(store.prefetch(std::span<const BlockId>(blocks).first(5)).value(), 0u);
  store.check_integrity();
  int n_right = 0;
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    if (store.resident(blocks[i])) n_right += has_stamp(store.data(blocks[i]), i);
  }
  EXPECT_EQ(n_right, HostTier::slab_slots);
}

TEST(BlockStore, ALowerLimitPutsOutWhatIsTooMuch) {
  DiskTier disk(disk_options(kExtent * 4096));
  BlockStore store({.extent_bytes = kExtent}, &disk);
  std::vector<BlockId> blocks;
  for (uint64_t i = 0; i < 300; ++i) {
    blocks.push_back(store.hold().value());
    stamp(store.data(blocks.back()), i);
  }
  ASSERT_TRUE(store.limit(2 * kSlabBytes).ok());
  EXPECT_LE(store.mapped_bytes(), 2 * kSlabBytes);
  store.check_integrity();
  for (uint64_t i = 0; i < 300; ++i) {
    store.begin_step();
    ASSERT_TRUE(store.make_resident({&blocks[i], 1}).ok());
    ASSERT_TRUE(has_stamp(store.data(blocks[i]), i));
    ASSERT_LE(store.mapped_bytes(), 2 * kSlabBytes);
  }
  BlockStore alone({.extent_bytes = kExtent});
  (void)alone.hold().value();
  EXPECT_EQ(alone.limit(1).code(), StatusCode::kOutOfMemory);
}

/// A store with `n` blocks of which only the last fit into memory.
struct Spilled {
  explicit Spilled(uint64_t n, bool writes_behind = true)
      : store({.extent_bytes = kExtent, .bytes_max = kSlabBytes, .writes_behind = writes_behind}, &disk) {
    for (uint64_t i = 0; i < n; ++i) {
      store.begin_step();
      blocks.push_back(store.hold().value());
      stamp(store.data(blocks.back()), i);
    }
  }
  DiskTier disk{disk_options(kExtent * 4096)};
  BlockStore store;
  std::vector<BlockId> blocks;
};

TEST(BlockStore, PrefetchedBlocksAreThereAndCountedApart) {
  Spilled spilled(200);
  BlockStore& store = spilled.store;
  const std::span<const BlockId> wanted(spilled.blocks.data(), 40);
  store.begin_step();
  EXPECT_EQ(store.prefetch(wanted).value(), 40u);
  EXPECT_EQ(store.prefetch(wanted).value(), 0u);
  store.check_integrity();
  EXPECT_EQ(store.n_prefetched(), 40u);
  EXPECT_EQ(store.n_prefetched_used(), 0u);
  EXPECT_EQ(store.n_loaded(), 0u);
  store.begin_step();
  ASSERT_TRUE(store.make_resident(wanted.first(30)).ok());
  ASSERT_TRUE(store.make_resident(wanted.first(30)).ok());
  EXPECT_EQ(store.n_prefetched_used(), 30u);
  EXPECT_EQ(store.n_loaded(), 0u);
  for (uint64_t i = 0; i < 30; ++i) EXPECT_TRUE(has_stamp(store.data(wanted[i]), i));
}

TEST(BlockStore, PrefetchTakesWhatFitsAndNothingThatIsInUse) {
  Spilled spilled(200);
  BlockStore& store = spilled.store;
  store.begin_step();
  const std::span<const BlockId> in_use(spilled.blocks.data() + 100, 50);
  ASSERT_TRUE(store.make_resident(in_use).ok());
  const size_t n_fit = HostTier::slab_slots - in_use.size();
  EXPECT_EQ(store.prefetch(std::span<const BlockId>(spilled.blocks).first(90)).value(), n_fit);
  for (uint64_t i = 0; i < 50; ++i) ASSERT_TRUE(has_stamp(store.data(in_use[i]), 100 + i));
  for (uint64_t i = 0; i < 90; ++i) EXPECT_EQ(store.resident(spilled.blocks[i]), i < n_fit);
  store.check_integrity();
}

TEST(BlockStore, WritingBehindLeavesLittleToWriteWhenAPlaceIsNeeded) {
  Spilled behind(1000);
  EXPECT_GT(behind.store.n_written_behind(), 3 * behind.store.n_put_out());
  Spilled at_once(1000, false);
  EXPECT_EQ(at_once.store.n_written_behind(), 0u);
  EXPECT_EQ(at_once.store.n_put_out(), 1000u - HostTier::slab_slots);
  for (Spilled* each : {&behind, &at_once}) {
    for (uint64_t i = 0; i < 1000; ++i) {
      each->store.begin_step();
      ASSERT_TRUE(each->store.make_resident({&each->blocks[i], 1}).ok());
      ASSERT_TRUE(has_stamp(each->store.data(each->blocks[i]), i));
    }
    each->store.check_integrity();
  }
}

/// A disk tier whose writes can be made to fail.
class FailingTier final : public Tier {
 public:
  bool fails = false;

  std::string_view name() const override { return "failing"; }
  size_t extent_bytes() const override { return disk_.extent_bytes(); }
  size_t n_taken() const override { return disk_.n_taken(); }
  Result<TierSlot> take() override { return disk_.take(); }
  void release(TierSlot slot) override { disk_.release(slot); }
  Status write(std::span<const TierTransfer> transfers) override {
    return fails ? failure() : disk_.write(transfers);
  }
  Status read(std::span<const TierTransfer> transfers) override { return disk_.read(transfers); }
  void start_writing(std::span<const TierTransfer> transfers) override {
    failed_ = fails;
    if (!failed_) disk_.start_writing(transfers);
  }
  bool is_writing() const override { return !failed_ && disk_.is_writing(); }
  Status finish_writing() override { return failed_ ? failure() : disk_.finish_writing(); }
  std::byte* address(TierSlot) override { return nullptr; }

 private:
  static Status failure() { return Status::no_space("The disk is full."); }

  DiskTier disk_{disk_options(kExtent * 4096)};
  bool failed_ = false;
};

TEST(BlockStore, AWriteThatFailedBehindIsTriedAgainAndTold) {
  FailingTier tier;
  BlockStore store({.extent_bytes = kExtent, .bytes_max = kSlabBytes}, &tier);
  std::vector<BlockId> blocks;
  std::mt19937 rng(std::random_device{}());
  int n_refused = 0;
  for (int round = 0; round < 2000; ++round) {
    if (rng() % 40 == 0) tier.fails = !tier.fails;
    store.begin_step();
    const Result<BlockId> block = store.hold();
    if (!block.ok()) {
      EXPECT_EQ(block.status().code(), StatusCode::kNoSpace);
      n_refused += 1;
      tier.fails = false;
      continue;
    }
    stamp(store.data(*block), blocks.size());
    blocks.push_back(*block);
    if (round % 50 == 0) store.check_integrity();
  }
  EXPECT_GT(n_refused, 0);
  EXPECT_GT(store.n_written_behind(), 0u);
  tier.fails = false;
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    store.begin_step();
    ASSERT_TRUE(store.make_resident({&blocks[i], 1}).ok());
    ASSERT_TRUE(has_stamp(store.data(blocks[i]), i));
  }
  for (const BlockId block : blocks) store.release(block);
  EXPECT_EQ(tier.n_taken(), 0u);
}

// A model of the store that never forgets, against random operations.
TEST(BlockStore, BooksBalanceAndBytesHoldOverRandomOperations) {
  DiskTier disk(disk_options(kExtent * 4096));
  BlockStore store({.extent_bytes = kExtent, .bytes_max = 2 * kSlabBytes}, &disk);
  std::mt19937_64 rng(std::random_device{}());
  struct Handle {
    BlockId block;
    uint64_t value;
  };
  std::vector<Handle> handles;
  for (int round = 0; round < 5000; ++round) {
    store.begin_step();
    const auto pick = [&]() -> Handle& { return handles[rng() % handles.size()]; };
    switch (handles.empty() ? 0 : rng() % 6) {
      case 0: {
        const uint64_t value = rng();
        handles.push_back({store.hold().value(), value});
        stamp(store.data(handles.back().block), value);
        break;
      }
      case 1: {
        Handle& handle = pick();
        store.retain(handle.block);
        handles.push_back(Handle(handle));
        break;
      }
      case 2: {
        Handle& handle = pick();
        handle.block = store.make_private(handle.block).value();
        handle.value = rng();
        stamp(store.data(handle.block), handle.value);
        break;
      }
      case 3: {
        Handle& handle = pick();
        ASSERT_TRUE(store.make_resident({&handle.block, 1}).ok());
        ASSERT_TRUE(has_stamp(store.data(handle.block), handle.value));
        break;
      }
      case 4: {
        std::vector<BlockId> wanted;
        for (int i = 0; i < 20; ++i) wanted.push_back(pick().block);
        ASSERT_TRUE(store.prefetch(wanted).ok());
        break;
      }
      default: {
        if (handles.size() < 300) break;
        Handle& handle = pick();
        store.release(handle.block);
        handle = handles.back();
        handles.pop_back();
      }
    }
    if (round % 50 == 0) store.check_integrity();
  }
  for (const Handle& handle : handles) {
    store.begin_step();
    ASSERT_TRUE(store.make_resident({&handle.block, 1}).ok());
    ASSERT_TRUE(has_stamp(store.data(handle.block), handle.value));
    store.release(handle.block);
  }
  store.check_integrity();
  EXPECT_EQ(disk.n_taken(), 0u);
}

}  // namespace
}  // namespace nosa
