#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "cuda/library.h"
#include "formats/weights.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/device_kv.h"
#include "model/forward_pass.h"
#include "model/stop_flag.h"

namespace nosa {

/// The network of class Llama, computed on a GPU.
///
/// The block store in host memory keeps what it has without a GPU: each pass computed here is copied back, in the same
/// bytes as the processor's cores would store, so that saving, forking and selecting work alike, and the cores can take over
/// at any pass. What the GPU needs to attend to is copied to pages of its own (page-locked host memory, see cuda/runner.h)
/// the first time, and stays until room is needed. The first sequence longer than the GPU was opened for makes it take more
/// memory, if there is; for that all copies go.
///
/// Numbers are those of the cores within the rounding of 16-bit operands; a token computed in a chunk and one computed
/// alone differ likewise.
///
/// Not thread-safe: used by the native worker thread only.
class DeviceNetwork {
 public:
  /// With `keeps_choices`, for tests, selectors that record are told what the GPU chose. Fails as CudaLibrary::open() and
  /// DeviceSource::create(), with kUnsupported when the GPU cannot be used or does not take the model, with kOutOfMemory when
  /// it does not fit.
  static Result<std::unique_ptr<DeviceNetwork>> create(const std::string& library_path, const Weights& weights,
                                                       const Adapter* adapter, const ModelConfig& config, const KvShape& kv_shape,
                                                       int n_threads, bool keeps_choices = false);
  ~DeviceNetwork();
  DeviceNetwork(const DeviceNetwork&) = delete;
  DeviceNetwork& operator=(const DeviceNetwork&) = delete;

  /// False once the GPU has failed; problem() says why then.
  bool usable() const { return runner_ != nullptr; }
  const std::string& problem() const { return problem_; }

  const std::string& name() const { return name_; }

  /// Page-locked host memory that it took.
  size_t host_bytes() const { return size_t(plan_.host_bytes); }
  size_t device_bytes() const { return size_t(plan_.device_bytes); }

  /// Blocks that a sequence on the GPU sees at most, now: more are taken when one has more.
  int n_blocks_max() const { return plan_.n_blocks_max; }

  /// Tokens from `first` on that one pass takes at most: some milliseconds' worth, and all of one kind.
  int pass_tokens(const PassTarget& target, int first) const;

  enum class Outcome {
    kDone,
    kInterrupted,  ///< While blocks were copied to the GPU; the same call goes on.
    kNotHere,      ///< The cores must do it: it does not fit, the GPU does not do it, or it failed.
  };

  /// Computes a pass that has no buffers. Unless it is done, nothing has changed but what is copied.
  /// Fails as the block store does.
  Result<Outcome> compute(ForwardPass& pass, const PassTarget& target, const StopFlag& stop);

  /// Sequences whose next tokens one step computes.
  int step_sequences() const { return plan_.step_sequences; }

  /// A pass of one token behind all that is computed, of another sequence than its neighbours'.
  struct Together {
    ForwardPass* pass = nullptr;
    PassTarget target;
    Status status;                  ///< Of the block store, for this one.
    uint64_t n_loaded = 0;          ///< Blocks that it took from disk.
    bool computed = false;          ///< Else nothing has changed but what is copied.
    bool shared = false;            ///< Whether others were computed in the same step.
    const float* logits = nullptr;  ///< Of the token that follows, [n_vocab], once it is computed; good until the next call.
  };

  /// Computes those of the passes that go with one another in one step. Each is as compute() would have it, within the
  /// rounding of float32: how attention is summed up depends on how many sequences a step has.
  void compute_together(std::span<Together> passes, const StopFlag& stop);

  /// As Llama::logits(), at once; false when the GPU does not do it.
  bool logits(const float* hidden, int n_tokens, float* out);
  int logits_rows_per_step() const { return plan_.head_rows; }

  /// Brings what a sequence attends to the GPU ahead of its first pass. As compute().
  Result<Outcome> load_attended(const PassTarget& target, const StopFlag& stop);

 private:
  friend class DeviceKv;

  DeviceNetwork(std::unique_ptr<CudaLibrary> library, const KvShape& kv_shape, int n_embd)
      : library_(std::move(library)), kv_shape_(kv_shape), n_embd_(n_embd) {}

  const NosaCudaRunnerFunctions& calls() const { return *library_->functions().runner; }
  void give_up(const std::string& why);
  void lose_all();
  Outcome failed(const NosaCudaError& error);

  void begin_use() { in_use_since_ = clock_ + 1; }
  Result<Outcome> prepare(const PassTarget& target, int n_own, const StopFlag& stop);
  void make_long_enough(const PassTarget& target, int n_own);
  bool fits_together(Together& of, const StopFlag& stop);
  Status take(uint64_t key, const NosaCudaAdvanced& advanced, ForwardPass& pass, const PassTarget& target, Outcome& outcome);
  Result<Outcome> bring(DeviceKv& kv, const BlockTable& blocks, const SideCar& side_car, int n_tokens, const StopFlag& stop);
  Result<Outcome> bring_block(DeviceKv& kv, const BlockTable& blocks, const SideCar& side_car, int block, int n_tokens);
  Outcome attend(DeviceKv& kv, const PassTarget& target);
  Outcome select(DeviceKv& kv, const BlockSelector& selector);
  Outcome cut(DeviceKv& kv, int n_tokens);
  bool make_room();
  void drop(DeviceKv& kv);
  void forget(DeviceKv& kv);

  Result<Outcome> run(uint64_t key, ForwardPass& pass, const PassTarget& target);
  Status take_rows(uint64_t key, const ForwardPass& pass, const PassTarget& target, Outcome& outcome);
  Status take_block(uint64_t key, const PassTarget& target, int block, int first_row, int n_rows, Outcome& outcome);
  void take_detail(const NosaCudaAdvanced& advanced, ForwardPass& pass, const PassTarget& target) const;
  void take_choices(std::span<const Together> passes) const;

  std::unique_ptr<CudaLibrary> library_;
  KvShape kv_shape_;
  int n_embd_;
  std::string name_;
  std::string problem_;
  NosaCudaRunner* runner_ = nullptr;  // Null once given up.
  NosaCudaPlan plan_ = {};
  int n_blocks_refused_ = std::numeric_limits<int>::max();  // So many are more than there will ever be room for.
  std::vector<DeviceKv*> there_;  // Those that have something on the GPU.
  uint64_t clock_ = 0;
  uint64_t in_use_since_ = 0;  // What was used since then must stay.
  double token_seconds_ = 0.0;  // Of a chunk, as last measured; 0 when none was.

  // Scratch, by stream.
  std::vector<BlockId> ids_;
  std::vector<const uint8_t*> extents_;
  std::vector<uint8_t*> writable_;
  std::vector<uint16_t> compressed_;
  std::vector<float> token_scores_;
  std::vector<float> window_scores_;
};

}  // namespace nosa
