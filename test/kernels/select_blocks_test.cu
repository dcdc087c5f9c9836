// link: kernels/select_blocks.cu kernels/rank_blocks.cu
#include <set>

#include "cache_fixture.h"
#include "reference/selection.h"
#include "select_blocks.h"

using namespace nosa;
using namespace nosa::test;

namespace {

struct Budget {
  int total_blocks;
  int query_blocks;
  int sink_blocks;
  int window_blocks;
  bool by_eviction;
};

/// Host copy of what select_blocks keeps in device memory for every stream.
struct Slots {
  std::vector<int16_t> slot_of_block;
  std::vector<int32_t> block_of_slot;
  std::vector<uint32_t> last_step;
};

class SelectTest {
 public:
  SelectTest(const CacheShape& shape, const Budget& budget, Random& random)
      : f_(shape, random),
        s_(f_.shape),
        budget_(budget),
        random_(random),
        windows_(make_windows()),
        d_windows_(windows_),
        best_(size_t(s_.n_rows()) * s_.n_kv_heads * s_.n_blocks_max),
        order_(n_streams() * budget.total_blocks),
        order_scores_(n_streams() * budget.total_blocks),
        n_entries_(n_streams()),
        n_own_(n_streams()),
        selected_(lists() * kCapacity),
        n_selected_(lists()),
        load_pages_(loads() * s_.n_slots),
        load_slots_(loads() * s_.n_slots),
        n_loads_(loads()),
        n_total_(std::vector<unsigned long long>(s_.n_lanes, 0)),
        failed_(std::vector<int32_t>(1, 0)),
        step_(std::vector<uint32_t>(1, 0)) {
    missing_.resize(loads());
    host_.slot_of_block.assign(n_streams() * s_.n_blocks_max, -1);
    host_.block_of_slot.assign(n_streams() * s_.n_slots, -1);
    host_.last_step.assign(n_streams() * s_.n_slots, 0);
    slot_of_block_ = std::make_unique<Device<int16_t>>(host_.slot_of_block);
    block_of_slot_ = std::make_unique<Device<int32_t>>(host_.block_of_slot);
    last_step_ = std::make_unique<Device<uint32_t>>(host_.last_step);
    f_.upload();
    for (int lane = 0; lane < s_.n_lanes; ++lane) rank(lane);
  }

  /// Some steps with scores that drift, so that most blocks stay and some change.
  void run(int n_steps) {
    std::vector<float2> scores(best_.size());
    for (auto& of : scores) of = random_score();
    for (int i = 1; i <= n_steps; ++i) {
      for (auto& of : scores) {
        if (random_.integer(0, 9) == 0) of = random_score();
      }
      best_.put(scores);
      step_.put({uint32_t(i)});
      launch();
      check_step(scores, uint32_t(i));
      advance();
    }
    EXPECT(failed_.get()[0] == 0, "select_blocks says that something did not fit");
    std::printf(
        "select_blocks %s, %d rows, up to %d blocks, %d slots: %d steps, %.2f loads a stream and "
        "step\n",
        budget_.by_eviction ? "nosa" : "infllmv2", s_.n_rows(), s_.n_blocks_max, s_.n_slots,
        n_steps, n_lists_ > 0 ? double(n_loads_seen_) / n_lists_ : 0.0);
  }

  void launch(cudaStream_t stream = nullptr) { MUST(cuda::select_blocks(params(), stream)); }

 private:
  static constexpr int kCapacity = 128;

  size_t n_streams() const { return size_t(s_.n_lanes) * s_.n_kv_heads; }
  size_t lists() const { return size_t(s_.n_rows()) * s_.n_kv_heads; }
  size_t loads() const { return size_t(s_.n_seqs) * s_.n_kv_heads; }

  std::vector<float> make_windows() {
    auto windows = random_.normals(size_t(s_.n_kv_heads) * f_.n_pages * cuda::kBlockWindows);
    for (float& w : windows) w = std::round(w * 8.0f) / 8.0f;  // Ties happen.
    return windows;
  }
  float2 random_score() {
    if (random_.integer(0, 30) == 0) return {-INFINITY, -INFINITY};
    const float x = std::exp(2.0f * random_.normal());
    return {random_.integer(0, 3) == 0 ? 0.25f : x,
            random_.integer(0, 2) == 0 ? -INFINITY : x / 2.0f};
  }

