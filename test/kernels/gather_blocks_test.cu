// link: kernels/gather_blocks.cu
#include <memory>

#include "gather_blocks.h"
#include "harness.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Setup {
  Setup(int n_seqs, int n_kv_heads, size_t extent_bytes, int n_pages, int n_slots)
      : n_seqs(n_seqs),
        n_kv_heads(n_kv_heads),
        extent_bytes(extent_bytes),
        n_pages(n_pages),
        n_slots(n_slots),
        host(extent_bytes / 4 * n_kv_heads * n_pages),
        slots(size_t(n_seqs) * n_kv_heads * n_slots * extent_bytes / 4),
        lanes(size_t(n_seqs)),
        load_pages(size_t(n_seqs) * n_kv_heads * n_slots, -1),
        load_slots(load_pages),
        n_loads(size_t(n_seqs) * n_kv_heads, 0) {
    // Page-major, as host memory is: the heads of a page lie together.
    p.pages = {reinterpret_cast<std::byte*>(host.data()), 0, extent_bytes,
               extent_bytes * n_kv_heads};
    p.slots = {reinterpret_cast<std::byte*>(slots.data()), extent_bytes * n_slots * n_kv_heads,
               extent_bytes * n_slots, extent_bytes};
    p.extent_bytes = extent_bytes;
    p.n_seqs = n_seqs, p.n_kv_heads = n_kv_heads, p.n_loads_max = n_slots;
  }
  void upload() {
    d_lanes = std::make_unique<Device<int32_t>>(lanes);
    d_pages = std::make_unique<Device<int32_t>>(load_pages);
    d_slots = std::make_unique<Device<int32_t>>(load_slots);
    d_n = std::make_unique<Device<int32_t>>(n_loads);
    p.lanes = d_lanes->data(), p.load_pages = d_pages->data(), p.load_slots = d_slots->data(),
    p.n_loads = d_n->data();
  }

  int n_seqs, n_kv_heads;
  size_t extent_bytes;
  int n_pages, n_slots;
  Mapped<uint32_t> host;
  Device<uint32_t> slots;
  std::vector<int32_t> lanes, load_pages, load_slots, n_loads;
  std::unique_ptr<Device<int32_t>> d_lanes, d_pages, d_slots, d_n;
  cuda::GatherBlocksParams p = {};
};

void check_case(int n_seqs, int n_kv_heads, size_t extent_bytes, int n_slots, Random& random) {
  Setup g(n_seqs, n_kv_heads, extent_bytes, 200, n_slots);
  for (size_t i = 0; i < g.host.size(); ++i) g.host.host()[i] = uint32_t(i * 2654435761u);
  std::vector<uint32_t> want(g.slots.size(), 0xffffffffu);
  const size_t words = extent_bytes / 4;
  for (int seq = 0; seq < n_seqs; ++seq) {
    g.lanes[seq] = random.integer(0, 4) == 0 ? -1 : n_seqs - 1 - seq;
    for (int h = 0; h < n_kv_heads; ++h) {
      const size_t stream = size_t(seq) * n_kv_heads + h;
      g.n_loads[stream] = random.integer(0, 2) == 0 ? 0 : random.integer(0, n_slots);
      std::vector<int> order(n_slots);
      for (int i = 0; i < n_slots; ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random.engine());
      for (int i = 0; i < g.n_loads[stream]; ++i) {
        const int page = random.integer(0, g.n_pages - 1);
        g.load_pages[stream * n_slots + i] = page;
        g.load_slots[stream * n_slots + i] = order[i];
        if (g.lanes[seq] < 0) continue;
        const size_t to = ((size_t(g.lanes[seq]) * n_kv_heads + h) * n_slots + order[i]) * words;
        const uint32_t* from = g.host.host() + (size_t(page) * n_kv_heads + h) * words;
        std::copy(from, from + words, want.begin() + to);
      }
    }
  }
  g.upload();
  MUST(cuda::gather_blocks(g.p, nullptr));
  EXPECT(g.slots.get() == want, "slots hold other bytes than the pages they were given");
  std::printf("gather_blocks %d sequences, %d heads, %zu bytes, %d slots\n", n_seqs, n_kv_heads,
              extent_bytes, n_slots);
}

void time_case(int n_seqs, int n_kv_heads, size_t extent_bytes, int n_each, Random& random) {
  const int n_pages = int((size_t(1) << 30) / extent_bytes / n_kv_heads);
  Setup g(n_seqs, n_kv_heads, extent_bytes, n_pages, 128);
  constexpr int kSets = 8;
  std::vector<std::unique_ptr<Device<int32_t>>> sets;
  for (int& n : g.n_loads) n = n_each;
  for (int seq = 0; seq < n_seqs; ++seq) g.lanes[seq] = seq;
  for (size_t i = 0; i < g.load_slots.size(); ++i) g.load_slots[i] = int(i % 128);
  for (int set = 0; set < kSets; ++set) {
    for (int& page : g.load_pages) page = random.integer(0, n_pages - 1);
    sets.push_back(std::make_unique<Device<int32_t>>(g.load_pages));
  }
  g.upload();
  const double us = median_us([&](int i, cudaStream_t stream) {
    auto p = g.p;
    p.load_pages = sets[i % kSets]->data();
    MUST(cuda::gather_blocks(p, stream));
  });
  const double bytes = double(n_seqs) * n_kv_heads * n_each * extent_bytes;
  std::printf("time gather_blocks %d x %d x %d extents of %zu: %.2f us, %.1f GB/s\n", n_seqs,
              n_kv_heads, n_each, extent_bytes, us, bytes / us / 1000);
}

void time_copy() {
  constexpr size_t kBytes = size_t(1) << 30;
  Mapped<uint8_t> host(kBytes);
  Device<uint8_t> device(kBytes);
  const double us = median_us(
      [&](int, cudaStream_t stream) {
        MUST(cudaMemcpyAsync(device.data(), host.host(), kBytes, cudaMemcpyHostToDevice, stream));
      },
      2, 5);
  std::printf("time one copy of 1 GiB from pinned memory: %.1f GB/s\n", double(kBytes) / us / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    time_copy();
    for (const size_t extent : {size_t(16384), size_t(32768)}) {
      time_case(1, 2, extent, 0, random);
      time_case(1, 1, extent, 1, random);
      time_case(1, 2, extent, 2, random);
      time_case(1, 2, extent, 8, random);
      time_case(8, 2, extent, 4, random);
      time_case(64, 2, extent, 2, random);
      time_case(64, 2, extent, 8, random);
      time_case(64, 2, extent, 0, random);
    }
    return report("gather_blocks_test");
  }
  check_case(3, 2, 16384, 24, random);
  check_case(1, 1, 4096, 1, random);
  check_case(5, 3, 12288, 40, random);
  if (!options.small) check_case(64, 2, 32768, 64, random);
  cuda::GatherBlocksParams none = {};
  none.n_kv_heads = 1, none.extent_bytes = 4096;
  EXPECT(cuda::gather_blocks(none, nullptr) == cudaSuccess, "nothing to fetch is fine");
  none.extent_bytes = 100;
  EXPECT(cuda::gather_blocks(none, nullptr) == cudaErrorInvalidValue, "part of a page is refused");
  return report("gather_blocks_test");
}
