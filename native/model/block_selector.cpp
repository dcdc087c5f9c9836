#include "model/block_selector.h"

#include <algorithm>

#include "core/check.h"

namespace nosa {

BlockSelector::BlockSelector(const KvShape& shape, const SelectionOptions& options,
                             std::span<const AttendedKv> attended)
    : shape_(shape), options_(options), attended_(attended) {
  for (const AttendedKv& sequence : attended) {
    const int n_blocks = blocks_for(sequence.n_tokens);
    first_blocks_.push_back(n_context_);
    masked_.insert(masked_.end(), size_t(n_blocks), sequence.masked ? 1 : 0);
    n_context_ += n_blocks;
    n_masked_ += sequence.masked ? n_blocks : 0;
  }
  const size_t n_rankings = size_t(shape.n_layers) * size_t(shape.n_kv_heads);
  rankings_.assign(n_rankings, {EvictionOrder(options.budget.total_blocks), 0});
  ranked_.assign(n_rankings, false);
  chosen_.resize(size_t(shape.n_kv_heads));
}

BlockSelector::Place BlockSelector::place(int32_t block_idx) const {
  if (block_idx >= n_context_) return {none_attended, block_idx - n_context_};
  const auto after = std::upper_bound(first_blocks_.begin(), first_blocks_.end(), block_idx);
  const int sequence = int(after - first_blocks_.begin()) - 1;
  return {sequence, block_idx - first_blocks_[size_t(sequence)]};
}

bool BlockSelector::chooses(int own_idx) const {
  if (options_.policy == Policy::kFull) return false;
  const int n_open = n_context_ - n_masked_ + own_idx / kBlockTokens + 1;
  return n_open > options_.budget.total_blocks;
}

void BlockSelector::truncate(int n_blocks) {
  for (size_t i = 0; i < rankings_.size(); ++i) {
    if (rankings_[i].n_own <= n_blocks) continue;
    rankings_[i].order.clear();
    rankings_[i].n_own = 0;
    ranked_[i] = false;
  }
}

std::span<const std::vector<int32_t>> BlockSelector::choose(const Query& query, Backend& backend) {
  CHECK(chooses(query.own_idx));
  const int current = query.own_idx / kBlockTokens;
  const int n_own = current + 1;
  const int n_blocks = n_context_ + n_own;
  const int window_begin = std::max(0, n_own - options_.budget.window_blocks);
  masked_.resize(size_t(n_blocks), 0);

  forced_.clear();
  for (int b = 0; b < std::min(options_.budget.sink_blocks, n_context_ + window_begin); ++b) forced_.push_back(b);
  for (int b = n_context_ + window_begin; b < n_blocks; ++b) forced_.push_back(b);

  score(query, backend);
  for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
    pool(kv_head, query);
    if (options_.policy == Policy::kNosa) {
      rank_context(query.layer, kv_head);
      rank_own(query.layer, kv_head, *query.own, window_begin);
    }
    SelectionInput input;
    input.n_blocks = n_blocks;
    input.scores = block_scores_;
    input.eviction = &ranking(query.layer, kv_head).order;
    input.forced = forced_;
    input.masked = masked_;
    select_blocks(input, options_.policy, options_.budget, scratch_, chosen_[size_t(kv_head)]);
  }
  return chosen_;
}

// Window scores of every KV head, run after run: the attended sequences that are not masked, then own.
void BlockSelector::score(const Query& query, Backend& backend) {
  const int n_own_windows = windows_in(query.own_idx + 1);
  runs_.clear();
  int n_windows = 0;
  for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
    n_windows = 0;
    for (const AttendedKv& sequence : attended_) {
      if (sequence.masked) continue;
      const int n = sequence.side_car->n_windows(query.layer);
      runs_.push_back({sequence.side_car->compressed_keys(query.layer, kv_head), n});
      n_windows += n;
    }
    runs_.push_back({query.own->compressed_keys(query.layer, kv_head), n_own_windows});
    n_windows += n_own_windows;
  }
  window_scores_.resize(size_t(shape_.n_kv_heads) * size_t(n_windows));

  WindowScoresArgs args;
  args.q = query.q;
  args.n_heads = query.n_heads;
  args.n_kv_heads = shape_.n_kv_heads;
  args.head_dim = shape_.head_dim;
  args.scale = query.scale;
  args.kv_dtype = shape_.dtype;
  args.runs = runs_;
  args.n_windows = n_windows;
  args.out = window_scores_.data();
  backend.score_windows(args);
}

// Windows belong to one sequence, so each sequence is pooled to its own blocks.
void BlockSelector::pool(int kv_head, const Query& query) {
  const size_t n_windows = window_scores_.size() / size_t(shape_.n_kv_heads);
  const float* at = window_scores_.data() + size_t(kv_head) * n_windows;
  block_scores_.clear();
  const auto add = [&](int n, int n_blocks) {
    pooled_.resize(size_t(n_blocks));
    pool_windows({at, size_t(n)}, pooled_);
    block_scores_.insert(block_scores_.end(), pooled_.begin(), pooled_.end());
    at += n;
  };
  for (const AttendedKv& sequence : attended_) {
    add(sequence.masked ? 0 : sequence.side_car->n_windows(query.layer), blocks_for(sequence.n_tokens));
  }
  add(windows_in(query.own_idx + 1), query.own_idx / kBlockTokens + 1);
}

void BlockSelector::rank_context(int layer, int kv_head) {
  std::vector<bool>::reference done = ranked_[size_t(layer) * shape_.n_kv_heads + kv_head];
  if (done) return;
  done = true;
  EvictionOrder& order = ranking(layer, kv_head).order;
  int32_t first = 0;
  for (const AttendedKv& sequence : attended_) {
    const int n_blocks = blocks_for(sequence.n_tokens);
    if (!sequence.masked) {
      pooled_.resize(size_t(n_blocks));
      pool_windows(sequence.side_car->window_scores(layer, kv_head), pooled_);
      for (int b = 0; b < n_blocks; ++b) order.insert(first + b, pooled_[size_t(b)]);
    }
    first += n_blocks;
  }
}

// Own blocks join when they have left the window: their last window is complete by then.
void BlockSelector::rank_own(int layer, int kv_head, const SideCar& own, int n_own_blocks) {
  Ranking& ranks = ranking(layer, kv_head);
  if (ranks.n_own >= n_own_blocks) return;
  pooled_.resize(size_t(n_own_blocks));
  pool_windows(own.window_scores(layer, kv_head), pooled_);
  for (; ranks.n_own < n_own_blocks; ++ranks.n_own) {
    ranks.order.insert(n_context_ + ranks.n_own, pooled_[size_t(ranks.n_own)]);
  }
}

}  // namespace nosa
