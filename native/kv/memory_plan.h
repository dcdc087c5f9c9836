#pragma once

#include <cstdint>
#include <string>

#include "core/status.h"
#include "kv/block.h"
#include "kv/selection.h"

namespace nosa {

/// What is to be kept, and what it may take. Budgets count KV and side-cars, not weights.
struct MemoryDemand {
  KvShape shape;
  int64_t context_tokens = 0;  ///< Of the header and all segments.
  int64_t tail_tokens = 0;     ///< Of all tails together.
  int segment_tokens = 0;      ///< Of the longest segment.
  SelectionBudget selection;
  bool token_scores = false;   ///< An adapter adds a score to each token's logits, so they are kept.
  int64_t memory_bytes_max = 0;
  int64_t disk_bytes_max = 0;
};

/// Bytes by purpose.
struct MemoryPlan {
  int64_t side_car_bytes = 0;    ///< Compressed keys and scores, in memory for all tokens.
  int64_t index_bytes = 0;       ///< Tables of blocks: ids, places, checksums.
  int64_t block_bytes = 0;       ///< For extents in memory.
  int64_t disk_bytes = 0;        ///< Of all segments.
  int64_t resident_tokens = 0;   ///< Tokens whose blocks all fit in memory at once.

  int64_t memory_bytes() const { return side_car_bytes + index_bytes + block_bytes; }

  /// One line for the log and the status: what goes where.
  std::string describe() const;
};

/// Side-car bytes of `n_tokens` tokens, segment borders aside.
int64_t side_car_bytes(const KvShape& shape, int64_t n_tokens, bool token_scores);

/// Divides the budgets. Side-cars and tables come first, since selection reads all of them for every
/// token; blocks get the rest, at most what the whole context needs.
/// Fails with kOutOfMemory when too little is left for one step of one layer (the selected blocks and a
/// segment being read), and with kNoSpace when the segments do not fit the disk budget; the message
/// says what would fit.
Result<MemoryPlan> plan_memory(const MemoryDemand& demand);

}  // namespace nosa
