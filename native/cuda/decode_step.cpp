#include "cuda/decode_step.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "cuda/head.h"
#include "cuda/step_buffers.h"
#include "kernels/advance_step.h"
#include "kernels/append_kv.h"
#include "kernels/argmax.h"
#include "kernels/attend_blocks.h"
#include "kernels/block_mass.h"
#include "kernels/embed.h"
#include "kernels/gated_linear.h"
#include "kernels/gather_blocks.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_angles.h"
#include "kernels/score_blocks.h"
#include "kernels/select_blocks.h"

namespace nosa::cuda {
namespace {

constexpr const char* computing = "Computing a step on the GPU";

bool selects(const StepOptions& options) { return options.policy != Policy::kFull; }

}  // namespace

/// Everything that a step writes, on the device. Planned from capacities alone.
struct DecodeStep::Buffers {
  // The command.
  int32_t* lanes = nullptr;    // [n_seqs]
  int32_t* ids = nullptr;      // [n_rows]
  int32_t* n_new = nullptr;    // [n_seqs] of a feed step
  int32_t* drawn = nullptr;    // [n_rows]
  int32_t* teacher = nullptr;  // [n_steps_max, n_seqs]
  int32_t* history = nullptr;  // [n_steps_max, n_seqs]
  int32_t* cursor = nullptr;   // of the command
  uint32_t* step = nullptr;    // ever
  // Activations.
  float* x = nullptr;            // [n_rows, n_embd], the residual stream
  std::byte* normed = nullptr;   // Operand [n_rows, n_embd]
  float* q = nullptr;            // [n_rows, n_heads, head_dim]
  float* k = nullptr;            // [n_rows, n_kv_heads, head_dim]
  float* v = nullptr;            // likewise
  std::byte* attn_operand = nullptr;  // Operand [n_rows, n_heads * head_dim]
  std::byte* gated = nullptr;    // Operand [n_rows, n_ff]
  float* logits = nullptr;       // [n_seqs, n_vocab]
  float2* rotation = nullptr;    // [n_rows, n_rotated / 2]
  RowPlace* places = nullptr;    // [n_rows]
  // Selection.
  float2* best = nullptr;        // [n_rows, n_kv_heads, n_blocks_max]
  std::byte* score_scratch = nullptr;
  SelectedBlock* selected = nullptr;  // [n_rows, n_kv_heads, n_selected_max], of the layer at hand or of each
  int32_t* n_selected = nullptr;      // [n_rows, n_kv_heads], likewise
  int32_t* load_pages = nullptr;  // [n_seqs, n_kv_heads, n_slots]
  int32_t* load_slots = nullptr;  // likewise
  int32_t* n_loads = nullptr;    // [n_seqs, n_kv_heads]
  unsigned long long* n_loads_total = nullptr;  // [n_lanes]
  int32_t* failed = nullptr;
  float* linear_scratch = nullptr;
  std::byte* attention_parts = nullptr;
  std::byte* argmax_scratch = nullptr;
  // Of a step with detail, see block_mass.h; [n_layers, n_seqs, n_kv_heads, ...].
  float* mass = nullptr;
  int32_t* mass_blocks = nullptr;
  int32_t* n_mass_blocks = nullptr;
  // The eviction ranking, [n_layers, n_lanes, n_kv_heads, ...].
  int32_t* rank_blocks = nullptr;
  float* rank_scores = nullptr;
  int32_t* rank_entries = nullptr;
  int32_t* rank_own = nullptr;

  DeviceBuffer memory;

