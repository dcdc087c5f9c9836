#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "backends/cpu/attention.h"
#include "backends/cpu/block_scoring.h"
#include "backends/cpu/token_tiles.h"
#include "core/check.h"
#include "core/dequantize.h"

namespace nosa::cpu {
namespace {

/// Below this many values a loop ends before another thread could have joined it.
constexpr int64_t parallel_values_min = 16384;

/// Bytes of weights below which an item is not worth handing out.
constexpr int64_t item_bytes_min = 8192;

bool is_plain(DType dtype) { return block_values(dtype) == 1; }

int64_t n_panels_of(const WeightView& weight) {
  return (weight.rows + panel_rows - 1) / panel_rows;
}

}  // namespace

std::byte* Scratch::reserve(int64_t n_bytes) {
  if (static_cast<int64_t>(buffer_.bytes().size()) < n_bytes) {
    // Half as much again, so that a growing context does not allocate at every step.
    auto grown = AlignedBuffer::create(static_cast<size_t>(n_bytes + n_bytes / 2));
    CHECK(grown.ok());
    buffer_ = std::move(grown).value();
  }
  return buffer_.bytes().data();
}

Result<std::unique_ptr<CpuBackend>> CpuBackend::create(const Options& options) {
  auto ops = choose_ops(options.kernels);
  if (!ops.ok()) return ops.status();
  auto pool = ThreadPool::create({.n_threads = options.n_threads});
  if (!pool.ok()) return pool.status();
  return std::unique_ptr<CpuBackend>(new CpuBackend(options, **ops, std::move(pool).value()));
}

CpuBackend::CpuBackend(const Options& options, const Ops& ops, std::unique_ptr<ThreadPool> pool)
    : ops_(ops),
      exact_(options.exact),
      name_(std::string("CPU ") + ops.name + (options.exact ? " exact" : "")),
      pool_(std::move(pool)),
      worker_scratch_(static_cast<size_t>(options.n_threads)) {}

template <typename Fn>
void CpuBackend::split(int64_t n, int64_t values_each, Fn&& fn) {
  if (n * values_each < parallel_values_min) {
    if (n > 0) fn(int64_t{0}, n);
    return;
  }
  const int64_t n_pieces = std::min<int64_t>(n, 4 * pool_->n_threads());
  pool_->parallel_for(
      n_pieces, [&](int64_t piece, int) { fn(n * piece / n_pieces, n * (piece + 1) / n_pieces); });
}

void CpuBackend::embed(const WeightView& table, std::span<const uint32_t> ids, float* out) {
  split(static_cast<int64_t>(ids.size()), table.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const uint32_t id = ids[static_cast<size_t>(t)];
      CHECK(id < table.rows);
      dequantize_row(table.dtype, table.row(id), table.cols, out + t * table.cols);
    }
  });
}

void CpuBackend::rms_norm(const float* x, const float* weight, int n_tokens, int n_embd, float eps,
                          float* out) {
  split(n_tokens, n_embd, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      ops_.rms_norm(x + t * n_embd, weight, n_embd, eps, out + t * n_embd);
    }
  });
}

const std::byte* CpuBackend::quantize(const float* x, int n_tokens, int64_t n_cols) {
  const auto bytes = [n_cols](int width) { return quant_tile_bytes(width, n_cols); };
  const int64_t tile_bytes = bytes(tile_tokens_max);
  std::byte* out = quant_tiles_.reserve((n_tokens / tile_tokens_max + 2) * tile_bytes);
  split((n_tokens + tile_tokens_max - 1) / tile_tokens_max, tile_tokens_max * n_cols,
        [&](int64_t begin, int64_t end) {
          const int first = static_cast<int>(begin) * tile_tokens_max;
          const int n = std::min(n_tokens, static_cast<int>(end) * tile_tokens_max) - first;
          for_each_tile(n, bytes, [&](int t, int width, int64_t offset) {
            ops_.quantize_tile(x + (first + t) * n_cols, width, n_cols,
                               out + begin * tile_bytes + offset);
          });
        });
  return out;
}

