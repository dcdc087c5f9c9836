#include "model/block_selector.h"

#include <algorithm>

#include "core/check.h"

namespace nosa {

Status BlockSelector::validate(const SelectionOptions& options,
                               std::span<const AttendedKv> attended) {
  for (const auto& ranges : {options.masked, options.pinned}) {
    for (const BlockRange& range : ranges) {
      const bool known = range.sequence >= 0 && size_t(range.sequence) < attended.size();
      if (known && range.from >= 0 && range.from <= range.to &&
          range.to <= blocks_for(attended[size_t(range.sequence)].n_tokens)) {
        continue;
      }
      return Status::invalid_argument("There are no blocks " + std::to_string(range.from) + " to " +
                                      std::to_string(range.to) + " in attended sequence " +
                                      std::to_string(range.sequence) + ".");
    }
  }
  if (options.policy == Policy::kFull) return {};
  if (Status status = nosa::validate(options.budget); !status.ok()) return status;
  const BlockSelector selector(KvShape(), {Policy::kFull, {}, {}, options.pinned}, attended);
  const SelectionBudget& budget = options.budget;
  const size_t n_forced = size_t(budget.sink_blocks + budget.window_blocks + budget.query_picks()) +
                          selector.pinned_.size();
  if (n_forced <= size_t(budget.total_blocks)) return {};
  return Status::invalid_argument("With " + std::to_string(selector.pinned_.size()) +
                                  " pinned blocks " + std::to_string(n_forced) +
                                  " are needed, more than the total of " +
                                  std::to_string(budget.total_blocks) + ".");
}

BlockSelector::BlockSelector(const KvShape& shape, const SelectionOptions& options,
                             std::span<const AttendedKv> attended)
    : shape_(shape), options_(options), attended_(attended) {
  for (const AttendedKv& sequence : attended) {
    first_blocks_.push_back(n_context_);
    n_context_ += blocks_for(sequence.n_tokens);
  }
  const auto mark = [&](const std::vector<BlockRange>& ranges, std::vector<uint8_t>& marks) {
    marks.assign(size_t(n_context_), 0);
    for (const auto& [sequence, from, to] : ranges) {
      const auto first = marks.begin() + first_blocks_[size_t(sequence)];
      std::fill(first + from, first + to, uint8_t(1));
    }
  };
  std::vector<uint8_t> pinned;
  mark(options.pinned, pinned);
  mark(options.masked, masked_);
  for (int32_t b = 0; b < n_context_; ++b) {
    if (pinned[size_t(b)] != 0 && !masked(b)) pinned_.push_back(b);
  }
  find_stretches();
  const size_t n_rankings = size_t(shape.n_layers) * size_t(shape.n_kv_heads);
  rankings_.assign(n_rankings, {EvictionOrder(options.budget.total_blocks), 0});
  ranked_.assign(n_rankings, false);
  chosen_.resize(size_t(shape.n_kv_heads));
}

void BlockSelector::find_stretches() {
  for (int sequence = 0; sequence < int(attended_.size()); ++sequence) {
    const int n_tokens = attended_[size_t(sequence)].n_tokens;
    const int n_blocks = blocks_for(n_tokens);
    const int32_t first = first_blocks_[size_t(sequence)];
    for (int begin = 0; begin < n_blocks;) {
      if (masked(first + begin)) {
        begin += 1;
        continue;
      }
      int end = begin + 1;
      while (end < n_blocks && !masked(first + end)) end += 1;
      // The stretch is a sequence of its own tokens: no window reaches over its end.
      const int n_own = std::min(end * kBlockTokens, n_tokens) - begin * kBlockTokens;
      stretches_.push_back({sequence, first + begin, end - begin,
                            begin * kBlockTokens / kWindowStride, windows_in(n_own)});
      n_open_ += end - begin;
      begin = end;
    }
  }
}

BlockSelector::Place BlockSelector::place(int32_t block_idx) const {
  if (block_idx >= n_context_) return {none_attended, block_idx - n_context_};
  const auto after = std::upper_bound(first_blocks_.begin(), first_blocks_.end(), block_idx);
  const int sequence = int(after - first_blocks_.begin()) - 1;
  return {sequence, block_idx - first_blocks_[size_t(sequence)]};
}

bool BlockSelector::chooses(int own_idx) const {
  if (options_.policy == Policy::kFull) return false;
  return n_open_ + own_idx / kBlockTokens + 1 > options_.budget.total_blocks;
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

  force(window_begin, n_blocks);
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

// Sink, pinned blocks and window; ascending, each once.
void BlockSelector::force(int window_begin, int n_blocks) {
  forced_.clear();
  const int32_t own_window = n_context_ + window_begin;
  const int32_t n_sink = std::min(options_.budget.sink_blocks, own_window);
  for (int32_t b = 0; b < n_sink; ++b) forced_.push_back(b);
  for (const int32_t b : pinned_) {
    if (b >= n_sink) forced_.push_back(b);
  }
  for (int32_t b = own_window; b < n_blocks; ++b) forced_.push_back(b);
}

// Window scores of every KV head, run after run: the stretches, then own.
void BlockSelector::score(const Query& query, Backend& backend) {
  const size_t key_bytes = size_t(shape_.head_dim) * shape_.value_bytes();
  const int n_own_windows = windows_in(query.own_idx + 1);
  runs_.clear();
  int n_windows = 0;
  for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
    n_windows = 0;
    for (const Stretch& stretch : stretches_) {
      const SideCar& side_car = *attended_[size_t(stretch.sequence)].side_car;
      runs_.push_back({side_car.compressed_keys(query.layer, kv_head) + stretch.first_window * key_bytes,
                       stretch.n_windows});
      n_windows += stretch.n_windows;
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

// Windows belong to one stretch, so each is pooled to its own blocks.
void BlockSelector::pool(int kv_head, const Query& query) {
  const size_t n_windows = window_scores_.size() / size_t(shape_.n_kv_heads);
  const float* at = window_scores_.data() + size_t(kv_head) * n_windows;
  const int n_own_blocks = query.own_idx / kBlockTokens + 1;
  block_scores_.resize(size_t(n_context_ + n_own_blocks));
  const auto pool = [&](int n_windows, int32_t first_block, int n_blocks) {
    pool_windows({at, size_t(n_windows)}, {block_scores_.data() + first_block, size_t(n_blocks)});
    at += n_windows;
  };
  for (const Stretch& stretch : stretches_) pool(stretch.n_windows, stretch.first_block, stretch.n_blocks);
  pool(windows_in(query.own_idx + 1), n_context_, n_own_blocks);
}

void BlockSelector::rank_context(int layer, int kv_head) {
  std::vector<bool>::reference done = ranked_[size_t(layer) * shape_.n_kv_heads + kv_head];
  if (done) return;
  done = true;
  EvictionOrder& order = ranking(layer, kv_head).order;
  for (const Stretch& stretch : stretches_) {
    const SideCar& side_car = *attended_[size_t(stretch.sequence)].side_car;
    const auto scores = side_car.window_scores(layer, kv_head);
    pooled_.resize(size_t(stretch.n_blocks));
    pool_windows(scores.subspan(size_t(stretch.first_window), size_t(stretch.n_windows)), pooled_);
    for (int b = 0; b < stretch.n_blocks; ++b) order.insert(stretch.first_block + b, pooled_[size_t(b)]);
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