  BufferPlan plan(const ModelShape& shape, int n_lanes, int n_blocks_max, int n_slots, const StepOptions& options,
                  int n_seqs, int n_rows);
};

BufferPlan DecodeStep::Buffers::plan(const ModelShape& shape, int n_lanes, int n_blocks_max, int n_slots,
                                     const StepOptions& options, int n_seqs, int n_rows) {
  const size_t seqs = size_t(n_seqs);
  const size_t rows = size_t(n_rows);
  const size_t heads = size_t(shape.n_kv_heads);
  const size_t selected_max = size_t(options.budget.total_blocks);
  const size_t streams = size_t(shape.n_layers) * size_t(n_lanes) * heads;
  // An operand's type is known with the weights alone; 16-bit values are the largest.
  const auto operand_max = [&](int cols) { return operand_bytes(OperandType::kF16, n_rows, cols) + operand_bytes(OperandType::kQ8, n_rows, cols); };

  BufferPlan plan;
  plan.add(lanes, seqs);
  plan.add(ids, rows);
  plan.add(n_new, seqs);
  plan.add(drawn, rows);
  plan.add(teacher, size_t(n_steps_max) * seqs);
  plan.add(history, size_t(n_steps_max) * seqs);
  plan.add(cursor, 1);
  plan.add(step, 1);
  plan.add(x, rows * size_t(shape.n_embd));
  plan.add(normed, operand_max(shape.n_embd));
  plan.add(q, rows * size_t(shape.q_width()));
  plan.add(k, rows * size_t(shape.kv_width()));
  plan.add(v, rows * size_t(shape.kv_width()));
  plan.add(attn_operand, operand_max(shape.q_width()));
  plan.add(gated, operand_max(shape.n_ff));
  plan.add(logits, seqs * size_t(shape.n_vocab));
  plan.add(rotation, rows * size_t(shape.n_rotated) / 2);
  plan.add(places, rows);
  plan.add(n_loads_total, size_t(n_lanes));
  plan.add(failed, 1);
  plan.add(attention_parts, attention_parts_bytes(n_rows, shape.n_heads, shape.head_dim));
  const size_t linear_scratch_most =
      std::max({linear_scratch_bytes(n_rows, shape.q_width() + 2 * shape.kv_width()), linear_scratch_bytes(n_rows, shape.n_embd),
                linear_scratch_bytes(n_rows, 2 * shape.n_ff), linear_scratch_bytes(n_seqs, shape.n_vocab)});
  plan.add(linear_scratch, linear_scratch_most / sizeof(float));
  plan.add(argmax_scratch, argmax_scratch_bytes(n_seqs));
  if (!selects(options)) return plan;
  const size_t n_kept = options.keeps_choices ? size_t(shape.n_layers) : 1;
  plan.add(selected, n_kept * rows * heads * selected_max);
  plan.add(n_selected, n_kept * rows * heads);
  plan.add(best, rows * heads * size_t(n_blocks_max));
  plan.add(score_scratch, score_blocks_scratch_bytes(n_rows, shape.n_heads, shape.n_kv_heads, n_blocks_max));
  plan.add(load_pages, seqs * heads * size_t(n_slots));
  plan.add(load_slots, seqs * heads * size_t(n_slots));
  plan.add(n_loads, seqs * heads);
  const size_t lists = size_t(shape.n_layers) * seqs * heads;
  plan.add(mass, lists * selected_max);
  plan.add(mass_blocks, lists * selected_max);
  plan.add(n_mass_blocks, lists);
  plan.add(rank_blocks, streams * selected_max);
  plan.add(rank_scores, streams * selected_max);
  plan.add(rank_entries, streams);
  plan.add(rank_own, streams);
  return plan;
}

DecodeStep::DecodeStep(const DeviceModel& model, const PagePool& pool, LaneMemory& lanes, const StepOptions& options,
                       int n_seqs_max)
    : model_(model),
      pool_(pool),
      lanes_(lanes),
      options_(options),
      n_seqs_max_(n_seqs_max),
      n_rows_max_(std::max(n_seqs_max, kQueriesMax)),
      buffers_(std::make_unique<Buffers>()) {}

DecodeStep::~DecodeStep() {
  for (const auto& [kind, exec] : graphs_) cudaGraphExecDestroy(exec);
}

size_t DecodeStep::bytes_for(const ModelShape& shape, int n_lanes, int n_blocks_max, int n_slots,
                             const StepOptions& options, int n_seqs_max) {
  Buffers buffers;
  return buffers.plan(shape, n_lanes, n_blocks_max, n_slots, options, n_seqs_max, std::max(n_seqs_max, kQueriesMax)).bytes();
}

Result<std::unique_ptr<DecodeStep>> DecodeStep::create(const DeviceModel& model, const PagePool& pool, LaneMemory& lanes,
                                                       const StepOptions& options, int n_seqs_max) {
  CHECK(n_seqs_max >= 1 && n_seqs_max <= kLinearRowsMax);
  if (options.policy == Policy::kFull && !pool.resident()) {
    return Status::unsupported("Attending to every block needs all keys and values in device memory.");
  }
  if (Status status = validate(options.budget); !status.ok()) return status;
  if (options.policy != Policy::kFull && options.budget.total_blocks > kSelectedMax) {
    return Status::unsupported("The GPU selects at most " + std::to_string(kSelectedMax) + " blocks.");
  }
  if (!pool.resident() && lanes.n_slots() < options.budget.total_blocks) {
    return Status::invalid_argument("A stream needs at least as many slots as blocks are selected.");
  }
  if (!pool.resident() && options.budget.window_blocks < 2) {
    return Status::unsupported("The GPU needs a window of two blocks, so that a finished one stays while it is written back.");
  }
  std::unique_ptr<DecodeStep> step(new DecodeStep(model, pool, lanes, options, n_seqs_max));
  if (Status status = step->take_memory(); !status.ok()) return status;
  return step;
}

Status DecodeStep::take_memory() {
  const BufferPlan plan = buffers_->plan(model_.shape(), lanes_.n_lanes(), lanes_.n_blocks_max(), lanes_.n_slots(),
                                         options_, n_seqs_max_, n_rows_max_);
  Result<DeviceBuffer> memory = plan.take("the activations of a step");
  if (!memory.ok()) return memory.status();
  buffers_->memory = *std::move(memory);
  return {};
}

EvictionRanking DecodeStep::ranking(int layer) const {
  const size_t capacity = size_t(options_.budget.total_blocks);
  const size_t first = size_t(layer) * size_t(lanes_.n_lanes()) * size_t(model_.shape().n_kv_heads);
  const Buffers& b = *buffers_;
  return {b.rank_blocks + first * capacity, b.rank_scores + first * capacity, b.rank_entries + first, b.rank_own + first,
          int(capacity)};
}

Status DecodeStep::rank(int lane, int n_attended, int n_own_tokens, cudaStream_t stream) {
  if (options_.policy != Policy::kNosa) return {};
  for (int layer = 0; layer < model_.shape().n_layers; ++layer) {
    RankBlocksParams params = {};
    params.blocks = lanes_.blocks();
    params.side_car = pool_.side_car(layer);
    params.ranking = ranking(layer);
    params.lane = lane;
    params.n_attended = n_attended;
    params.n_own_tokens = n_own_tokens;
    params.window_blocks = options_.budget.window_blocks;
    params.n_kv_heads = model_.shape().n_kv_heads;
    NOSA_CUDA_TRY(rank_blocks(params, stream), "Ranking the blocks of a sequence");
  }
  return {};
}

Status DecodeStep::set_rows(std::span<const int32_t> lanes, std::span<const int32_t> ids, cudaStream_t stream) {
  NOSA_CUDA_TRY(cudaMemcpyAsync(buffers_->lanes, lanes.data(), lanes.size_bytes(), cudaMemcpyHostToDevice, stream), computing);
  NOSA_CUDA_TRY(cudaMemcpyAsync(buffers_->ids, ids.data(), ids.size_bytes(), cudaMemcpyHostToDevice, stream), computing);
  return {};
}

Status DecodeStep::begin(std::span<const int32_t> lanes, std::span<const int32_t> ids, std::span<const int32_t> teacher,
                         int n_steps, cudaStream_t stream) {
  CHECK(lanes.size() == ids.size() && !lanes.empty() && lanes.size() <= size_t(n_seqs_max_));
  CHECK(n_steps >= 1 && n_steps <= n_steps_max && (teacher.empty() || teacher.size() == lanes.size() * size_t(n_steps)));
  n_seqs_ = int(lanes.size());
  NOSA_TRY(set_rows(lanes, ids, stream));
  std::vector<int32_t> given(size_t(n_steps) * size_t(n_seqs_max_), -1);
  for (size_t i = 0; i < teacher.size(); ++i) {
    given[i / lanes.size() * size_t(n_seqs_max_) + i % lanes.size()] = teacher[i];
  }
  NOSA_CUDA_TRY(cudaMemcpyAsync(buffers_->teacher, given.data(), given.size() * sizeof(int32_t), cudaMemcpyHostToDevice, stream), computing);
  NOSA_CUDA_TRY(cudaMemsetAsync(buffers_->cursor, 0, sizeof(int32_t), stream), computing);
  return {};
}

Status DecodeStep::decode(cudaStream_t stream, bool detail) {
  CHECK(!detail || selects(options_));
  const Result<cudaGraphExec_t> exec = graph({n_seqs_, 1, detail}, stream);
  if (!exec.ok()) return exec.status();
  NOSA_CUDA_TRY(cudaGraphLaunch(*exec, stream), computing);
  return {};
}

Status DecodeStep::feed(int lane, std::span<const int32_t> ids, cudaStream_t stream) {
  CHECK(!ids.empty() && ids.size() <= size_t(kQueriesMax));
  std::vector<int32_t> rows(ids.begin(), ids.end());
  rows.resize(kQueriesMax, -1);
  const int32_t lane_idx = lane;
  const int32_t n_new = int32_t(ids.size());
  NOSA_TRY(set_rows({&lane_idx, 1}, rows, stream));
  NOSA_CUDA_TRY(cudaMemcpyAsync(buffers_->n_new, &n_new, sizeof(n_new), cudaMemcpyHostToDevice, stream), computing);
  const Result<cudaGraphExec_t> exec = graph({1, kQueriesMax}, stream);
  if (!exec.ok()) return exec.status();
  NOSA_CUDA_TRY(cudaGraphLaunch(*exec, stream), computing);
  return {};
}

Status DecodeStep::read_tokens(int n_steps, std::vector<int32_t>& tokens, cudaStream_t stream) {
  tokens.resize(size_t(n_steps) * size_t(n_seqs_));
  NOSA_CUDA_TRY(cudaMemcpy2DAsync(tokens.data(), size_t(n_seqs_) * sizeof(int32_t), buffers_->history,
                                  size_t(n_seqs_max_) * sizeof(int32_t), size_t(n_seqs_) * sizeof(int32_t), size_t(n_steps),
                                  cudaMemcpyDeviceToHost, stream),
                computing);
  return check(stream);
}

Status DecodeStep::read_logits(int seq, std::vector<float>& logits, cudaStream_t stream) {
  const size_t n_vocab = size_t(model_.shape().n_vocab);
  logits.resize(n_vocab);
  NOSA_CUDA_TRY(cudaMemcpyAsync(logits.data(), buffers_->logits + size_t(seq) * n_vocab, n_vocab * sizeof(float),
                                cudaMemcpyDeviceToHost, stream),
                computing);
  return check(stream);
}

const float* DecodeStep::device_hidden() const { return buffers_->x; }
const float* DecodeStep::device_logits() const { return buffers_->logits; }

Status DecodeStep::read_details(std::vector<StepDetail>& details, cudaStream_t stream) {
  const size_t n_seqs = size_t(n_seqs_);
  const size_t n_heads = size_t(model_.shape().n_kv_heads);
  const size_t n_layers = size_t(model_.shape().n_layers);
  const size_t n_max = size_t(options_.budget.total_blocks);
  StepDetail all;
  all.n_blocks.resize(n_layers * n_seqs * n_heads);
  all.blocks.resize(all.n_blocks.size() * n_max);
  all.mass.resize(all.blocks.size());
  const auto read = [&](auto& to, const auto* from) {
    return to_status(cudaMemcpyAsync(to.data(), from, to.size() * sizeof(to[0]), cudaMemcpyDeviceToHost, stream), computing);
  };
  NOSA_TRY(read(all.n_blocks, buffers_->n_mass_blocks));
  NOSA_TRY(read(all.blocks, buffers_->mass_blocks));
  NOSA_TRY(read(all.mass, buffers_->mass));
  NOSA_TRY(check(stream));
  details.assign(n_seqs, {});
  for (size_t list = 0; list < n_layers * n_seqs; ++list) {  // Of n_heads each.
    StepDetail& detail = details[list % n_seqs];
    detail.n_selected_max = int(n_max);
    const auto take = [&](auto& to, const auto& from, size_t width) {
      const auto first = from.begin() + long(list * width);
      to.insert(to.end(), first, first + long(width));
    };
    take(detail.n_blocks, all.n_blocks, n_heads);
    take(detail.blocks, all.blocks, n_heads * n_max);
    take(detail.mass, all.mass, n_heads * n_max);
  }
  return {};
}

Status DecodeStep::read_choices(int n_rows, StepChoices& choices, cudaStream_t stream) {
  CHECK(selects(options_) && options_.keeps_choices && n_rows <= n_rows_max_);
  const ModelShape& shape = model_.shape();
  choices.n_rows = n_rows;
  choices.n_kv_heads = shape.n_kv_heads;
  choices.n_selected_max = options_.budget.total_blocks;
  const size_t n_lists = size_t(n_rows) * size_t(shape.n_kv_heads);
  const size_t n_entries = n_lists * size_t(choices.n_selected_max);
  choices.n_blocks.resize(size_t(shape.n_layers) * n_lists);
  choices.selected.resize(size_t(shape.n_layers) * n_entries);
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    NOSA_CUDA_TRY(cudaMemcpyAsync(choices.n_blocks.data() + size_t(layer) * n_lists, n_selected(layer), n_lists * sizeof(int32_t),
                                  cudaMemcpyDeviceToHost, stream),
                  computing);
    NOSA_CUDA_TRY(cudaMemcpyAsync(choices.selected.data() + size_t(layer) * n_entries, selected(layer),
                                  n_entries * sizeof(SelectedBlock), cudaMemcpyDeviceToHost, stream),
                  computing);
  }
  return check(stream);
}

