// The first stage of selection, cut into work that threads share.
//
// Logits of the queries of some tokens against all windows, [token, head of the group, window] with
// the windows of all runs in order; then, for each token, the softmax of every head, their sum in
// the order of heads, and the best window of each block. How it is cut changes no bit.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/ops.h"

namespace nosa::cpu {

class BlockScoring {
 public:
  /// `args` must outlive it.
  explicit BlockScoring(const BlockScoresArgs& args);

  /// Tokens [begin, end) of the call.
  struct Tokens {
    int begin;
    int end;
  };

  /// Tokens that share each compressed key once it is unpacked.
  int tokens_at_once() const;

  /// Scratch for the logits of `n_tokens` tokens of one KV head, and one row for their sums.
  int64_t logits_bytes(int n_tokens) const;

  void logits(const Ops& ops, int kv_head, Tokens tokens, float* logits) const;

  /// The same for one token, a piece at a time: piece 0 .. n_pieces() - 1.
  int64_t n_pieces() const { return (places_.back().tile + piece_tiles - 1) / piece_tiles; }
  void piece_logits(const Ops& ops, int kv_head, int64_t piece, float* logits) const;

  /// Writes the tokens' scores of the KV head's blocks.
  void pool(const Ops& ops, int kv_head, Tokens tokens, float* logits) const;

 private:
  static constexpr int64_t piece_tiles = 32;

  /// Where a run begins, counted over all runs of a KV head.
  struct Place {
    int64_t window;
    int64_t tile;
  };

  const WindowRun& run(int kv_head, size_t i) const {
    return args_.runs[static_cast<size_t>(kv_head) * n_runs_ + i];
  }
  void run_logits(const Ops& ops, int kv_head, Tokens tokens, size_t run_idx, int64_t first_tile,
                  int64_t end_tile, float* logits) const;

  const BlockScoresArgs& args_;
  size_t n_runs_;
  int group_;
  std::vector<Place> places_;  // [n_runs + 1], the last one is the end
  int64_t n_windows_ = 0;      // of all runs, for the last token
};

}  // namespace nosa::cpu
