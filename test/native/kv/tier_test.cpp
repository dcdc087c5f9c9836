#include "contracts/tier_contract.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kv/disk_tier.h"
#include "kv/host_tier.h"
#include "kv/xxh64.h"

namespace nosa {
namespace {

std::string temp_folder() { return std::filesystem::temp_directory_path().string(); }

DiskTierOptions disk_options(int n_readers = 4) {
  return {.extent_bytes = kContractExtent,
          .spill_folder = temp_folder(),
          .spill_bytes_max = kContractExtent * kContractSlots,
          .n_readers = n_readers};
}

INSTANTIATE_TEST_SUITE_P(
    Tiers, TierContract,
    testing::Values(
        TierFactory([] { return std::make_unique<HostTier>(kContractExtent, kContractExtent * kContractSlots); }),
        TierFactory([] { return std::make_unique<DiskTier>(disk_options()); }),
        TierFactory([] { return std::make_unique<DiskTier>(disk_options(0)); })));

#ifdef __linux__
/// What Linux says of the mapping that holds `address`, such as "rd wr mr"; empty where it says nothing.
std::string mapping_flags(const std::byte* address) {
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream words(line);
    if (words >> std::hex >> begin >> dash >> end && dash == '-') {
      inside = begin <= uintptr_t(address) && uintptr_t(address) < end;
    } else if (inside && line.starts_with("VmFlags:")) {
      return line.substr(8);
    }
  }
  return "";
}

TEST(PageMemory, IsNotCopiedIntoProgramsThatAreStarted) {
  const PageMemory pages = PageMemory::map(size_t(1) << 20).value();
  const std::string flags = mapping_flags(pages.data());
  if (flags.empty()) GTEST_SKIP() << "this system does not tell";
  EXPECT_NE(flags.find(" dc"), std::string::npos) << flags;
}
#endif

/// A file of random extents and their checksums.
struct Saved {
  std::string path = temp_folder() + "/nosa-tier-test-" + std::to_string(::getpid());
  PageMemory pages = PageMemory::map(kContractExtent * 8).value();
  std::vector<uint64_t> checksums;

  Saved() {
    std::mt19937 rng(std::random_device{}());
    for (size_t i = 0; i < kContractExtent * 8; ++i) pages.data()[i] = std::byte(rng());
    for (int i = 0; i < 8; ++i) checksums.push_back(xxh64({pages.data() + i * kContractExtent, kContractExtent}));
    std::FILE* file = std::fopen(path.c_str(), "wb");
    EXPECT_EQ(std::fwrite(pages.data(), kContractExtent, 8, file), 8u);
    std::fclose(file);
  }
  ~Saved() { ::unlink(path.c_str()); }

  void flip_byte(int64_t offset) {
    const int handle = ::open(path.c_str(), O_RDWR);
    char byte = 0;
    EXPECT_EQ(::pread(handle, &byte, 1, offset), 1);
    byte = char(byte ^ 0x10);
    EXPECT_EQ(::pwrite(handle, &byte, 1, offset), 1);
    ::fsync(handle);
    ::close(handle);
  }
};

TEST(DiskTier, AdoptedExtentsAreReadFromWhereTheyLie) {
  Saved saved;
  DiskTier tier(disk_options());
  const auto file = tier.open_file(saved.path).value();
  PageMemory into = PageMemory::map(kContractExtent * 8).value();
  std::vector<TierTransfer> transfers;
  for (int i = 7; i >= 0; --i) {
    const TierSlot slot = tier.adopt(file, int64_t(i) * kContractExtent, saved.checksums[i]);
    transfers.push_back({slot, into.data() + i * kContractExtent});
  }
  ASSERT_TRUE(tier.read(transfers).ok());
  EXPECT_EQ(std::memcmp(into.data(), saved.pages.data(), kContractExtent * 8), 0);
  EXPECT_EQ(tier.bytes_read(), kContractExtent * 8);
  for (const auto& transfer : transfers) tier.release(transfer.slot);
  EXPECT_EQ(tier.n_taken(), 0u);
}

TEST(DiskTier, AFlippedBitIsNoticedAndTheOtherExtentsStayReadable) {
  Saved saved;
  saved.flip_byte(3 * kContractExtent + 77);
  DiskTier tier(disk_options());
  const auto file = tier.open_file(saved.path).value();
  PageMemory into = PageMemory::map(kContractExtent).value();
  for (int i = 0; i < 8; ++i) {
    const TierTransfer transfer{tier.adopt(file, int64_t(i) * kContractExtent, saved.checksums[i]), into.data()};
    const Status status = tier.read({&transfer, 1});
    EXPECT_EQ(status.ok(), i != 3);
    if (i == 3) {
      EXPECT_EQ(status.code(), StatusCode::kCorrupt);
      EXPECT_NE(status.message().find(saved.path), std::string::npos);
    }
  }
}

TEST(DiskTier, AFileThatWasCutOffIsCorrupt) {
  Saved saved;
  ASSERT_EQ(::truncate(saved.path.c_str(), kContractExtent * 2 + 100), 0);
  DiskTier tier(disk_options());
  const auto file = tier.open_file(saved.path).value();
  PageMemory into = PageMemory::map(kContractExtent).value();
  const TierTransfer transfer{tier.adopt(file, 2 * int64_t(kContractExtent), saved.checksums[2]), into.data()};
  EXPECT_EQ(tier.read({&transfer, 1}).code(), StatusCode::kCorrupt);
}

TEST(DiskTier, AMissingFileOrFolderIsSaid) {
  DiskTier tier(disk_options());
  EXPECT_EQ(tier.open_file(temp_folder() + "/no/such/file").status().code(), StatusCode::kNotFound);
  DiskTierOptions options = disk_options();
  options.spill_folder = temp_folder() + "/no/such/folder";
  DiskTier nowhere(options);
  EXPECT_EQ(nowhere.take().status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace nosa