Status DecodeStep::start_counting(int lane, cudaStream_t stream) {
  return to_status(cudaMemsetAsync(buffers_->n_loads_total + lane, 0, sizeof(buffers_->n_loads_total[0]), stream), computing);
}

Status DecodeStep::start_counting_all(cudaStream_t stream) {
  const size_t bytes = size_t(lanes_.n_lanes()) * sizeof(buffers_->n_loads_total[0]);
  return to_status(cudaMemsetAsync(buffers_->n_loads_total, 0, bytes, stream), computing);
}

Status DecodeStep::read_count(int lane, uint64_t& n_loads, cudaStream_t stream) {
  NOSA_CUDA_TRY(cudaMemcpyAsync(&n_loads, buffers_->n_loads_total + lane, sizeof(n_loads), cudaMemcpyDeviceToHost, stream), computing);
  return check(stream);
}

Status DecodeStep::read_loads(std::vector<unsigned long long>& loads, cudaStream_t stream) {
  loads.resize(size_t(lanes_.n_lanes()));
  NOSA_CUDA_TRY(cudaMemcpyAsync(loads.data(), buffers_->n_loads_total, loads.size() * sizeof(loads[0]),
                                cudaMemcpyDeviceToHost, stream),
                computing);
  return check(stream);
}

Status DecodeStep::check(cudaStream_t stream) {
  int32_t failed = 0;
  NOSA_CUDA_TRY(cudaMemcpyAsync(&failed, buffers_->failed, sizeof(failed), cudaMemcpyDeviceToHost, stream), computing);
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream), computing);
  if (failed == 0) return {};
  NOSA_CUDA_TRY(cudaMemsetAsync(buffers_->failed, 0, sizeof(failed), stream), computing);
  return Status::io("The blocks that a step selected did not fit its slots on the device.");
}

