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
  const BlockSelector selector(KvShape(), {Policy::kFull, {}, options.masked, options.pinned}, attended);
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
  runs_.resize(size_t(shape.n_layers));
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
    // The last window of the block before ends in the first that changes.
    if (rankings_[i].n_own < n_blocks || rankings_[i].n_own == 0) continue;
    rankings_[i].order.clear();
    rankings_[i].n_own = 0;
    ranked_[i] = false;
  }
}

const BlockChoice& BlockSelector::choose(const Queries& queries, Backend& backend, SelectorScratch& scratch) {
  CHECK(chooses(queries.own_idx));
  const int last = queries.own_idx + queries.n_tokens - 1;
  const int current = queries.own_idx / kBlockTokens;
  CHECK(last / kBlockTokens == current);
  const int n_blocks = n_context_ + current + 1;
  const int own_window = window_begin(queries.own_idx);
  masked_.resize(size_t(n_blocks), 0);
  const size_t n_kv_heads = size_t(shape_.n_kv_heads);
  scratch.common.resize(std::max(scratch.common.size(), n_kv_heads * size_t(n_blocks)), 0);
  BlockChoice& choice = scratch.choice;
  choice.n_tokens = queries.n_tokens;
  choice.common.clear();

  force(own_window, n_blocks);
  const auto in_common = [&](int kv_head) {
    return std::span(scratch.common).subspan(size_t(kv_head) * size_t(n_blocks), size_t(n_blocks));
  };
  for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
    if (options_.policy == Policy::kNosa) {
      rank_context(queries.layer, kv_head);
      rank_own(queries.layer, kv_head, *queries.own, own_window);
    }
    choose_common(ranking(queries.layer, kv_head).order, in_common(kv_head), choice.common);
  }
  // Every query takes the total, for there is more to choose from.
  choice.n_common = int(choice.common.size() / n_kv_heads);
  choice.n_picks = options_.budget.total_blocks - choice.n_common;
  choice.picks.resize(n_kv_heads * size_t(queries.n_tokens) * size_t(choice.n_picks));

  scratch.block_scores.resize(size_t(queries.n_tokens) * n_kv_heads * size_t(n_blocks));
  scratch.workers.resize(size_t(backend.n_workers()));
  BlockScoresArgs args;
  args.q = queries.q;
  args.n_tokens = queries.n_tokens;
  args.own_start = queries.own_idx;
  args.n_heads = queries.n_heads;
  args.n_kv_heads = shape_.n_kv_heads;
  args.head_dim = shape_.head_dim;
  args.scale = queries.scale;
  args.kv_dtype = shape_.dtype;
  args.runs = runs(queries);
  args.n_blocks = n_blocks;
  args.out = scratch.block_scores.data();
  args.scored = [&](int token, int kv_head, int worker) {
    pick(queries, token, kv_head, scratch.workers[size_t(worker)], scratch);
  };
  backend.score_blocks(args);

  for (size_t i = 0; i < choice.common.size(); ++i) {
    in_common(int(i) / choice.n_common)[size_t(choice.common[i])] = 0;
  }
  return choice;
}

// What one query takes beside the common blocks of a KV head. Threads do this at once.
void BlockSelector::pick(const Queries& queries, int token, int kv_head, SelectorScratch::Worker& worker,
                         SelectorScratch& scratch) {
  BlockChoice& choice = scratch.choice;
  const size_t n_blocks = size_t(n_context_ + queries.own_idx / kBlockTokens + 1);
  const size_t row = size_t(token) * size_t(shape_.n_kv_heads) + size_t(kv_head);
  SelectionInput input;
  input.n_blocks = int(n_blocks);
  input.eviction = &ranking(queries.layer, kv_head).order;
  input.forced = forced_;
  if (masks_any()) input.masked = masked_;
  input.scores = std::span(scratch.block_scores).subspan(row * n_blocks, n_blocks);
  select_blocks(input, options_.policy, options_.budget, worker.selection, worker.chosen);
  if (followed_ != nullptr || recorded_ != nullptr) {
    const std::lock_guard<std::mutex> one_at_a_time(scratch.logging);
    const int own_idx = queries.own_idx + token;
    if (followed_ != nullptr) {
      verdict_->follow(followed_->find(own_idx, queries.layer, kv_head), input, options_.policy, options_.budget,
                       worker.chosen);
    }
    if (recorded_ != nullptr) recorded_->put(own_idx, queries.layer, kv_head, worker.chosen);
  }
  const uint8_t* in_common = scratch.common.data() + size_t(kv_head) * n_blocks;
  const size_t n_picks = size_t(choice.n_picks);
  int32_t* out = choice.picks.data() + (size_t(kv_head) * size_t(queries.n_tokens) + size_t(token)) * n_picks;
  size_t n = 0;
  for (const int32_t b : worker.chosen) {
    if (in_common[b] != 0) continue;
    CHECK(n < n_picks);
    out[n++] = b;
  }
  CHECK(n == n_picks);
}