const std::byte* CpuBackend::transpose(const float* x, int n_tokens, int64_t n_cols) {
  const auto bytes = [n_cols](int width) { return float_tile_bytes(width, n_cols); };
  std::byte* out = float_tiles_.reserve((n_tokens / tile_tokens_max + 2) * bytes(tile_tokens_max));
  for_each_tile(n_tokens, bytes, [&](int first, int width, int64_t offset) {
    ops_.transpose_tile(x + first * n_cols, width, n_cols, reinterpret_cast<float*>(out + offset));
  });
  return out;
}

const float* CpuBackend::low_rank_inner(std::span<const MatmulTarget> targets, const float* x,
                                        int n_tokens) {
  int64_t n_ranks = 0;
  for (const MatmulTarget& target : targets) {
    if (target.update != nullptr) n_ranks += target.update->rank;
  }
  if (n_ranks == 0) return nullptr;
  auto* out = reinterpret_cast<float*>(low_rank_.reserve(n_ranks * n_tokens * int64_t{sizeof(float)}));
  const int64_t n_cols = targets.front().weight->cols;
  split(n_tokens, n_ranks * n_cols, [&](int64_t begin, int64_t end) {
    float* of_target = out;
    for (const MatmulTarget& target : targets) {
      if (target.update == nullptr) continue;
      const int rank = target.update->rank;
      for (int64_t t = begin; t < end; ++t) {
        ops_.low_rank_inner(*target.update, x + t * n_cols, n_cols, of_target + t * rank);
      }
      of_target += int64_t{n_tokens} * rank;
    }
  });
  return out;
}

void CpuBackend::matmul(std::span<const MatmulTarget> targets, const float* x, int n_tokens) {
  if (targets.empty() || n_tokens == 0) return;
  const int64_t n_cols = targets.front().weight->cols;
  bool any_quantised = false;
  bool any_float = false;
  int64_t n_panels = 0;
  int64_t n_bytes = 0;
  for (const MatmulTarget& target : targets) {
    CHECK(target.weight->cols == n_cols);
    const bool quantised = !exact_ && !is_plain(target.weight->dtype);
    any_quantised |= quantised;
    any_float |= !quantised;
    n_panels += n_panels_of(*target.weight);
    n_bytes += target.weight->size_bytes();
  }
  const std::byte* quantised_x = any_quantised ? quantize(x, n_tokens, n_cols) : nullptr;
  const std::byte* float_x = any_float ? transpose(x, n_tokens, n_cols) : nullptr;
  const float* inner_all = low_rank_inner(targets, x, n_tokens);

  // Small items level out cores that are slowed by other programs. Those of one token are larger,
  // as the memory is read ahead within an item only.
  const int64_t items_max = (n_tokens == 1 ? 4 : 16) * int64_t{pool_->n_threads()};
  const int64_t items_wanted =
      std::clamp<int64_t>(n_bytes * n_tokens / item_bytes_min, 1, items_max);
  const int64_t panels_each = std::max<int64_t>(1, n_panels / items_wanted);
  int64_t n_items = 0;
  for (const MatmulTarget& target : targets) {
    n_items += (n_panels_of(*target.weight) + panels_each - 1) / panels_each;
  }
  for (Scratch& scratch : worker_scratch_) scratch.reserve(matmul_scratch_bytes(n_cols));

  pool_->parallel_for(n_items, [&](int64_t item, int worker) {
    const MatmulTarget* target = targets.data();
    const auto items_of = [panels_each](const WeightView& weight) {
      return (n_panels_of(weight) + panels_each - 1) / panels_each;
    };
    const float* inner = inner_all;
    for (; item >= items_of(*target->weight); ++target) {
      item -= items_of(*target->weight);
      if (target->update != nullptr) inner += int64_t{n_tokens} * target->update->rank;
    }
    const WeightView& weight = *target->weight;
    const bool quantised = !exact_ && !is_plain(weight.dtype);
    const int64_t rows_each = panels_each * panel_rows;
    const MatmulSlice slice = {
        .weight = &weight,
        .row_begin = item * rows_each,
        .row_end = std::min(weight.rows, (item + 1) * rows_each),
        .bias = target->bias,
        .tokens = quantised ? quantised_x : float_x,
        .n_tokens = n_tokens,
        .out = target->out,
        .scratch = worker_scratch_[static_cast<size_t>(worker)].reserve(0),
    };
    (quantised ? ops_.matmul_quant : ops_.matmul_float)(slice);
    if (target->update == nullptr) return;
    ops_.add_low_rank({
        .b = target->update->b,
        .inner = inner,
        .rank = target->update->rank,
        .n_rows = weight.rows,
        .row_begin = slice.row_begin,
        .row_end = slice.row_end,
        .n_tokens = n_tokens,
        .out = target->out,
    });
  });
}