// Captured once for each kind; the first launch uploads it.
Result<cudaGraphExec_t> DecodeStep::graph(const Kind& kind, cudaStream_t stream) {
  if (const auto known = graphs_.find(kind); known != graphs_.end()) return known->second;
  NOSA_CUDA_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), computing);
  const Status status = enqueue(kind, stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (!status.ok() || ended != cudaSuccess) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    return status.ok() ? to_status(ended, computing) : status;
  }
  cudaGraphExec_t exec = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  NOSA_CUDA_TRY(made, computing);
  graphs_.emplace(kind, exec);
  return exec;
}

// With one query a lane, attention itself fetches what is not in a slot: the first bytes arrive while the rest is read.
bool DecodeStep::attend_fetches(const Kind& kind) const {
  return !resident() && selects(options_) && kind.n_queries == 1;
}

SelectedBlock* DecodeStep::selected(int layer) const {
  if (!selects(options_) || !options_.keeps_choices) return buffers_->selected;
  return buffers_->selected + size_t(layer) * size_t(n_rows_max_) * size_t(model_.shape().n_kv_heads) * size_t(options_.budget.total_blocks);
}

int32_t* DecodeStep::n_selected(int layer) const {
  if (!selects(options_) || !options_.keeps_choices) return buffers_->n_selected;
  return buffers_->n_selected + size_t(layer) * size_t(n_rows_max_) * size_t(model_.shape().n_kv_heads);
}

