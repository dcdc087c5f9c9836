#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/status.h"
#include "kv/block_store.h"
#include "kv/disk_tier.h"
#include "model/model.h"
#include "session/sequence.h"

namespace nosa {

/// Names a sequence of a session. Never used twice.
enum class SequenceId : uint64_t {};

/// How much the KV cache may take.
struct KvLimits {
  size_t memory_bytes_max = std::numeric_limits<size_t>::max();
  /// Where blocks go that no saved file holds when memory is full. Empty: saved files are read whole
  /// and nothing leaves memory.
  std::string spill_folder;
  size_t spill_bytes_max = std::numeric_limits<size_t>::max();
};

struct MemoryUse {
  size_t kv_bytes = 0;   ///< Of held blocks, each counted once.
  size_t kv_blocks = 0;  ///< Blocks of one layer and KV head.
  size_t sequences = 0;  ///< Open ones, and closed ones that others attend.
  size_t resident_bytes = 0;   ///< Memory taken for blocks.
  size_t side_car_bytes = 0;   ///< Of all sequences.
  size_t memory_bytes_max = 0; ///< The limit, or 0.
  uint64_t disk_bytes_read = 0;
  uint64_t disk_bytes_written = 0;
  uint64_t blocks_read = 0;    ///< Blocks of one layer and KV head, from disk when they were wanted, ever.
  uint64_t blocks_prefetched = 0;  ///< The same, read ahead.
  uint64_t prefetched_used = 0;    ///< Of these, attended to before they left memory.
  uint64_t blocks_spilled = 0;         ///< Written to disk because a place in memory was needed.
  uint64_t blocks_written_behind = 0;  ///< And ahead of that.
  size_t device_bytes = 0;  ///< Of a GPU's memory, weights included.
  int step_sequences = 1;   ///< As Session::step_sequences(), now.
  std::string device;       ///< What computes now,
  std::string gpu_problem;  ///< and why it is not the GPU, see Model::gpu_problem().
};

/// A loaded model and everything computed with it: the block store and the sequences. A sequence
/// lives until it is closed and no other sequence attends it.
///
/// Not thread-safe: used by the native worker thread only.
class Session {
 public:
  static constexpr size_t sequences_max = 1 << 20;

  /// Fails as Model::open() does.
  static Result<std::unique_ptr<Session>> open(const ModelOptions& options,
                                               const KvLimits& limits = {});

  ~Session();

  const Model& model() const { return *model_; }

  /// A new, empty sequence; the attended ones are sealed.
  /// Fails with kInvalidArgument when one of them has tokens that wait, kDisposed when one is closed.
  Result<SequenceId> create_sequence(int base_position, std::span<const SequenceId> attended);

  /// See Sequence::fork(). Fails with kDisposed.
  Result<SequenceId> fork_sequence(SequenceId id);

  /// Fails with kDisposed when the sequence was closed. The pointer is good for this command.
  Result<Sequence*> sequence(SequenceId id);

  /// A sequence's part in decode_together().
  struct DecodeTask {
    SequenceId id{};
    DecodeRequest request;
  };

  /// See Sequence::decode_together(); a result for each task. One fails with kDisposed when its sequence was closed, with
  /// kInvalidArgument when that has a task before it.
  std::vector<Result<DecodeOutcome>> decode_together(std::span<const DecodeTask> tasks, const StopFlag& stop);

  /// Sequences that share a step of decode_together() at most; 1 where each takes steps of its own.
  int step_sequences() const { return model_->gpu() == nullptr ? 1 : model_->gpu()->step_sequences(); }

  /// Closes a sequence; closing it again does nothing.
  void close_sequence(SequenceId id);

  MemoryUse memory() const;

  /// From here on KV takes at most so much memory. Fails as BlockStore::limit(); the limit holds all the same.
  Status limit_memory(size_t bytes_max);

  /// Beside KV and weights: what computing takes, all of it from the first request on.
  size_t work_bytes() const {
    const DeviceNetwork* device = model_->device_network();
    return SequenceShared::work_bytes(model_->config()) + (device == nullptr ? 0 : device->host_bytes());
  }

  /// Aborts unless the books balance: blocks held by sequences against those of the store.
  void check_integrity() const;

 private:
  struct Entry {
    std::unique_ptr<Sequence> sequence;
    std::vector<SequenceId> attended;
    int n_holders = 0;  // The open handle, and each sequence that attends this one.
    bool open = true;
  };

  explicit Session(const KvLimits& limits) : limits_(limits) {}
  Result<SequenceId> add(std::unique_ptr<Sequence> sequence, std::vector<SequenceId> attended);
  void release(SequenceId id);

  KvLimits limits_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<DiskTier> disk_;  // Below the store, when there are limits.
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<SequenceShared> shared_;
  std::unordered_map<SequenceId, Entry> entries_;
  uint64_t last_id_ = 0;
};

}  // namespace nosa