  cuda::EvictionRanking ranking() {
    return {order_.data(), order_scores_.data(), n_entries_.data(), n_own_.data(),
            budget_.total_blocks};
  }

  void rank(int lane) {
    cuda::RankBlocksParams p = {};
    p.blocks = f_.blocks();
    p.side_car.window_scores = d_windows_.data();
    p.side_car.n_pages = f_.n_pages;
    p.ranking = ranking();
    p.lane = lane;
    p.n_attended = f_.n_attended[lane];
    p.n_own_tokens =
        random_.integer(0, 1) == 0 ? 0 : f_.n_tokens[lane] - 1;  // select_blocks catches up
    p.window_blocks = budget_.window_blocks;
    p.n_kv_heads = s_.n_kv_heads;
    MUST(cuda::rank_blocks(p, nullptr));
  }

  cuda::SelectBlocksParams params() {
    cuda::SelectBlocksParams p = {};
    p.rows = f_.rows();
    p.blocks = f_.blocks();
    p.slots = {slot_of_block_->data(), block_of_slot_->data(), last_step_->data(), s_.n_slots};
    p.side_car.window_scores = d_windows_.data();
    p.side_car.n_pages = f_.n_pages;
    p.ranking = ranking();
    p.best = best_.data();
    p.step = step_.data();
    p.selected = selected_.data();
    p.n_selected = n_selected_.data();
    p.load_pages = load_pages_.data();
    p.load_slots = load_slots_.data();
    p.n_loads = n_loads_.data();
    p.n_loads_total = n_total_.data();
    p.failed = failed_.data();
    p.n_kv_heads = s_.n_kv_heads;
    p.n_selected_max = kCapacity;
    p.total_blocks = budget_.total_blocks;
    p.query_picks = budget_.query_blocks - 1;
    p.sink_blocks = budget_.sink_blocks;
    p.window_blocks = budget_.window_blocks;
    p.by_eviction = budget_.by_eviction;
    return p;
  }

  /// The lanes of the step go on by the tokens they got, while there is room for the next step's.
  void advance() {
    for (int seq = 0; seq < s_.n_seqs; ++seq) {
      const int lane = f_.lanes[seq];
      if (lane < 0) continue;
      const int room = (s_.n_blocks_max - f_.n_attended[lane]) * kBlockTokens - f_.n_tokens[lane];
      f_.n_new[seq] = std::min({random_.integer(1, s_.n_queries), room});
      f_.n_tokens[lane] += f_.n_new[seq];
    }
    f_.d_new->put(f_.n_new);
    f_.d_tokens->put(f_.n_tokens);
    f_.put_places();
  }

  double eviction_score(const CacheFixture::RowPlace& row, int h, int b) const {
    const auto window = [&](int block, int m) {
      return double(
          windows_[(size_t(h) * f_.n_pages + f_.page(row.lane, block)) * cuda::kBlockWindows + m]);
    };
    double best = -INFINITY;
    for (int m = 0; m < f_.windows_in_block(row, b); ++m) best = std::max(best, window(b, m));
    const bool joined = b > 0 && f_.windows_in_block(row, b - 1) == cuda::kBlockWindows;
    return joined ? std::max(best, window(b - 1, 3)) : best;
  }

  /// The choice by sorting everything.
  std::vector<int32_t> expected(const CacheFixture::RowPlace& row, int row_idx, int h,
                                const std::vector<float2>& best) {
    const int attended = f_.n_attended[row.lane];
    const int window = attended + std::max(0, row.own / kBlockTokens + 1 - budget_.window_blocks);
    const float2* of = best.data() + (size_t(row_idx) * s_.n_kv_heads + h) * s_.n_blocks_max;
    std::vector<int32_t> open;
    for (int b = 0; b < row.n_blocks; ++b) {
      if (f_.info[size_t(row.lane) * s_.n_blocks_max + b].masked == 0) open.push_back(b);
    }
    if (int(open.size()) <= budget_.total_blocks) return open;
    // Among the open blocks alone, whose order is the same.
    std::vector<double> scores, evictions;
    std::vector<bool> forced;
    int n_forced = 0;
    for (const int b : open) {
      const bool pinned = f_.info[size_t(row.lane) * s_.n_blocks_max + b].pinned != 0;
      forced.push_back(b >= window || b < std::min(budget_.sink_blocks, window) || pinned);
      n_forced += forced.back() ? 1 : 0;
      scores.push_back(b > 0 ? std::fmax(of[b].x, of[b - 1].y) : of[b].x);
      evictions.push_back(eviction_score(row, h, b));
    }
    // The reference's two passes, with the number of forced blocks there are.
    reference::SelectionConstants c;
    c.total_blocks = std::max(budget_.total_blocks, n_forced);
    c.sink_blocks = 0;
    c.window_blocks = n_forced + 1;
    c.query_blocks = budget_.by_eviction
                         ? std::min(budget_.query_blocks - 1, c.total_blocks - n_forced)
                         : c.total_blocks - n_forced;
    auto chosen = reference::nosa_blocks(scores, evictions, forced, c);
    for (int32_t& b : chosen) b = open[b];
    return chosen;
  }

