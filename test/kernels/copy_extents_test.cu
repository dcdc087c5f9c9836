// link: kernels/copy_extents.cu kernels/read_rows.cu kernels/write_back.cu
#include "copy_extents.h"

#include "core/block_tokens.h"
#include "harness.h"
#include "read_rows.h"
#include "write_back.h"

using namespace nosa;
using namespace nosa::test;

namespace {

constexpr uint32_t poison = 0xffffffffu;

std::vector<int32_t> shuffled(int n, Random& random) {
  std::vector<int32_t> order(n);
  for (int i = 0; i < n; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random.engine());
  return order;
}

// From pages in host memory to the slots of one lane, with places that stand for nothing.
void check_copy(int n_streams, int n_extents, size_t extent_bytes, Random& random) {
  const int n_pages = n_extents + 5, n_slots = n_extents + 3;
  const size_t words = extent_bytes / 4;
  Mapped<uint32_t> pages(size_t(n_pages) * n_streams * words);
  for (size_t i = 0; i < pages.size(); ++i) pages.host()[i] = uint32_t(i * 2654435761u) >> 1;
  Device<uint32_t> slots(size_t(n_streams) * n_slots * words);
  std::vector<int32_t> from = shuffled(n_pages, random), to;
  from.resize(n_extents);
  for (int s = 0; s < n_streams; ++s) {
    std::vector<int32_t> order = shuffled(n_slots, random);
    to.insert(to.end(), order.begin(), order.begin() + n_extents);
  }
  for (int32_t& index : from) index = random.integer(0, 9) == 0 ? -1 : index;
  for (int32_t& index : to) index = random.integer(0, 9) == 0 ? -1 : index;
  Device<int32_t> d_from(from), d_to(to);
  cuda::CopyExtentsParams p;
  p.from = {reinterpret_cast<std::byte*>(pages.data()), int64_t(extent_bytes), int64_t(extent_bytes * n_streams), d_from.data(), 0};
  p.to = {reinterpret_cast<std::byte*>(slots.data()), int64_t(extent_bytes * n_slots), int64_t(extent_bytes), d_to.data(), n_extents};
  p.n_streams = n_streams;
  p.n_extents = n_extents;
  p.extent_bytes = int64_t(extent_bytes);
  MUST(cuda::copy_extents(p, nullptr));
  std::vector<uint32_t> want(slots.size(), poison);
  for (int s = 0; s < n_streams; ++s) {
    for (int i = 0; i < n_extents; ++i) {
      const int slot = to[size_t(s) * n_extents + i];
      if (from[i] < 0 || slot < 0) continue;
      for (size_t w = 0; w < words; ++w) {
        want[(size_t(s) * n_slots + slot) * words + w] = pages.host()[(size_t(from[i]) * n_streams + s) * words + w];
      }
    }
  }
  EXPECT(slots.get() == want, "copied extents");
  std::printf("copy_extents %d streams, %d extents of %zu bytes\n", n_streams, n_extents, extent_bytes);
}

// Some rows of one block of one of several lanes, from wherever each stream keeps it, or from its page.
void check_read_rows(int n_layers, int n_kv_heads, int head_dim, bool resident, Random& random) {
  constexpr int n_lanes = 3, n_blocks_max = 11, n_slots = 7, lane = 1, block = 4, n_pages = 9, page = 5;
  const int n_indices = resident ? n_pages : n_slots;
  const size_t extent = size_t(2) * kBlockTokens * head_dim;
  const int n_streams = n_layers * n_kv_heads;
  std::vector<__half> values(size_t(resident ? 1 : n_lanes) * n_streams * n_indices * extent);
  for (size_t i = 0; i < values.size(); ++i) values[i] = __float2half_rn(float(i * 2654435761u % 4096) / 64.0f);
  std::vector<float> scores = random.normals(size_t(n_streams) * n_pages * kBlockTokens);
  std::vector<int16_t> slots(size_t(n_layers) * n_lanes * n_kv_heads * n_blocks_max, -1);
  for (int16_t& slot : slots) slot = int16_t(random.integer(0, n_slots - 1));
  Device<__half> d_values(values);
  Device<float> d_scores(scores);
  Device<int16_t> d_slots(slots);
  cuda::ReadRowsParams p;
  p.first_row = random.integer(0, kBlockTokens - 1);
  p.n_rows = random.integer(1, kBlockTokens - p.first_row);
  Mapped<__half> rows(size_t(p.n_rows) * n_streams * 2 * head_dim);
  Mapped<float> of_rows(size_t(p.n_rows) * n_streams);
  const size_t lane_values = size_t(n_streams) * n_indices * extent;
  p.extents = reinterpret_cast<const std::byte*>(d_values.data() + (resident ? 0 : lane * lane_values));
  p.index_stride = int64_t(extent * sizeof(__half));
  p.head_stride = p.index_stride * n_indices;
  p.layer_stride = p.head_stride * n_kv_heads;
  if (!resident) p.slot_of_block = d_slots.data() + size_t(lane) * n_kv_heads * n_blocks_max + block;
  p.slot_layer_stride = int64_t(n_lanes) * n_kv_heads * n_blocks_max;
  p.slot_head_stride = n_blocks_max;
  p.token_scores = d_scores.data();
  p.page = page, p.n_pages = n_pages;
  p.n_layers = n_layers, p.n_kv_heads = n_kv_heads, p.head_dim = head_dim;
  p.rows = reinterpret_cast<std::byte*>(rows.data());
  p.scores = of_rows.data();
  MUST(cuda::read_rows(p, nullptr));
  MUST(cudaDeviceSynchronize());
  bool same = true;
  for (int t = 0; t < p.n_rows; ++t) {
    for (int stream = 0; stream < n_streams; ++stream) {
      const int layer = stream / n_kv_heads, head = stream % n_kv_heads;
      const int slot = slots[((size_t(layer) * n_lanes + lane) * n_kv_heads + head) * n_blocks_max + block];
      const size_t from = (resident ? 0 : lane * lane_values) + (size_t(stream) * n_indices + size_t(resident ? page : slot)) * extent;
      const size_t to = size_t(t) * n_streams + stream;
      for (int part = 0; part < 2; ++part) {
        for (int d = 0; d < head_dim; ++d) {
          const __half want = values[from + (size_t(part) * kBlockTokens + p.first_row + t) * head_dim + d];
          same = same && __half2float(rows.host()[(to * 2 + part) * head_dim + d]) == __half2float(want);
        }
      }
      same = same && of_rows.host()[to] == scores[(size_t(stream) * n_pages + page) * kBlockTokens + p.first_row + t];
    }
  }
  EXPECT(same, "rows that were read");
  std::printf("read_rows %d x %d x %d, %d rows, %s\n", n_layers, n_kv_heads, head_dim, p.n_rows, resident ? "pages" : "slots");
}

// One block of one of several lanes, from wherever each stream keeps it.
void check_write_back(int n_layers, int n_kv_heads, size_t extent_bytes, Random& random) {
  constexpr int n_lanes = 3, n_blocks_max = 11, n_slots = 7, lane = 1, block = 4;
  const int n_streams = n_layers * n_kv_heads;
  const size_t words = extent_bytes / 4;
  std::vector<uint32_t> bytes(size_t(n_streams) * n_slots * words);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = uint32_t(i * 2246822519u) >> 1;
  Device<uint32_t> slots(bytes);
  std::vector<int16_t> map(size_t(n_layers) * n_lanes * n_kv_heads * n_blocks_max);
  for (int16_t& slot : map) slot = int16_t(random.integer(-1, n_slots - 1));
  Device<int16_t> d_map(map);
  Mapped<uint32_t> page(size_t(n_streams) * words);
  std::fill(page.host(), page.host() + page.size(), poison);
  cuda::WriteBackParams p;
  p.slots = reinterpret_cast<const std::byte*>(slots.data());
  p.slot_of_block = d_map.data() + size_t(lane) * n_kv_heads * n_blocks_max + block;
  p.slot_layer_stride = int64_t(n_lanes) * n_kv_heads * n_blocks_max;
  p.slot_head_stride = n_blocks_max;
  p.page = reinterpret_cast<std::byte*>(page.data());
  p.n_layers = n_layers;
  p.n_kv_heads = n_kv_heads;
  p.n_slots = n_slots;
  p.extent_bytes = int64_t(extent_bytes);
  MUST(cuda::write_back(p, nullptr));
  MUST(cudaDeviceSynchronize());
  bool same = true;
  for (int s = 0; s < n_streams; ++s) {
    const int slot = map[((size_t(s / n_kv_heads) * n_lanes + lane) * n_kv_heads + s % n_kv_heads) * n_blocks_max + block];
    for (size_t w = 0; w < words; ++w) {
      const uint32_t want = slot < 0 ? poison : bytes[(size_t(s) * n_slots + slot) * words + w];
      same = same && page.host()[size_t(s) * words + w] == want;
    }
  }
  EXPECT(same, "a block written back");
  std::printf("write_back %d layers, %d heads, %zu bytes\n", n_layers, n_kv_heads, extent_bytes);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  check_copy(1, 1, 4096, random);
  check_copy(6, 9, 12288, random);
  check_copy(options.small ? 4 : 64, 20, 32768, random);
  check_write_back(1, 1, 4096, random);
  check_write_back(3, 3, 20480, random);
  check_write_back(options.small ? 2 : 32, 2, 32768, random);
  for (const bool resident : {false, true}) {
    check_read_rows(1, 1, 64, resident, random);
    check_read_rows(options.small ? 2 : 24, 2, 128, resident, random);
  }
  cuda::CopyExtentsParams none;
  MUST(cuda::copy_extents(none, nullptr));
  none.n_streams = none.n_extents = 1;
  EXPECT(cuda::copy_extents(none, nullptr) == cudaErrorInvalidValue, "no place is refused");
  cuda::WriteBackParams nothing;
  MUST(cuda::write_back(nothing, nullptr));
  return report("copy_extents_test");
}
