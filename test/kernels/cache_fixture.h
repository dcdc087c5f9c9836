// Random lanes, pages and side-cars in the layout of kernels/layout.h, on the host and on the
// device.
#pragma once

#include <memory>
#include <numeric>

#include "harness.h"
#include "layout.h"

namespace nosa::test {

struct CacheShape {
  int n_heads = 14;
  int n_kv_heads = 2;
  int head_dim = 64;
  int n_lanes = 3;
  int n_seqs = 3;
  int n_queries = 1;
  int n_blocks_max = 64;
  int blocks_least = 1;  // that a lane sees
  int n_slots = 0;       // 0: resident
  bool idle = true;      // some sequences of the step are idle

  int group() const { return n_heads / n_kv_heads; }
  int n_rows() const { return n_seqs * n_queries; }
  size_t extent_bytes() const {
    const size_t used = size_t(2) * kBlockTokens * head_dim * sizeof(__half);
    return (used + 4095) / 4096 * 4096;
  }
};

inline int complete_windows(int n_tokens) {
  return n_tokens < cuda::kWindowTokens
             ? 0
             : (n_tokens - cuda::kWindowTokens) / cuda::kWindowStride + 1;
}

/// Lanes with attended sequences of ragged lengths and own tokens, and a step over some of them.
class CacheFixture {
 public:
  CacheFixture(const CacheShape& s, Random& random) : shape(s) {
    n_pages = s.n_lanes * s.n_blocks_max + 3;
    std::vector<int> free_pages(n_pages);
    std::iota(free_pages.begin(), free_pages.end(), 0);
    std::shuffle(free_pages.begin(), free_pages.end(), random.engine());
    pages.assign(size_t(s.n_lanes) * s.n_blocks_max, 0);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = free_pages[i];
    info.assign(pages.size(), {0xff, 0xff, 0, 0});
    for (int lane = 0; lane < s.n_lanes; ++lane) fill_lane(lane, random);

    std::vector<int> order(s.n_lanes);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random.engine());
    for (int seq = 0; seq < s.n_seqs; ++seq) {
      const bool is_idle =
          seq >= s.n_lanes || (s.idle && s.n_seqs > 1 && random.integer(0, 5) == 0);
      lanes.push_back(is_idle ? -1 : order[seq]);
      n_new.push_back(is_idle ? 0
                              : std::min(random.integer(s.idle ? 0 : s.n_queries, s.n_queries),
                                         own_of(order[seq])));
    }
  }

  int own_of(int lane) const { return n_tokens[lane]; }
  int page(int lane, int block) const { return pages[size_t(lane) * shape.n_blocks_max + block]; }

  /// The row's lane, or -1 when it is idle; own index of its token.
  struct RowPlace {
    int lane;
    int own;
    int n_blocks;
  };
  RowPlace place(int row) const {
    const int seq = row / shape.n_queries, t = row % shape.n_queries;
    if (lanes[seq] < 0 || t >= n_new[seq]) return {-1, 0, 0};
    const int own = n_tokens[lanes[seq]] - n_new[seq] + t;
    return {lanes[seq], own, n_attended[lanes[seq]] + own / kBlockTokens + 1};
  }

  int tokens_in(const RowPlace& row, int block) const {
    if (block < n_attended[row.lane])
      return info[size_t(row.lane) * shape.n_blocks_max + block].n_tokens;
    return std::min(kBlockTokens, row.own + 1 - (block - n_attended[row.lane]) * kBlockTokens);
  }
  int windows_in_block(const RowPlace& row, int block) const {
    if (block < n_attended[row.lane])
      return info[size_t(row.lane) * shape.n_blocks_max + block].n_windows;
    const int n =
        complete_windows(row.own + 1) - cuda::kBlockWindows * (block - n_attended[row.lane]);
    return std::clamp(n, 0, cuda::kBlockWindows);
  }

  void upload() {
    d_pages = std::make_unique<Device<int32_t>>(pages);
    d_info = std::make_unique<Device<cuda::BlockInfo>>(info);
    d_attended = std::make_unique<Device<int32_t>>(n_attended);
    d_tokens = std::make_unique<Device<int32_t>>(n_tokens);
    d_lanes = std::make_unique<Device<int32_t>>(lanes);
    d_new = std::make_unique<Device<int32_t>>(n_new);
    d_places = std::make_unique<Device<cuda::RowPlace>>(shape.n_rows());
    put_places();
  }
  /// What rope_angles does on the device.
  void put_places() {
    std::vector<cuda::RowPlace> places;
    for (int row = 0; row < shape.n_rows(); ++row) {
      const RowPlace at = place(row);
      places.push_back({at.lane, at.own, at.lane < 0 ? 0 : n_attended[at.lane], at.n_blocks});
    }
    d_places->put(places);
  }
  cuda::StepRows rows() {
    return {d_lanes->data(),  d_tokens->data(), d_new->data(),
            d_places->data(), shape.n_seqs,     shape.n_queries};
  }
  cuda::LaneBlocks blocks() {
    return {d_pages->data(), d_info->data(), d_attended->data(), shape.n_blocks_max};
  }

  CacheShape shape;
  int n_pages = 0;
  std::vector<int32_t> pages;
  std::vector<cuda::BlockInfo> info;
  std::vector<int32_t> n_attended;
  std::vector<int32_t> n_tokens;  // own
  std::vector<int32_t> lanes;
  std::vector<int32_t> n_new;

  std::unique_ptr<Device<int32_t>> d_pages, d_attended, d_tokens, d_lanes, d_new;
  std::unique_ptr<Device<cuda::BlockInfo>> d_info;
  std::unique_ptr<Device<cuda::RowPlace>> d_places;

 private:
  void fill_lane(int lane, Random& random) {
    const CacheShape& s = shape;
    const int n_blocks = random.integer(s.blocks_least, s.n_blocks_max);
    const int n_own = random.integer(1, std::max(1, std::min(n_blocks, n_blocks / 2 + 1)));
    int block = 0;
    while (block < n_blocks - n_own) {
      const int length = random.integer(1, n_blocks - n_own - block);
      const int n = (length - 1) * kBlockTokens + random.integer(1, kBlockTokens);
      const bool masked = random.integer(0, 6) == 0 && block > 0;
      for (int b = 0; b < length; ++b) {
        cuda::BlockInfo& of = info[size_t(lane) * s.n_blocks_max + block + b];
        of.n_tokens = uint8_t(std::min(kBlockTokens, n - b * kBlockTokens));
        of.n_windows = uint8_t(
            std::clamp(complete_windows(n) - cuda::kBlockWindows * b, 0, cuda::kBlockWindows));
        of.masked = masked ? 1 : 0;
        of.pinned = random.integer(0, s.n_blocks_max / 3) == 0 ? 1 : 0;
      }
      block += length;
    }
    for (int b = block; b < s.n_blocks_max; ++b)
      info[size_t(lane) * s.n_blocks_max + b] = {0, 0, 0, 0};
    n_attended.push_back(block);
    n_tokens.push_back((n_own - 1) * kBlockTokens + random.integer(1, kBlockTokens));
  }
};

}  // namespace nosa::test