  void check_step(const std::vector<float2>& best, uint32_t step) {
    const auto selected = selected_.get();
    const auto n_selected = n_selected_.get();
    const auto load_pages = load_pages_.get(), load_slots = load_slots_.get(),
               n_loads = n_loads_.get();
    for (int seq = 0; seq < s_.n_seqs; ++seq) {
      for (int h = 0; h < s_.n_kv_heads; ++h) {
        std::set<int32_t> wanted;
        for (int t = 0; t < s_.n_queries; ++t) {
          const int row_idx = seq * s_.n_queries + t;
          const auto row = f_.place(row_idx);
          if (row.lane < 0) continue;
          const size_t list = size_t(row_idx) * s_.n_kv_heads + h;
          const auto want = expected(row, row_idx, h, best);
          bool same = n_selected[list] == int(want.size());
          for (size_t i = 0; same && i < want.size(); ++i)
            same = selected[list * kCapacity + i].block == want[i];
          EXPECT(same, "another choice than the reference, step " + std::to_string(step));
          wanted.insert(want.begin(), want.end());
          n_lists_ += 1;
        }
        if (f_.lanes[seq] < 0 || wanted.empty()) continue;
        if (s_.n_slots > 0) check_slots(seq, h, wanted, step, load_pages, load_slots, n_loads);
        for (int t = 0; t < f_.n_new[seq]; ++t) {
          const size_t list = size_t(seq * s_.n_queries + t) * s_.n_kv_heads + h;
          const auto row = f_.place(seq * s_.n_queries + t);
          for (int i = 0; i < n_selected[list]; ++i) {
            const auto& of = selected[list * kCapacity + i];
            const int block = of.block;
            const size_t stream = size_t(f_.lanes[seq]) * s_.n_kv_heads + h;
            const int want = s_.n_slots > 0 ? host_.slot_of_block[stream * s_.n_blocks_max + block]
                                            : f_.page(f_.lanes[seq], block);
            EXPECT(of.index == want, "a block is said to be where it is not");
            const bool fetched =
                s_.n_queries == 1 && missing_[size_t(seq) * s_.n_kv_heads + h].count(block) > 0;
            const int n_tokens = f_.tokens_in(row, block) + (fetched ? cuda::kToFetch : 0);
            EXPECT(of.page == f_.page(row.lane, block) && of.n_tokens == n_tokens,
                   "a block has other facts");
          }
        }
      }
    }
    if (s_.n_slots == 0) return;
    EXPECT(slot_of_block_->get() == host_.slot_of_block, "the map of blocks differs");
    EXPECT(block_of_slot_->get() == host_.block_of_slot, "the map of slots differs");
    EXPECT(last_step_->get() == host_.last_step, "the stamps differ");
  }

