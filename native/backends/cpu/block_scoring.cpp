#include "backends/cpu/block_scoring.h"

#include <algorithm>
#include <limits>

#include "kv/selection.h"

namespace nosa::cpu {

BlockScoring::BlockScoring(const BlockScoresArgs& args)
    : args_(args),
      n_runs_(args.runs.size() / static_cast<size_t>(args.n_kv_heads)),
      group_(args.n_heads / args.n_kv_heads) {
  for (size_t i = 0; i < n_runs_; ++i) n_windows_ += run(0, i).n_windows;
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
  int64_t at = 0;
  for (size_t i = 0; i < n_runs_; ++i) {
    const int64_t n = run(kv_head, i).n_windows;
    run_logits(ops, kv_head, tokens, i, 0, n, logits + at);
    at += n;
  }
}

void BlockScoring::piece_logits(const Ops& ops, int kv_head, int64_t piece, float* logits) const {
  const int64_t begin = piece * piece_windows;
  const int64_t end = std::min(n_windows_, begin + piece_windows);
  int64_t at = 0;
  for (size_t i = 0; i < n_runs_ && at < end; ++i) {
    const int64_t n = run(kv_head, i).n_windows;
    const int64_t from = std::max<int64_t>(begin - at, 0);
    const int64_t to = std::min(end - at, n);
    if (from < to) run_logits(ops, kv_head, {0, 1}, i, from, to, logits + at);
    at += n;
  }
}

// Windows [begin, end) of a run; `logits` is where those of the run begin.
void BlockScoring::run_logits(const Ops& ops, int kv_head, Tokens tokens, size_t run_idx,
                              int64_t begin, int64_t end, float* logits) const {
  const int64_t token_floats = int64_t{args_.n_heads} * args_.head_dim;
  const int64_t key_bytes = int64_t{args_.head_dim} * block_bytes(args_.kv_dtype);
  WindowLogits slice;
  slice.q = args_.q + tokens.begin * token_floats + int64_t{kv_head} * group_ * args_.head_dim;
  slice.n_queries = (tokens.end - tokens.begin) * group_;
  slice.group = group_;
  slice.token_stride = token_floats;
  slice.head_dim = args_.head_dim;
  slice.scale = args_.scale;
  slice.kv_dtype = args_.kv_dtype;
  slice.keys = run(kv_head, run_idx).keys + begin * key_bytes;
  slice.n_windows = static_cast<int32_t>(end - begin);
  slice.logits = logits + begin;
  slice.logits_stride = n_windows_;
  ops.window_logits(slice);
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