std::vector<int32_t> BlockChoice::selection(int kv_head, int token) const {
  std::vector<int32_t> all;
  const auto shared = common.begin() + int64_t{kv_head} * n_common;
  const auto own = picks.begin() + (int64_t{kv_head} * n_tokens + token) * n_picks;
  std::merge(shared, shared + n_common, own, own + n_picks, std::back_inserter(all));
  return all;
}

std::vector<int32_t> BlockSelector::base(int layer, int kv_head, int own_idx, const SideCar& own) {
  const int n_own_blocks = own_idx / kBlockTokens + 1;
  std::vector<int32_t> blocks;
  if (!chooses(own_idx)) {
    for (int32_t b = 0; b < n_context_ + n_own_blocks; ++b) {
      if (b >= n_context_ || !masked(b)) blocks.push_back(b);
    }
    return blocks;
  }
  const int own_window = window_begin(own_idx);
  masked_.resize(size_t(n_context_ + n_own_blocks), 0);
  force(own_window, n_context_ + n_own_blocks);
  if (options_.policy == Policy::kNosa) {
    rank_context(layer, kv_head);
    rank_own(layer, kv_head, own, own_window);
  }
  std::vector<uint8_t> taken(size_t(n_context_ + n_own_blocks), 0);
  choose_common(ranking(layer, kv_head).order, taken, blocks);
  return blocks;
}

// The forced blocks, and those of the eviction order that no pick can push out: as many as are taken
// when every pick is another block. Marks them in `taken` and appends them to `common`.
void BlockSelector::choose_common(const EvictionOrder& order, std::span<uint8_t> taken,
                                  std::vector<int32_t>& common) const {
  int n_left = options_.budget.total_blocks;
  const auto first = int64_t(common.size());
  const auto add = [&](int32_t b) {
    if (taken[size_t(b)] != 0) return;
    taken[size_t(b)] = 1;
    common.push_back(b);
    n_left -= 1;
  };
  for (const int32_t b : forced_) {
    if (masked_[size_t(b)] == 0) add(b);
  }
  // Nobody knows what others, who are followed, take by their eviction order.
  if (options_.policy == Policy::kNosa && followed_ == nullptr) {
    n_left -= options_.budget.query_picks();
    for (int rank = 0; rank < order.size() && n_left > 0; ++rank) add(order.block(rank));
  }
  std::sort(common.begin() + first, common.end());
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

// The windows that the queries see: those of the stretches, and the own ones.
std::span<const WindowRun> BlockSelector::runs(const Queries& queries) {
  const size_t n_runs = stretches_.size() + 1;
  std::vector<WindowRun>& runs = runs_[size_t(queries.layer)];
  if (runs.empty()) {
    for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
      for (const Stretch& stretch : stretches_) {
        const SideCar& side_car = *attended_[size_t(stretch.sequence)].side_car;
        const PackedKeysView packed =
            options_.exact_keys ? PackedKeysView() : side_car.packed_keys(queries.layer, kv_head);
        runs.push_back({side_car.compressed_keys(queries.layer, kv_head), packed, stretch.first_window,
                        stretch.n_windows, stretch.first_block, stretch.n_blocks});
      }
      runs.emplace_back();
    }
  }
  const int n_own = queries.own_idx + queries.n_tokens;
  for (int kv_head = 0; kv_head < shape_.n_kv_heads; ++kv_head) {
    // Own windows come as tokens do, and so are never packed.
    runs[size_t(kv_head + 1) * n_runs - 1] = {queries.own->compressed_keys(queries.layer, kv_head), {}, 0,
                                              windows_in(n_own), n_context_, blocks_for(n_own)};
  }
  return runs;
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