  /// Plays the step on the host copy: hits are stamped, misses take empty slots, then the oldest.
  void check_slots(int seq, int h, const std::set<int32_t>& wanted, uint32_t step,
                   const std::vector<int32_t>& load_pages, const std::vector<int32_t>& load_slots,
                   const std::vector<int32_t>& n_loads) {
    const int lane = f_.lanes[seq];
    const size_t stream = size_t(lane) * s_.n_kv_heads + h;
    int16_t* slot_of_block = host_.slot_of_block.data() + stream * s_.n_blocks_max;
    int32_t* block_of_slot = host_.block_of_slot.data() + stream * s_.n_slots;
    uint32_t* last_step = host_.last_step.data() + stream * s_.n_slots;
    std::vector<int32_t> missing;
    for (const int32_t block : wanted) {
      if (slot_of_block[block] >= 0)
        last_step[slot_of_block[block]] = step;
      else
        missing.push_back(block);
    }
    const size_t at = size_t(seq) * s_.n_kv_heads + h;
    missing_[at] = std::set<int32_t>(missing.begin(), missing.end());
    EXPECT(n_loads[at] == int(missing.size()), "another number of loads");
    n_loads_seen_ += missing.size();
    for (size_t i = 0; i < missing.size(); ++i) {
      int victim = -1;
      for (int slot = 0; slot < s_.n_slots; ++slot) {
        if (block_of_slot[slot] >= 0 && last_step[slot] == step) continue;
        const auto age = [&](int of) {
          return block_of_slot[of] < 0 ? -1 : int64_t(last_step[of]);
        };
        if (victim < 0 || age(slot) < age(victim)) victim = slot;
      }
      if (block_of_slot[victim] >= 0) slot_of_block[block_of_slot[victim]] = -1;
      block_of_slot[victim] = missing[i];
      slot_of_block[missing[i]] = int16_t(victim);
      last_step[victim] = step;
      EXPECT(load_pages[at * s_.n_slots + i] == f_.page(lane, missing[i]),
             "another page is to be loaded");
      EXPECT(load_slots[at * s_.n_slots + i] == victim, "it is to be loaded to another slot");
    }
  }

  CacheFixture f_;
  CacheShape s_;
  Budget budget_;
  Random& random_;
  std::vector<float> windows_;
  Device<float> d_windows_;
  Device<float2> best_;
  Device<int32_t> order_;
  Device<float> order_scores_;
  Device<int32_t> n_entries_, n_own_;
  Device<cuda::SelectedBlock> selected_;
  Device<int32_t> n_selected_, load_pages_, load_slots_, n_loads_;
  Device<unsigned long long> n_total_;
  Device<int32_t> failed_;
  Device<uint32_t> step_;
  Slots host_;
  std::vector<std::set<int32_t>> missing_;  // [n_seqs, n_kv_heads] of the last step
  std::unique_ptr<Device<int16_t>> slot_of_block_;
  std::unique_ptr<Device<int32_t>> block_of_slot_;
  std::unique_ptr<Device<uint32_t>> last_step_;
  int n_lists_ = 0;
  size_t n_loads_seen_ = 0;
};

CacheShape shape(int n_lanes, int n_queries, int n_blocks_max, int n_slots) {
  CacheShape s;
  s.n_lanes = n_lanes;
  s.n_seqs = n_lanes;
  s.n_queries = n_queries;
  s.n_blocks_max = n_blocks_max;
  s.n_slots = n_slots;
  return s;
}

constexpr Budget kPublished = {64, 16, 1, 17, true};
constexpr Budget kSmall = {9, 4, 1, 3, true};

void time_case(int n_seqs, int n_blocks, Random& random) {
  CacheShape s = shape(n_seqs, 1, n_blocks, 128);
  s.idle = false;
  s.blocks_least = n_blocks - 20;
  SelectTest test(s, kPublished, random);
  test.run(3);
  const double us = median_us([&](int, cudaStream_t stream) { test.launch(stream); });
  std::printf("time select_blocks %d x %d blocks, all hits: %.2f us\n", n_seqs, n_blocks, us);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Random random;
  if (options.time) {
    for (const int n_blocks : {512, 2048, 16384}) time_case(1, n_blocks, random);
    time_case(64, 1024, random);
    return report("select_blocks_test");
  }
  const int n_steps = options.small ? 4 : 60;
  SelectTest(shape(3, 1, 60, 24), kSmall, random).run(n_steps);
  SelectTest(shape(4, 3, 70, 48), kSmall, random).run(n_steps);
  SelectTest(shape(2, 2, 30, 0), kSmall, random).run(n_steps);
  SelectTest(shape(3, 1, 300, 100), kPublished, random).run(n_steps);
  SelectTest(shape(3, 1, 300, 100), {64, 16, 1, 17, false}, random).run(n_steps);
  if (!options.small) {
    SelectTest(shape(2, 8, 3000, 320), kPublished, random).run(n_steps);
    SelectTest(shape(70, 1, 200, 128), kPublished, random).run(10);
  }
  cuda::SelectBlocksParams none = {};
  EXPECT(cuda::select_blocks(none, nullptr) == cudaErrorInvalidValue,
         "empty parameters are refused");
  return report("select_blocks_test");
}