StepRows DecodeStep::rows(const Kind& kind) const {
  return {buffers_->lanes, lanes_.n_tokens(), kind.n_queries > 1 ? buffers_->n_new : nullptr, buffers_->places,
          kind.n_seqs, kind.n_queries};
}

Operand DecodeStep::operand(std::byte* data, DType weight, int n_rows, int cols) const {
  return {data, linear_operand(weight), n_rows, cols};
}

Status DecodeStep::enqueue(const Kind& kind, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const Buffers& b = *buffers_;
  const int n_rows = kind.n_seqs * kind.n_queries;

  RopeAnglesParams angles = {};
  angles.rows = rows(kind);
  angles.n_attended = lanes_.blocks().n_attended;
  angles.base_position = lanes_.base_positions();
  angles.inv_freq = model_.inv_freq();
  angles.rotation = b.rotation;
  angles.n_rotated = shape.n_rotated;
  angles.magnitude = shape.rope_magnitude;
  NOSA_CUDA_TRY(rope_angles(angles, stream), computing);
  NOSA_CUDA_TRY(embed({model_.embedding(), b.ids, b.x, n_rows}, stream), computing);
  if (forced_scores.prepare && kind.n_queries == 1) {
    NOSA_CUDA_TRY(forced_scores.prepare(b.step, n_rows, stream), computing);
  }
  for (int layer = 0; layer < shape.n_layers; ++layer) NOSA_TRY(enqueue_layer(layer, kind, stream));
  if (kind.n_queries == 1) NOSA_TRY(enqueue_draw(kind, stream));

  AdvanceStepParams advance = {};
  advance.lanes = b.lanes;
  advance.drawn = b.drawn;
  advance.teacher = b.teacher;
  advance.history = b.history;
  advance.ids = kind.n_queries == 1 ? b.ids : nullptr;
  advance.n_tokens = lanes_.n_tokens();
  advance.cursor = b.cursor;
  advance.step = b.step;
  advance.n_seqs = kind.n_seqs;
  advance.n_seqs_max = n_seqs_max_;
  advance.n_steps_max = n_steps_max;
  NOSA_CUDA_TRY(advance_step(advance, stream), computing);
  return {};
}

