#include "model/forward_pass.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/check.h"

namespace nosa {
namespace {

using Parts = std::array<std::pair<float* PassBuffers::*, size_t>, 8>;

/// Each buffer, and how wide a token's row of it is.
Parts parts_of(const ModelConfig& config) {
  const size_t n_q = size_t(config.n_heads) * config.head_dim;
  const size_t n_kv = size_t(config.n_kv_heads) * config.head_dim;
  const size_t n_embd = config.n_embd;
  const size_t n_ff = config.n_ff;
  return {{{&PassBuffers::x, n_embd},
           {&PassBuffers::norm, n_embd},
           {&PassBuffers::q, n_q},
           {&PassBuffers::k, n_kv},
           {&PassBuffers::v, n_kv},
           {&PassBuffers::attn, n_q},
           {&PassBuffers::gate, n_ff},
           {&PassBuffers::up, n_ff}}};
}

/// Floats of kChunkTokens rows, whole cache lines.
size_t floats_of(size_t width) {
  constexpr size_t line_floats = AlignedBuffer::cache_line_bytes / sizeof(float);
  return (width * kChunkTokens + line_floats - 1) / line_floats * line_floats;
}

}  // namespace

size_t PassBuffers::bytes(const ModelConfig& config) {
  size_t n_floats = 0;
  for (const auto& [part, width] : parts_of(config)) n_floats += floats_of(width);
  return n_floats * sizeof(float);
}

Result<std::unique_ptr<PassBuffers>> PassBuffers::create(const ModelConfig& config) {
  auto buffers = std::make_unique<PassBuffers>();
  Result<AlignedBuffer> memory = AlignedBuffer::create(bytes(config));
  if (!memory.ok()) return memory.status();
  buffers->memory_ = *std::move(memory);
  float* at = buffers->memory_.as<float>().data();
  for (const auto& [part, width] : parts_of(config)) {
    buffers.get()->*part = at;
    at += floats_of(width);
  }
  return buffers;
}

ForwardPass::ForwardPass(const PassPlan& plan, std::unique_ptr<PassBuffers> buffers)
    : plan_(plan), buffers_(std::move(buffers)) {
  CHECK(plan.n_tokens >= 1 && (on_device() || plan.n_tokens <= kChunkTokens) && plan.first >= 0);
}

const float* ForwardPass::hidden(int token_idx, int n_embd) const {
  CHECK(done() && token_idx >= 0 && token_idx < plan_.n_tokens);
  if (!on_device()) return buffers_->x + size_t(token_idx) * n_embd;
  const int first = plan_.n_tokens - int(rows_.size()) / n_embd;
  CHECK(token_idx >= first);
  return rows_.data() + size_t(token_idx - first) * n_embd;
}

std::vector<float> ForwardPass::attended_masses(const ModelConfig& config,
                                                int n_attended_blocks) const {
  CHECK(done() && plan_.masses);
  std::vector<float> masses(size_t(n_attended_blocks), 0.0f);
  const size_t row = masses_.size() / config.n_kv_heads;
  const float share = 1.0f / (float(config.n_layers) * float(config.n_kv_heads));
  for (int kv_head = 0; kv_head < config.n_kv_heads; ++kv_head) {
    for (int block = 0; block < n_attended_blocks; ++block) {
      masses[block] += masses_[kv_head * row + block] * share;
    }
  }
  return masses;
}

}  // namespace nosa
