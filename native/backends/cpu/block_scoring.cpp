#include "backends/cpu/block_scoring.h"

#include <algorithm>
#include <limits>

#include "kv/selection.h"

namespace nosa::cpu {

BlockScoring::BlockScoring(const BlockScoresArgs& args)
    : args_(args),
      n_runs_(args.runs.size() / static_cast<size_t>(args.n_kv_heads)),
      group_(args.n_heads / args.n_kv_heads) {
  places_.reserve(n_runs_ + 1);
  places_.push_back({0, 0});
  for (size_t i = 0; i < n_runs_; ++i) {
    const WindowRun& each = run(0, i);
    const int64_t first_tile = each.first_window / kTileWindows;
    const int64_t end = int64_t{each.first_window} + each.n_windows;
    const int64_t n_tiles = each.n_windows == 0 ? 0 : (end + kTileWindows - 1) / kTileWindows - first_tile;
    places_.push_back({places_.back().window + each.n_windows, places_.back().tile + n_tiles});
  }
  n_windows_ = places_.back().window;
}

int BlockScoring::tokens_at_once() const {
  // Some fifty queries a key, as long as their logits stay in the second cache.
  const int queries = n_windows_ > 4096 ? 28 : 56;
  return std::clamp(queries / group_, 1, 16);
}

int64_t BlockScoring::logits_bytes(int n_tokens) const {
  return (int64_t{n_tokens} * group_ + 1) * (n_windows_ + 16) * int64_t{sizeof(float)};
}

void BlockScoring::logits(const Ops& ops, int kv_head, Tokens tokens, float* logits) const {
  for (size_t i = 0; i < n_runs_; ++i) {
    run_logits(ops, kv_head, tokens, i, 0, places_[i + 1].tile - places_[i].tile, logits);
  }
}

void BlockScoring::piece_logits(const Ops& ops, int kv_head, int64_t piece, float* logits) const {
  const int64_t begin = piece * piece_tiles;
  const int64_t end = begin + piece_tiles;
  const auto after = std::ranges::upper_bound(places_, begin, {}, &Place::tile);
  for (auto i = static_cast<size_t>(after - places_.begin()) - 1; i < n_runs_ && places_[i].tile < end; ++i) {
    const int64_t first = places_[i].tile;
    run_logits(ops, kv_head, {0, 1}, i, std::max<int64_t>(begin - first, 0),
               std::min(end, places_[i + 1].tile) - first, logits);
  }
}

// Tiles [first_tile, end_tile) of those that a run lies in; `logits` is where those of all runs begin.
void BlockScoring::run_logits(const Ops& ops, int kv_head, Tokens tokens, size_t run_idx,
                              int64_t first_tile, int64_t end_tile, float* logits) const {
  if (first_tile >= end_tile) return;
  const WindowRun& windows = run(kv_head, run_idx);
  const int64_t run_tile = windows.first_window / kTileWindows + first_tile;
  const int64_t begin = std::max<int64_t>(windows.first_window, run_tile * kTileWindows);
  const int64_t end = std::min(int64_t{windows.first_window} + windows.n_windows,
                               (run_tile + end_tile - first_tile) * kTileWindows);
  const int64_t token_floats = int64_t{args_.n_heads} * args_.head_dim;
  const bool packed = windows.packed.codes != nullptr;
  const int64_t value_bytes = packed ? 1 : block_bytes(args_.kv_dtype);
  const int64_t tile_bytes = int64_t{kTileWindows} * args_.head_dim * value_bytes;
  WindowLogits slice;
  slice.q = args_.q + tokens.begin * token_floats + int64_t{kv_head} * group_ * args_.head_dim;
  slice.n_queries = (tokens.end - tokens.begin) * group_;
  slice.group = group_;
  slice.token_stride = token_floats;
  slice.head_dim = args_.head_dim;
  slice.scale = args_.scale;
  slice.kv_dtype = args_.kv_dtype;
  slice.keys = (packed ? windows.packed.codes : windows.keys) + run_tile * tile_bytes;
  slice.first_window = static_cast<int32_t>(begin - run_tile * kTileWindows);
  slice.n_windows = static_cast<int32_t>(end - begin);
  slice.logits = logits + places_[run_idx].window + begin - windows.first_window;
  slice.logits_stride = n_windows_;
  if (!packed) return ops.window_logits(slice);
  slice.ranges = windows.packed.ranges + run_tile / PackedKeysView::kGroupTiles * 2 * args_.head_dim;
  slice.tile_in_group = static_cast<int32_t>(run_tile % PackedKeysView::kGroupTiles);
  ops.packed_logits(slice);
}

void BlockScoring::pool(const Ops& ops, int kv_head, Tokens tokens, float* logits) const {
  const int64_t n_queries = int64_t{tokens.end - tokens.begin} * group_;
  float* sums = logits + n_queries * n_windows_;
  const WindowRun& own = run(kv_head, n_runs_ - 1);
  for (int t = tokens.begin; t < tokens.end; ++t) {
    const int n_own = std::min(own.n_windows, windows_in(args_.own_start + t + 1));
    const int64_t n_seen = n_windows_ - own.n_windows + n_own;
    float* out = args_.out + (int64_t{t} * args_.n_kv_heads + kv_head) * args_.n_blocks;
    std::fill(out, out + args_.n_blocks, -std::numeric_limits<float>::infinity());
    if (n_seen == 0) continue;
    std::fill(sums, sums + n_seen, 0.0f);
    for (int g = 0; g < group_; ++g) {
      ops.add_softmax(logits + (int64_t{t - tokens.begin} * group_ + g) * n_windows_, n_seen, sums);
    }
    const float* at = sums;
    for (size_t i = 0; i < n_runs_; ++i) {
      const WindowRun& each = run(kv_head, i);
      const int n = i + 1 < n_runs_ ? each.n_windows : n_own;
      pool_windows({at, static_cast<size_t>(n)}, {out + each.first_block, static_cast<size_t>(each.n_blocks)});
      at += n;
    }
  }
}

}  // namespace nosa::cpu