void CpuBackend::add_low_rank(std::span<const MatmulTarget> targets, const float* x, int n_tokens) {
  const float* inner = low_rank_inner(targets, x, n_tokens);
  if (inner == nullptr) return;
  for (const MatmulTarget& target : targets) {
    if (target.update == nullptr) continue;
    const LowRankUpdate& update = *target.update;
    split(target.weight->rows, int64_t{update.rank} * n_tokens, [&](int64_t begin, int64_t end) {
      ops_.add_low_rank({
          .b = update.b,
          .inner = inner,
          .rank = update.rank,
          .n_rows = target.weight->rows,
          .row_begin = begin,
          .row_end = end,
          .n_tokens = n_tokens,
          .out = target.out,
      });
    });
    inner += int64_t{n_tokens} * update.rank;
  }
}

void CpuBackend::update_rope_table(const RopeArgs& args) {
  const int n_pairs = args.n_rotated / 2;
  const size_t n_values = static_cast<size_t>(args.n_tokens) * static_cast<size_t>(n_pairs);
  RopeTable& table = rope_table_;
  const std::span<const float> inv_freq(args.inv_freq, static_cast<size_t>(n_pairs));
  if (table.first_position == args.first_position && table.magnitude == args.magnitude &&
      table.cosine.size() >= n_values && std::ranges::equal(table.inv_freq, inv_freq)) {
    return;
  }
  table.inv_freq.assign(inv_freq.begin(), inv_freq.end());
  table.first_position = args.first_position;
  table.magnitude = args.magnitude;
  table.cosine.resize(n_values);
  table.sine.resize(n_values);
  split(args.n_tokens, int64_t{32} * n_pairs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * n_pairs; i < end * n_pairs; ++i) {
      const auto position = static_cast<double>(args.first_position + i / n_pairs);
      const double angle = position * inv_freq[static_cast<size_t>(i % n_pairs)];
      table.cosine[static_cast<size_t>(i)] = static_cast<float>(args.magnitude * std::cos(angle));
      table.sine[static_cast<size_t>(i)] = static_cast<float>(args.magnitude * std::sin(angle));
    }
  });
}

void CpuBackend::rope(const RopeArgs& args) {
  update_rope_table(args);
  const int64_t n_pairs = args.n_rotated / 2;
  split(args.n_tokens, int64_t{args.n_heads} * args.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int h = 0; h < args.n_heads; ++h) {
        ops_.rope(args.x + (t * args.n_heads + h) * args.head_dim,
                  rope_table_.cosine.data() + t * n_pairs, rope_table_.sine.data() + t * n_pairs,
                  args.n_rotated, args.pairing);
      }
    }
  });
}

void CpuBackend::store_kv(const StoreKvArgs& args) {
  const int64_t head_dim = args.head_dim;
  const int64_t value_bytes = block_bytes(args.kv_dtype);
  const auto n_own_blocks = static_cast<int64_t>(args.extents.size()) / args.n_kv_heads;
  CHECK((int64_t{args.own_start} + args.n_tokens + kBlockTokens - 1) / kBlockTokens <=
        n_own_blocks);
  const auto put = [&](const float* row, std::byte* at) {
    if (args.kv_dtype == DType::kF32) {
      std::memcpy(at, row, static_cast<size_t>(head_dim) * sizeof(float));
    } else {
      ops_.to_f16(row, head_dim, reinterpret_cast<uint16_t*>(at));
    }
  };
  split(args.n_tokens, args.n_kv_heads * head_dim * 2, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t own = args.own_start + t;
      for (int h = 0; h < args.n_kv_heads; ++h) {
        std::byte* extent =
            args.extents[static_cast<size_t>(h * n_own_blocks + own / kBlockTokens)];
        const int64_t row = (t * args.n_kv_heads + h) * head_dim;
        const int64_t slot = own % kBlockTokens;
        put(args.k + row, extent + slot * head_dim * value_bytes);
        put(args.v + row, extent + (kBlockTokens + slot) * head_dim * value_bytes);
      }
    }
  });
}