Status DecodeStep::enqueue_layer(int layer, const Kind& kind, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const DeviceLayer& weights = model_.layers()[size_t(layer)];
  const Buffers& b = *buffers_;
  const int n_rows = kind.n_seqs * kind.n_queries;

  const Operand attn_in = operand(b.normed, weights.q.weight.dtype, n_rows, shape.n_embd);
  LinearParams qkv = {};
  // A single row of a narrow model is normalised by the products themselves.
  const bool normed = n_rows == 1 && shape.n_embd <= NormedRow::kColsMax;
  if (normed) {
    qkv.row = {b.x, weights.attn_norm, shape.rms_eps};
  } else {
    NOSA_CUDA_TRY(rms_norm({b.x, weights.attn_norm, shape.rms_eps, attn_in, nullptr}, stream), computing);
  }
  qkv.targets[0] = {weights.q.weight, weights.q.bias, b.q};
  qkv.targets[1] = {weights.k.weight, weights.k.bias, b.k};
  qkv.targets[2] = {weights.v.weight, weights.v.bias, b.v};
  qkv.n_targets = 3;
  qkv.x = attn_in;
  qkv.scratch = b.linear_scratch;
  NOSA_CUDA_TRY(linear(qkv, stream), computing);

  NOSA_TRY(enqueue_attention(layer, kind, stream));

  const Operand attn_out = operand(b.attn_operand, weights.out.weight.dtype, n_rows, shape.q_width());
  LinearParams out = {};
  out.targets[0] = {weights.out.weight, weights.out.bias, b.x};
  out.n_targets = 1;
  out.x = attn_out;
  out.accumulate = true;
  out.scratch = b.linear_scratch;
  NOSA_CUDA_TRY(linear(out, stream), computing);

  const Operand ffn_in = operand(b.normed, weights.gate.weight.dtype, n_rows, shape.n_embd);
  if (!normed) NOSA_CUDA_TRY(rms_norm({b.x, weights.ffn_norm, shape.rms_eps, ffn_in, nullptr}, stream), computing);
  const Operand gated = operand(b.gated, weights.down.weight.dtype, n_rows, shape.n_ff);
  const NormedRow row = normed ? NormedRow{b.x, weights.ffn_norm, shape.rms_eps} : NormedRow{};
  NOSA_CUDA_TRY(gated_linear({weights.gate.weight, weights.up.weight, ffn_in, gated, b.linear_scratch, row}, stream), computing);
  LinearParams down = {};
  down.targets[0] = {weights.down.weight, weights.down.bias, b.x};
  down.n_targets = 1;
  down.x = gated;
  down.accumulate = true;
  down.scratch = b.linear_scratch;
  NOSA_CUDA_TRY(linear(down, stream), computing);
  return {};
}

