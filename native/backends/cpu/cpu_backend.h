#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/cpuid.h"
#include "backends/cpu/ops.h"
#include "core/aligned_buffer.h"
#include "core/status.h"
#include "core/thread_pool.h"

namespace nosa::cpu {

/// Memory that grows when asked for more and is reused from call to call; its contents do not last.
class Scratch {
 public:
  /// At least `n_bytes`, on a cache line. Aborts when the machine has no memory left.
  std::byte* reserve(int64_t n_bytes);

 private:
  AlignedBuffer buffer_;
};

/// The operations on the processor's own cores.
///
/// A product with a quantised weight quantises its input to 8 bits in blocks of 32 columns. With
/// `exact` it does not: weights are expanded to float32 instead, and attention sums in float32.
///
/// The result for a token has the same bits whatever the number of threads and of tokens in the
/// call: one token alone, as in decoding, gives what it gives inside a prefill. Instruction sets
/// differ from one another by rounding.
class CpuBackend final : public Backend {
 public:
  struct Options {
    int n_threads = 1;
    KernelChoice kernels = KernelChoice::kBest;
    bool exact = false;
  };

  /// Fails with kUnsupported for kernels that cannot run here, and as ThreadPool::create does.
  static Result<std::unique_ptr<CpuBackend>> create(const Options& options);

  std::string_view name() const override { return name_; }
  void embed(const WeightView& table, std::span<const uint32_t> ids, float* out) override;
  void rms_norm(const float* x, const float* weight, int n_tokens, int n_embd, float eps,
                float* out) override;
  void matmul(std::span<const MatmulTarget> targets, const float* x, int n_tokens) override;

  /// For each target that has an update: out += scale b^T a x. What matmul() does of its own accord, for another backend
  /// that has done the rest.
  void add_low_rank(std::span<const MatmulTarget> targets, const float* x, int n_tokens);

  void rope(const RopeArgs& args) override;
  void store_kv(const StoreKvArgs& args) override;
  void attend(const AttentionArgs& args) override;
  void score_blocks(const BlockScoresArgs& args) override;
  int n_workers() const override { return pool_->n_threads(); }
  void silu_mul(float* gate, const float* up, int64_t n) override;
  void add(float* x, const float* y, int64_t n) override;

 private:
  /// Cosines and sines of a call's positions, kept because every layer asks for the same.
  struct RopeTable {
    std::vector<float> inv_freq;
    int first_position = -1;
    float magnitude = 0.0f;
    std::vector<float> cosine;  // [n_tokens, n_rotated / 2]
    std::vector<float> sine;
  };

  CpuBackend(const Options& options, const Ops& ops, std::unique_ptr<ThreadPool> pool);

  const std::byte* quantize(const float* x, int n_tokens, int64_t n_cols);
  const std::byte* transpose(const float* x, int n_tokens, int64_t n_cols);

  /// Of every target with an update, one after the other: [n_tokens, rank]. Null when there is none.
  const float* low_rank_inner(std::span<const MatmulTarget> targets, const float* x, int n_tokens);
  void update_rope_table(const RopeArgs& args);

  /// Runs fn(begin, end) over [0, n) in a few pieces, in parallel when the work is worth it.
  template <typename Fn>
  void split(int64_t n, int64_t values_each, Fn&& fn);

  const Ops& ops_;
  const bool exact_;
  std::string name_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<Scratch> worker_scratch_;  // [n_threads]
  Scratch quant_tiles_;
  Scratch float_tiles_;
  Scratch low_rank_;
  Scratch attention_states_;
  Scratch attention_shares_;
  Scratch window_logits_;
  RopeTable rope_table_;
};

}  // namespace nosa::cpu
