#include "cuda/prefill.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "cuda/step_buffers.h"
#include "kernels/append_chunk.h"
#include "kernels/embed.h"
#include "kernels/matmul.h"
#include "kernels/prefill_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace nosa::cuda {
namespace {

constexpr const char* computing = "Prefilling on the GPU";

Operand operand(std::byte* data, const DeviceLinear& linear, int n_rows) {
  return {data, matmul_operand(linear.weight.dtype), n_rows, linear.weight.cols};
}

MatmulTarget target(const DeviceLinear& linear, float* out) { return {linear.weight, linear.bias, out}; }

}  // namespace

/// Everything that a chunk needs on the device.
struct Prefill::Buffers {
  int32_t* ids = nullptr;             // [n_tokens]
  int32_t* first_position = nullptr;  // of the chunk
  int32_t* places = nullptr;          // [n_blocks_max]
  int32_t* pages = nullptr;           // [n_blocks_max]
  BlockInfo* info = nullptr;          // [n_blocks_max]
  float* x = nullptr;                 // [n_tokens, n_embd], the residual stream
  std::byte* normed = nullptr;        // Operand [n_tokens, n_embd]
  float* q = nullptr;                 // [n_tokens, n_heads, head_dim]
  float* k = nullptr;                 // [n_tokens, n_kv_heads, head_dim]
  float* v = nullptr;                 // likewise
  std::byte* attn = nullptr;          // Operand [n_tokens, n_heads * head_dim]
  std::byte* gated = nullptr;         // Operand [n_tokens, n_ff]
  std::byte* scratch = nullptr;
  size_t scratch_bytes = 0;

  DeviceBuffer memory;

  BufferPlan plan(const ModelShape& shape, int chunk_tokens, int n_blocks_max);
};

BufferPlan Prefill::Buffers::plan(const ModelShape& shape, int chunk_tokens, int n_blocks_max) {
  const size_t tokens = size_t(chunk_tokens);
  const auto operand_max = [&](int cols) { return operand_bytes(OperandType::kF16, chunk_tokens, cols); };
  scratch_bytes = prefill_attention_scratch_bytes(chunk_tokens, n_blocks_max, shape.n_heads, shape.head_dim);
  BufferPlan plan;
  plan.add(ids, tokens);
  plan.add(first_position, 1);
  plan.add(places, size_t(n_blocks_max));
  plan.add(pages, size_t(n_blocks_max));
  plan.add(info, size_t(n_blocks_max));
  plan.add(x, tokens * size_t(shape.n_embd));
  plan.add(normed, operand_max(shape.n_embd));
  plan.add(q, tokens * size_t(shape.q_width()));
  plan.add(k, tokens * size_t(shape.kv_width()));
  plan.add(v, tokens * size_t(shape.kv_width()));
  plan.add(attn, operand_max(shape.q_width()));
  plan.add(gated, operand_max(shape.n_ff));
  plan.add(scratch, scratch_bytes);
  return plan;
}

Prefill::Prefill(const DeviceModel& model) : model_(model), buffers_(std::make_unique<Buffers>()) {}
Prefill::~Prefill() = default;

size_t Prefill::bytes_for(const ModelShape& shape, int chunk_tokens, int n_blocks_max) {
  Buffers buffers;
  return buffers.plan(shape, chunk_tokens, n_blocks_max).bytes();
}

Result<std::unique_ptr<Prefill>> Prefill::create(const DeviceModel& model, int chunk_tokens, int n_blocks_max) {
  for (const DeviceLayer& layer : model.layers()) {
    if (layer.gate.weight.dtype != layer.up.weight.dtype) {
      return Status::unsupported("The GPU needs ffn_gate and ffn_up of one type.");
    }
  }
  std::unique_ptr<Prefill> prefill(new Prefill(model));
  prefill->chunk_tokens_ = chunk_tokens;
  Result<DeviceBuffer> memory =
      prefill->buffers_->plan(model.shape(), chunk_tokens, n_blocks_max).take("the activations of a prefill");
  if (!memory.ok()) return memory.status();
  prefill->buffers_->memory = *std::move(memory);
  return prefill;
}

const float* Prefill::device_hidden() const { return buffers_->x; }

Status Prefill::compute(const PrefillChunk& chunk, PagePool& pool, PageArena& arena, cudaStream_t stream) {
  CHECK(!chunk.ids.empty() && chunk.ids.size() <= size_t(chunk_tokens_));
  if (Status status = upload(chunk, arena, stream); !status.ok()) return status;
  const int n_tokens = int(chunk.ids.size());
  NOSA_CUDA_TRY(embed({model_.embedding(), buffers_->ids, buffers_->x, n_tokens}, stream), computing);
  for (int layer = 0; layer < model_.shape().n_layers; ++layer) {
    NOSA_TRY(enqueue_qkv(layer, chunk, pool, arena, stream));
    NOSA_TRY(enqueue_attention(layer, chunk, pool, arena, stream));
    NOSA_TRY(enqueue_ffn(layer, n_tokens, stream));
  }
  return arena.store(chunk.own_pages.subspan(size_t(chunk.own_start / kBlockTokens)), stream);
}