// From q, k and v to the attention's output: the new tokens go to the cache, blocks are chosen and fetched, and attended to.
Status DecodeStep::enqueue_attention(int layer, const Kind& kind, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const DeviceLayer& weights = model_.layers()[size_t(layer)];
  const Buffers& b = *buffers_;
  const StepRows step_rows = rows(kind);
  const LaneBlocks blocks = lanes_.blocks();
  const KvPool pool = resident() ? pool_.extents(layer) : lanes_.slots(layer);
  const StreamSlots slots = lanes_.stream_slots(layer);
  const SideCarView side_car = pool_.side_car(layer);
  const float scale = 1.0f / std::sqrt(float(shape.head_dim));

  AppendKvParams append = {};
  append.rows = step_rows;
  append.blocks = blocks;
  append.pool = pool;
  append.slots = slots;
  append.side_car = side_car;
  append.q = b.q;
  append.k = b.k;
  append.v = b.v;
  append.q_stride = size_t(shape.q_width());
  append.k_stride = append.v_stride = size_t(shape.kv_width());
  append.rotation = b.rotation;
  append.a = weights.eviction_a;
  append.delta = weights.eviction_delta;
  append.delta_bias = weights.eviction_delta_bias;
  append.step = b.step;
  append.n_heads = shape.n_heads;
  append.n_kv_heads = shape.n_kv_heads;
  append.head_dim = shape.head_dim;
  append.n_rotated = shape.n_rotated;
  append.pairing = shape.rope_neighbours ? RopePairing::kAdjacent : RopePairing::kHalfSplit;
  NOSA_CUDA_TRY(append_kv(append, stream), computing);

  if (selects(options_)) NOSA_TRY(enqueue_selection(layer, kind, stream));

  AttendBlocksParams attend = {};
  attend.rows = step_rows;
  attend.blocks = blocks;
  attend.pool = pool;
  attend.q = b.q;
  attend.q_stride = size_t(shape.q_width());
  attend.pages = attend_fetches(kind) ? pool_.extents(layer) : KvPool{};
  attend.selected = selected(layer);  // Null without a selection: everything.
  attend.n_selected = n_selected(layer);
  attend.token_bias = model_.additive() ? side_car.token_scores : nullptr;
  attend.parts = b.attention_parts;
  attend.scale = scale;
  attend.n_heads = shape.n_heads;
  attend.n_kv_heads = shape.n_kv_heads;
  attend.head_dim = shape.head_dim;
  attend.n_selected_max = options_.budget.total_blocks;
  attend.n_pages = side_car.n_pages;
  NOSA_CUDA_TRY(attend_blocks(attend, stream), computing);
  if (kind.detail) {
    const size_t list = size_t(layer) * size_t(kind.n_seqs) * size_t(shape.n_kv_heads);
    BlockMassParams mass = {};
    mass.attended = attend;
    mass.mass = b.mass + list * size_t(options_.budget.total_blocks);
    mass.blocks = b.mass_blocks + list * size_t(options_.budget.total_blocks);
    mass.n_blocks = b.n_mass_blocks + list;
    NOSA_CUDA_TRY(block_mass(mass, stream), computing);
  }

  MergePartsParams merge = {};
  merge.rows = step_rows;
  merge.parts = b.attention_parts;
  merge.out = operand(b.attn_operand, weights.out.weight.dtype, kind.n_seqs * kind.n_queries, shape.q_width());
  merge.n_heads = shape.n_heads;
  merge.n_kv_heads = shape.n_kv_heads;
  merge.head_dim = shape.head_dim;
  NOSA_CUDA_TRY(merge_parts(merge, stream), computing);
  return {};
}

