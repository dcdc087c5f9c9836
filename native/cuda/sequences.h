#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/status.h"
#include "cuda/page_pool.h"
#include "kernels/layout.h"

namespace nosa::cuda {

/// Names a sequence of a runner. Never used twice.
enum class SequenceKey : uint64_t {};

/// Tokens from a base position on, which see their predecessors and all tokens of the sequences they
/// attend. Its own blocks are pages of the pool; those of the attended ones are borrowed.
struct Sequence {
  static constexpr int no_lane = -1;

  int base_position = 0;
  std::vector<SequenceKey> attended;
  std::vector<int32_t> attended_pages;    // Of all attended sequences, in order.
  std::vector<BlockInfo> attended_info;   // Likewise.
  int n_masked = 0;                       // Of these, never seen.
  int step = 0;                           // Which of the runner's steps computes it.
  bool attends_all = false;               // Whatever the step would choose.
  std::vector<uint32_t> tokens;
  int n_computed = 0;                     // Tokens whose keys and values are there.
  std::vector<int32_t> pages;             // Own ones, for at least the computed tokens.
  int n_attending = 0;                    // Sequences that attend this one.
  bool open = true;
  int lane = no_lane;                     // Where it is bound; its unfinished tail lies there alone.

  int n_blocks(int n_own_tokens) const { return int(attended_pages.size()) + blocks_for(n_own_tokens); }
  int n_open_blocks(int n_own_tokens) const { return n_blocks(n_own_tokens) - n_masked; }
};

/// The sequences of a runner, and who shares which page. Knows of lanes only that a sequence may be in
/// one; whoever binds and unbinds must do so before a bound sequence is forked, cut or closed.
///
/// Not thread-safe.
class Sequences {
 public:
  /// `pool` must outlive this.
  explicit Sequences(PagePool& pool) : pool_(pool) {}
  ~Sequences();

  /// A new, empty sequence. Fails with kInvalidArgument when an attended one has tokens that wait,
  /// with kDisposed when one is closed.
  Result<SequenceKey> create(int base_position, std::span<const SequenceKey> attended);

  /// Lets a sequence that attends nothing attend these. Fails as create(). REQUIRES: not bound.
  Status attend(SequenceKey key, std::span<const SequenceKey> attended);

  /// Flags of the attended blocks, [attended blocks] or empty for none: bit 0 masked, bit 1 pinned. Windows that
  /// reach into a masked block go with it, for they would tell of it. REQUIRES: not bound.
  void mark(Sequence& sequence, std::span<const uint8_t> flags);
  static constexpr uint8_t masked_flag = 1;
  static constexpr uint8_t pinned_flag = 2;

  /// A copy that shares all pages. REQUIRES: the sequence is not bound.
  Result<SequenceKey> fork(SequenceKey key);

  /// Closes a sequence; it goes when no other attends it. REQUIRES: not bound.
  void close(SequenceKey key);

  /// Fails with kDisposed when the sequence was closed.
  Result<Sequence*> get(SequenceKey key);

  /// Cuts what is computed to `n_tokens`, releasing pages. REQUIRES: not bound, not attended.
  void cut(Sequence& sequence, int n_tokens);

  /// Takes pages until `n_tokens` own tokens have room. Fails with kOutOfMemory.
  Status grow(Sequence& sequence, int n_tokens);

  /// Makes every page that computing the next tokens writes to the sequence's own, copying those that others hold in the
  /// order of `stream`; gives the pages that are new. Beside the next token's page it is the one before while its last window
  /// is open: that window is kept there, and ends in the next token's block. REQUIRES: not bound.
  Result<std::vector<int32_t>> own_tail(Sequence& sequence, cudaStream_t stream);

  size_t n_open() const { return entries_.size(); }

  /// Whether any sequence is computed by the runner's step `step`.
  bool use_step(int step) const;
  /// Steps behind `step` have moved up by one.
  void step_removed(int step);

 private:
  void release(SequenceKey key);
  Status check_attendable(std::span<const SequenceKey> attended);
  void list_attended(Sequence& sequence);

  PagePool& pool_;
  std::unordered_map<SequenceKey, Sequence> entries_;
  uint64_t last_key_ = 0;
};

}  // namespace nosa::cuda