// Brings the blocks to the device, and lists them there.
Status Prefill::upload(const PrefillChunk& chunk, PageArena& arena, cudaStream_t stream) {
  const Buffers& b = *buffers_;
  std::vector<int32_t> pages(chunk.attended_pages.begin(), chunk.attended_pages.end());
  pages.insert(pages.end(), chunk.own_pages.begin(), chunk.own_pages.end());
  const int n_filled = int(chunk.attended_pages.size()) + blocks_for(chunk.own_start);
  std::vector<int32_t> places;
  NOSA_TRY(arena.load(pages, n_filled, places, stream));

  const int32_t first_position = chunk.base_position + chunk.own_start;
  const auto put = [&](void* to, const void* from, size_t bytes) {
    return to_status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), computing);
  };
  NOSA_TRY(put(b.ids, chunk.ids.data(), chunk.ids.size_bytes()));
  NOSA_TRY(put(b.first_position, &first_position, sizeof(first_position)));
  NOSA_TRY(put(b.places, places.data(), places.size() * sizeof(int32_t)));
  NOSA_TRY(put(b.pages, pages.data(), pages.size() * sizeof(int32_t)));
  if (!chunk.attended_info.empty()) NOSA_TRY(put(b.info, chunk.attended_info.data(), chunk.attended_info.size_bytes()));
  return {};
}

Status Prefill::enqueue_qkv(int layer, const PrefillChunk& chunk, PagePool& pool, PageArena& arena, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const DeviceLayer& weights = model_.layers()[size_t(layer)];
  const Buffers& b = *buffers_;
  const int n_tokens = int(chunk.ids.size());
  const Operand in = operand(b.normed, weights.q, n_tokens);
  NOSA_CUDA_TRY(rms_norm({b.x, weights.attn_norm, shape.rms_eps, in, nullptr}, stream), computing);
  const MatmulParams qkv = {{target(weights.q, b.q), target(weights.k, b.k), target(weights.v, b.v)}, 3, in, false};
  NOSA_CUDA_TRY(matmul(qkv, stream), computing);

  RopeParams rotate = {};
  rotate.x = b.q;
  rotate.n_rows = n_tokens;
  rotate.n_heads = shape.n_heads;
  rotate.head_dim = shape.head_dim;
  rotate.first_position = b.first_position;
  rotate.inv_freq = model_.inv_freq();
  rotate.n_rotated = shape.n_rotated;
  rotate.magnitude = shape.rope_magnitude;
  rotate.pairing = shape.rope_neighbours ? RopePairing::kAdjacent : RopePairing::kHalfSplit;
  NOSA_CUDA_TRY(rope(rotate, stream), computing);
  rotate.x = b.k;
  rotate.n_heads = shape.n_kv_heads;
  NOSA_CUDA_TRY(rope(rotate, stream), computing);

  AppendChunkParams append = {};
  append.k = b.k;
  append.v = b.v;
  append.n_tokens = n_tokens;
  append.own_start = chunk.own_start;
  append.pool = arena.extents(layer);
  append.indices = b.places + chunk.attended_pages.size();
  append.pages = b.pages + chunk.attended_pages.size();
  append.side_car = pool.side_car(layer);
  append.a = weights.eviction_a;
  append.delta = weights.eviction_delta;
  append.delta_bias = weights.eviction_delta_bias;
  append.n_kv_heads = shape.n_kv_heads;
  append.head_dim = shape.head_dim;
  NOSA_CUDA_TRY(append_chunk(append, stream), computing);
  return {};
}

Status Prefill::enqueue_attention(int layer, const PrefillChunk& chunk, PagePool& pool, PageArena& arena,
                                  cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const DeviceLayer& weights = model_.layers()[size_t(layer)];
  const Buffers& b = *buffers_;
  const int n_tokens = int(chunk.ids.size());
  const SideCarView side_car = pool.side_car(layer);
  const Operand attn = operand(b.attn, weights.out, n_tokens);
  PrefillAttentionParams attention = {};
  attention.q = b.q;
  attention.out = attn;
  attention.pool = arena.extents(layer);
  attention.indices = b.places;
  attention.info = b.info;
  attention.token_bias = model_.additive() ? side_car.token_scores : nullptr;
  attention.pages = b.pages;
  attention.scratch = b.scratch;
  attention.scratch_bytes = b.scratch_bytes;
  attention.scale = 1.0f / std::sqrt(float(shape.head_dim));
  attention.n_tokens = n_tokens;
  attention.own_start = chunk.own_start;
  attention.n_attended = int(chunk.attended_pages.size());
  attention.n_heads = shape.n_heads;
  attention.n_kv_heads = shape.n_kv_heads;
  attention.head_dim = shape.head_dim;
  attention.n_pages = side_car.n_pages;
  NOSA_CUDA_TRY(prefill_attention(attention, stream), computing);
  NOSA_CUDA_TRY(matmul({{target(weights.out, b.x)}, 1, attn, true}, stream), computing);
  return {};
}

Status Prefill::enqueue_ffn(int layer, int n_tokens, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const DeviceLayer& weights = model_.layers()[size_t(layer)];
  const Buffers& b = *buffers_;
  const Operand in = operand(b.normed, weights.gate, n_tokens);
  NOSA_CUDA_TRY(rms_norm({b.x, weights.ffn_norm, shape.rms_eps, in, nullptr}, stream), computing);
  const Operand gated = operand(b.gated, weights.down, n_tokens);
  NOSA_CUDA_TRY(gated_matmul({weights.gate.weight, weights.up.weight, in, gated}, stream), computing);
  NOSA_CUDA_TRY(matmul({{target(weights.down, b.x)}, 1, gated, true}, stream), computing);
  return {};
}

}  // namespace nosa::cuda