void CpuBackend::attend(const AttentionArgs& args) {
  if (args.n_tokens == 0) return;
  const AttentionPlan plan = plan_attention(args, pool_->n_threads());
  for (Scratch& scratch : worker_scratch_) scratch.reserve(plan.worker_bytes);
  auto* states = reinterpret_cast<float*>(attention_states_.reserve(plan.state_bytes));
  auto* shares = args.block_mass == nullptr
                     ? nullptr
                     : reinterpret_cast<BlockShare*>(attention_shares_.reserve(plan.share_bytes));
  const AttentionOps run_ops = exact_ ? AttentionOps{ops_.attend_exact, ops_.attend_picks_exact}
                                      : AttentionOps{ops_.attend, ops_.attend_picks};
  pool_->parallel_for(plan.n_items, [&](int64_t item, int worker) {
    std::byte* scratch = worker_scratch_[static_cast<size_t>(worker)].reserve(0);
    attend_item(args, plan, item, run_ops, states, shares, scratch);
  });
  if (plan.runs_apart) {
    split(int64_t{args.n_tokens} * args.n_heads, int64_t{plan.n_runs} * args.head_dim,
          [&](int64_t begin, int64_t end) { merge_runs(args, plan, states, begin, end); });
  }
  if (shares != nullptr) add_block_mass(args, plan, shares);
}

void CpuBackend::score_blocks(const BlockScoresArgs& args) {
  BlockScoring scoring(args);
  if (args.n_tokens == 1) {
    // One token: the threads share its windows, then its heads.
    auto* logits = reinterpret_cast<float*>(window_logits_.reserve(scoring.logits_bytes(1) * args.n_kv_heads));
    const int64_t head_floats = scoring.logits_bytes(1) / int64_t{sizeof(float)};
    const int64_t n_pieces = scoring.n_pieces();
    pool_->parallel_for(args.n_kv_heads * n_pieces, [&](int64_t item, int) {
      const int kv_head = static_cast<int>(item / n_pieces);
      scoring.piece_logits(ops_, kv_head, item % n_pieces, logits + kv_head * head_floats);
    });
    pool_->parallel_for(args.n_kv_heads, [&](int64_t kv_head, int worker) {
      scoring.pool(ops_, static_cast<int>(kv_head), {0, 1}, logits + kv_head * head_floats);
      if (args.scored) args.scored(0, static_cast<int>(kv_head), worker);
    });
    return;
  }
  const int n_each = scoring.tokens_at_once();
  const int n_shares = (args.n_tokens + n_each - 1) / n_each;
  for (Scratch& scratch : worker_scratch_) scratch.reserve(scoring.logits_bytes(n_each));
  pool_->parallel_for(int64_t{args.n_kv_heads} * n_shares, [&](int64_t item, int worker) {
    const int kv_head = static_cast<int>(item / n_shares);
    const int first = static_cast<int>(item % n_shares) * n_each;
    const BlockScoring::Tokens tokens{first, std::min(args.n_tokens, first + n_each)};
    auto* logits = reinterpret_cast<float*>(worker_scratch_[static_cast<size_t>(worker)].reserve(0));
    scoring.logits(ops_, kv_head, tokens, logits);
    scoring.pool(ops_, kv_head, tokens, logits);
    for (int t = tokens.begin; args.scored && t < tokens.end; ++t) args.scored(t, kv_head, worker);
  });
}

void CpuBackend::silu_mul(float* gate, const float* up, int64_t n) {
  split(n, 1,
        [&](int64_t begin, int64_t end) { ops_.silu_mul(gate + begin, up + begin, end - begin); });
}

void CpuBackend::add(float* x, const float* y, int64_t n) {
  split(n, 1, [&](int64_t begin, int64_t end) { ops_.add(x + begin, y + begin, end - begin); });
}

}  // namespace nosa::cpu