Status DecodeStep::enqueue_selection(int layer, const Kind& kind, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const Buffers& b = *buffers_;
  const StepRows step_rows = rows(kind);
  const SelectionBudget& budget = options_.budget;

  ScoreBlocksParams score = {};
  score.rows = step_rows;
  score.blocks = lanes_.blocks();
  score.side_car = pool_.side_car(layer);
  score.q = b.q;
  score.q_stride = size_t(shape.q_width());
  score.best = b.best;
  score.scratch = b.score_scratch;
  score.scale = 1.0f / std::sqrt(float(shape.head_dim));
  score.n_heads = shape.n_heads;
  score.n_kv_heads = shape.n_kv_heads;
  score.head_dim = shape.head_dim;
  score.total_blocks = budget.total_blocks;
  NOSA_CUDA_TRY(score_blocks(score, stream), computing);

  SelectBlocksParams select = {};
  select.rows = step_rows;
  select.blocks = lanes_.blocks();
  select.slots = lanes_.stream_slots(layer);
  select.side_car = pool_.side_car(layer);
  select.ranking = ranking(layer);
  const bool forced = forced_scores.best != nullptr && kind.n_queries == 1;
  select.best = forced ? forced_scores.best + size_t(layer) * forced_scores.layer_stride : b.best;
  select.step = b.step;
  select.selected = selected(layer);
  select.n_selected = n_selected(layer);
  select.load_pages = b.load_pages;
  select.load_slots = b.load_slots;
  select.n_loads = b.n_loads;
  select.n_loads_total = b.n_loads_total;
  select.failed = b.failed;
  select.n_kv_heads = shape.n_kv_heads;
  select.n_selected_max = budget.total_blocks;
  select.total_blocks = budget.total_blocks;
  select.query_picks = budget.query_picks();
  select.sink_blocks = budget.sink_blocks;
  select.window_blocks = budget.window_blocks;
  select.by_eviction = options_.policy == Policy::kNosa;
  NOSA_CUDA_TRY(select_blocks(select, stream), computing);
  if (resident() || attend_fetches(kind)) return {};

  GatherBlocksParams gather = {};
  gather.lanes = b.lanes;
  gather.load_pages = b.load_pages;
  gather.load_slots = b.load_slots;
  gather.n_loads = b.n_loads;
  gather.pages = pool_.extents(layer);
  gather.slots = lanes_.slots(layer);
  gather.extent_bytes = pool_.extent_bytes();
  gather.n_seqs = kind.n_seqs;
  gather.n_kv_heads = shape.n_kv_heads;
  gather.n_loads_max = lanes_.n_slots();
  NOSA_CUDA_TRY(gather_blocks(gather, stream), computing);
  return {};
}

Status DecodeStep::enqueue_draw(const Kind& kind, cudaStream_t stream) {
  const Buffers& b = *buffers_;
  NOSA_TRY(enqueue_logits(model_, b.x, kind.n_seqs, {b.normed, b.logits, b.linear_scratch}, stream));
  NOSA_CUDA_TRY(argmax({b.logits, b.drawn, b.argmax_scratch, kind.n_seqs, model_.shape().n_vocab}, stream), computing);
  return {};
}

}  // namespace nosa::cuda
