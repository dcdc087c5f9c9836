// Times blocks on their way from and to disk, with no model.
//
//   bench_store FOLDER [n_rounds]
//
// Reading: what every query of a 32 k context attends to (the shape of Qwen2.5-Coder 0.5B, 32 blocks for
// each layer and KV head), a layer at a time as a step wants it, beside all of it ahead of the step.
// Writing: blocks that no file holds go to disk, one for each step, when their place is needed, beside
// ahead of need; between two steps there is work, as there is in a model.
//
// What is compared alternates. Transfers pass by the page cache where the file system of FOLDER allows.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "kv/block_store.h"
#include "kv/disk_tier.h"
#include "kv/page_memory.h"
#include "kv/xxh64.h"

namespace nosa {
namespace {

constexpr KvShape shape{.n_layers = 24, .n_kv_heads = 2, .head_dim = 64, .dtype = DType::kF16};
constexpr int n_blocks = 512;
constexpr int n_chosen = 32;
const size_t extent_bytes = shape.extent_bytes();

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

DiskTierOptions disk_options(const std::string& folder) {
  return {.extent_bytes = extent_bytes, .spill_folder = folder, .spill_bytes_max = size_t(1) << 33};
}

/// The saved extents of a context, [n_blocks, n_layers, n_kv_heads].
struct Saved {
  std::string path;
  std::vector<uint64_t> checksums;

  explicit Saved(const std::string& folder) : path(folder + "/bench_store.kv") {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr);
    std::mt19937_64 rng(1);
    PageMemory extent = PageMemory::map(extent_bytes).value();
    for (int i = 0; i < n_blocks * shape.extents_per_block(); ++i) {
      for (size_t at = 0; at < extent_bytes; at += 8) {
        const uint64_t value = rng();
        std::memcpy(extent.data() + at, &value, 8);
      }
      checksums.push_back(xxh64({extent.data(), extent_bytes}));
      CHECK(std::fwrite(extent.data(), extent_bytes, 1, file) == 1);
    }
    CHECK(std::fclose(file) == 0);
  }
  ~Saved() { std::remove(path.c_str()); }
};

/// Milliseconds until a step has what every query attends to, in all layers.
double read_step(const Saved& saved, const std::string& folder, const std::vector<std::vector<int>>& chosen, bool ahead) {
  DiskTier disk(disk_options(folder));
  BlockStore store({.extent_bytes = extent_bytes}, &disk);
  const auto file = disk.open_file(saved.path).value();
  std::vector<BlockId> blocks;
  for (size_t i = 0; i < saved.checksums.size(); ++i) {
    blocks.push_back(store.adopt(disk.adopt(file, int64_t(i * extent_bytes), saved.checksums[i])));
  }
  std::vector<std::vector<BlockId>> wanted(size_t(shape.n_layers));
  std::vector<size_t> all;
  for (size_t i = 0; i < chosen.size(); ++i) {
    for (const int block : chosen[i]) {
      const size_t at = size_t(block) * chosen.size() + i;
      wanted[i / size_t(shape.n_kv_heads)].push_back(blocks[at]);
      all.push_back(at);
    }
  }
  std::sort(all.begin(), all.end());
  const double start = now();
  store.begin_step();
  if (ahead) {
    std::vector<BlockId> ids;
    for (const size_t at : all) ids.push_back(blocks[at]);
    CHECK(store.prefetch(ids).value() == ids.size());
  }
  for (const auto& layer : wanted) {
    store.begin_step();
    CHECK(store.make_resident(layer).ok());
  }
  const double seconds = now() - start;
  for (const BlockId block : blocks) store.release(block);
  return 1e3 * seconds;
}

/// Microseconds of a step that takes a new block in a full memory, its work not counted.
double write_steps(const std::string& folder, bool behind) {
  constexpr int n_steps = 2000;
  DiskTier disk(disk_options(folder));
  BlockStore store({.extent_bytes = extent_bytes, .bytes_max = 1024 * extent_bytes, .writes_behind = behind}, &disk);
  std::vector<BlockId> blocks;
  std::vector<std::byte> work(1 << 20);
  double seconds = 0;
  for (int i = 0; i < 1024 + n_steps; ++i) {
    const double start = now();
    store.begin_step();
    blocks.push_back(store.hold().value());
    if (i >= 1024) seconds += now() - start;
    std::memset(store.data(blocks.back()), i & 0xff, extent_bytes);
    if (xxh64(work) == 0) std::printf("\n");
  }
  for (const BlockId block : blocks) store.release(block);
  return 1e6 * seconds / n_steps;
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store FOLDER [n_rounds]\n");
    return 2;
  }
  const std::string folder = argv[1];
  const int n_rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  const Saved saved(folder);
  std::mt19937 rng(2);
  std::vector<double> demand, ahead, at_once, behind;
  for (int round = 0; round < n_rounds; ++round) {
    // Each layer and KV head chooses for itself: the fewest neighbours in the file.
    std::vector<std::vector<int>> chosen(size_t(shape.extents_per_block()));
    for (auto& each : chosen) {
      std::vector<int> order(n_blocks);
      for (int b = 0; b < n_blocks; ++b) order[size_t(b)] = b;
      std::shuffle(order.begin() + 1, order.end(), rng);
      each.assign(order.begin(), order.begin() + n_chosen);
    }
    demand.push_back(read_step(saved, folder, chosen, false));
    ahead.push_back(read_step(saved, folder, chosen, true));
    at_once.push_back(write_steps(folder, false));
    behind.push_back(write_steps(folder, true));
  }
  const double megabytes = double(n_chosen) * shape.extents_per_block() * double(extent_bytes) / 1e6;
  std::printf("%.0f MB for a step, layer by layer: %.1f ms; ahead, in the order of the file: %.1f ms\n", megabytes,
              median(demand), median(ahead));
  std::printf("a place for a new block: %.1f us when it is needed, %.1f us when written behind\n", median(at_once),
              median(behind));
  return 0;
}

}  // namespace
}  // namespace nosa

int main(int argc, char** argv) { return nosa::run(argc, argv); }
