#include "model/llama.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>

#include "core/check.h"
#include "core/dequantize.h"

namespace nosa {
namespace {

using Clock = std::chrono::steady_clock;

Result<std::vector<float>> load_vector(const Weights& weights, const std::string& name, int size) {
  const Result<WeightView> view = weights.tensor(name, 1, size);
  if (!view.ok()) return view.status();
  std::vector<float> values(static_cast<size_t>(size));
  dequantize_row(view->dtype, view->data, size, values.data());
  return values;
}

int n_context_blocks(const PassTarget& target) {
  int n_blocks = 0;
  for (const AttendedKv& attended : target.attended) n_blocks += blocks_for(attended.n_tokens);
  return n_blocks;
}

}  // namespace

Result<std::unique_ptr<Llama>> Llama::create(const Weights& weights, const ModelConfig& config,
                                             const KvShape& kv_shape, Backend& backend) {
  std::unique_ptr<Llama> llama(new Llama(config, kv_shape, backend));
  if (Status status = llama->load(weights); !status.ok()) return status;
  return llama;
}

Status Llama::load(const Weights& weights) {
  Result<RopeTable> rope = make_rope_table(config_.rope);
  if (!rope.ok()) return rope.status();
  rope_ = *std::move(rope);

  const int n_embd = config_.n_embd;
  const Result<WeightView> embedding =
      weights.tensor("token_embd.weight", config_.n_vocab, n_embd);
  if (!embedding.ok()) return embedding.status();
  embedding_ = *embedding;
  output_ = embedding_;
  if (weights.has("output.weight")) {
    const Result<WeightView> output = weights.tensor("output.weight", config_.n_vocab, n_embd);
    if (!output.ok()) return output.status();
    output_ = *output;
  }
  Result<std::vector<float>> output_norm = load_vector(weights, "output_norm.weight", n_embd);
  if (!output_norm.ok()) return output_norm.status();
  output_norm_ = *std::move(output_norm);
  logits_norm_.resize(size_t(kChunkTokens) * n_embd);

  const int n_q = config_.n_heads * config_.head_dim;
  const int n_kv = config_.n_kv_heads * config_.head_dim;
  layers_.resize(config_.n_layers);
  for (int i = 0; i < config_.n_layers; ++i) {
    Layer& layer = layers_[i];
    const std::string blk = "blk." + std::to_string(i) + ".";

    for (const auto& [norm, name] : {std::pair(&layer.attn_norm, "attn_norm.weight"),
                                     std::pair(&layer.ffn_norm, "ffn_norm.weight")}) {
      Result<std::vector<float>> values = load_vector(weights, blk + name, n_embd);
      if (!values.ok()) return values.status();
      *norm = *std::move(values);
    }

    struct Part {
      Linear* linear;
      const char* name;
      int n_rows, n_cols;
    };
    const Part parts[] = {{&layer.q, "attn_q", n_q, n_embd},
                          {&layer.k, "attn_k", n_kv, n_embd},
                          {&layer.v, "attn_v", n_kv, n_embd},
                          {&layer.out, "attn_output", n_embd, n_q},
                          {&layer.gate, "ffn_gate", config_.n_ff, n_embd},
                          {&layer.up, "ffn_up", config_.n_ff, n_embd},
                          {&layer.down, "ffn_down", n_embd, config_.n_ff}};
    for (const Part& part : parts) {
      Result<Linear> linear = load_linear(weights, blk + part.name, part.n_rows, part.n_cols);
      if (!linear.ok()) return linear.status();
      *part.linear = *std::move(linear);
    }
  }
  return {};
}

Result<Llama::Linear> Llama::load_linear(const Weights& weights, const std::string& stem,
                                         int n_rows, int n_cols) const {
  Linear linear;
  const Result<WeightView> weight = weights.tensor(stem + ".weight", n_rows, n_cols);
  if (!weight.ok()) return weight.status();
  linear.weight = *weight;
  if (weights.has(stem + ".bias")) {
    Result<std::vector<float>> bias = load_vector(weights, stem + ".bias", n_rows);
    if (!bias.ok()) return bias.status();
    linear.bias = *std::move(bias);
  }
  return linear;
}

Status Llama::advance(ForwardPass& pass, const PassTarget& target, const StopFlag& stop) {
  CHECK(target.blocks->n_blocks() >= blocks_for(pass.end()));
  CHECK(size_t(pass.end()) <= target.tokens.size());
  while (!pass.done() && !stop.raised()) {
    StepSizer& sizer = sizers_[int(pass.stage_)];
    const double flops = item_flops(pass, target);
    const int n_tokens = int(sizer.items(flops, pass.plan_.n_tokens - pass.next_));
    const Clock::time_point start = Clock::now();
    if (Status status = step(pass, target, n_tokens); !status.ok()) return status;
    sizer.measured(flops * n_tokens, Clock::now() - start);
  }
  return {};
}

// What one token of the pass's next step costs.
double Llama::item_flops(const ForwardPass& pass, const PassTarget& target) const {
  const Layer& layer = layers_[std::min<size_t>(pass.layer_, layers_.size() - 1)];
  switch (pass.stage_) {
    case ForwardPass::Stage::kEmbed: return double(config_.n_embd);
    case ForwardPass::Stage::kQkv: return layer.q.flops() + layer.k.flops() + layer.v.flops();
    case ForwardPass::Stage::kAttend: {
      double n_keys = double(pass.plan_.first + pass.next_ + 1);
      for (const AttendedKv& attended : target.attended) n_keys += attended.n_tokens;
      return 4.0 * n_keys * config_.n_heads * config_.head_dim;
    }
    case ForwardPass::Stage::kAttnOut: return layer.out.flops();
    case ForwardPass::Stage::kGateUp: return layer.gate.flops() + layer.up.flops();
    case ForwardPass::Stage::kDown: return layer.down.flops();
    case ForwardPass::Stage::kDone: break;
  }
  return 0;
}

// Does the next `n_tokens` of the current stage and moves the cursor.
Status Llama::step(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  using Stage = ForwardPass::Stage;
  switch (pass.stage_) {
    case Stage::kEmbed:
      n_tokens = pass.plan_.n_tokens;
      embed(pass, target);
      break;
    case Stage::kQkv:
      if (Status status = qkv(pass, target, n_tokens); !status.ok()) return status;
      break;
    case Stage::kAttend: attend(pass, target, n_tokens); break;
    case Stage::kAttnOut: attn_out(pass, n_tokens); break;
    case Stage::kGateUp: gate_up(pass, n_tokens); break;
    case Stage::kDown: down(pass, n_tokens); break;
    case Stage::kDone: return {};
  }
  pass.next_ += n_tokens;
  if (pass.next_ < pass.plan_.n_tokens) return {};

  pass.next_ = 0;
  if (pass.stage_ != Stage::kDown) {
    pass.stage_ = Stage(int(pass.stage_) + 1);
  } else {
    ++pass.layer_;
    pass.stage_ = pass.layer_ < config_.n_layers ? Stage::kQkv : Stage::kDone;
  }
  return {};
}

void Llama::embed(ForwardPass& pass, const PassTarget& target) {
  backend_.embed(embedding_, target.tokens.subspan(pass.plan_.first, pass.plan_.n_tokens),
                 pass.buffers_->x);
  if (pass.plan_.masses) {
    const int n_blocks = n_context_blocks(target) + blocks_for(pass.end());
    pass.masses_.assign(size_t(config_.n_kv_heads) * n_blocks, 0.0f);
  }
}

Status Llama::qkv(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  const Layer& layer = layers_[pass.layer_];
  const PassBuffers& b = *pass.buffers_;
  const int t = pass.next_;
  const int n_embd = config_.n_embd;
  const size_t n_q = size_t(config_.n_heads) * config_.head_dim;
  const size_t n_kv = size_t(config_.n_kv_heads) * config_.head_dim;
  float* q = b.q + t * n_q;
  float* k = b.k + t * n_kv;

  backend_.rms_norm(b.x + size_t(t) * n_embd, layer.attn_norm.data(), n_tokens, n_embd,
                    config_.rms_eps, b.norm);
  const MatmulTarget targets[] = {layer.q.target(q), layer.k.target(k),
                                  layer.v.target(b.v + t * n_kv)};
  backend_.matmul(targets, b.norm, n_tokens);

  RopeArgs rope;
  rope.n_tokens = n_tokens;
  rope.head_dim = config_.head_dim;
  rope.first_position = target.base_position + pass.plan_.first + t;
  rope.inv_freq = rope_.inv_freq.data();
  rope.n_rotated = config_.rope.n_rotated;
  rope.magnitude = rope_.magnitude;
  rope.pairing = config_.rope_pairing;
  rope.x = q;
  rope.n_heads = config_.n_heads;
  backend_.rope(rope);
  rope.x = k;
  rope.n_heads = config_.n_kv_heads;
  backend_.rope(rope);
  return store_kv(pass, target, n_tokens);
}

Status Llama::store_kv(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  const PassPlan& plan = pass.plan_;
  const int begin = std::max(plan.first + pass.next_, plan.store_from);
  const int end = plan.first + pass.next_ + n_tokens;
  if (begin >= end) return {};

  const int first_block = begin / kBlockTokens;
  const int n_blocks = blocks_for(end) - first_block;
  extents_.resize(size_t(config_.n_kv_heads) * n_blocks);
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    for (int block = 0; block < n_blocks; ++block) {
      const Result<std::byte*> extent =
          target.blocks->writable_extent(pass.layer_, kv_head, first_block + block);
      if (!extent.ok()) return extent.status();
      extents_[size_t(kv_head) * n_blocks + block] = *extent;
    }
  }

  const size_t at = size_t(begin - plan.first) * config_.n_kv_heads * config_.head_dim;
  StoreKvArgs args;
  args.k = pass.buffers_->k + at;
  args.v = pass.buffers_->v + at;
  args.n_tokens = end - begin;
  args.n_kv_heads = config_.n_kv_heads;
  args.head_dim = config_.head_dim;
  args.own_start = begin - first_block * kBlockTokens;
  args.kv_dtype = kv_shape_.dtype;
  args.extents = extents_;
  backend_.store_kv(args);
  return {};
}

void Llama::attend(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  const int t = pass.next_;
  const size_t n_q = size_t(config_.n_heads) * config_.head_dim;
  const int own_start = pass.plan_.first + t;
  gather_context(target, pass.layer_);
  gather_own(target, pass.layer_, own_start + n_tokens);

  AttentionArgs args;
  args.q = pass.buffers_->q + t * n_q;
  args.out = pass.buffers_->attn + t * n_q;
  args.n_tokens = n_tokens;
  args.n_heads = config_.n_heads;
  args.n_kv_heads = config_.n_kv_heads;
  args.head_dim = config_.head_dim;
  args.own_start = own_start;
  args.scale = 1.0f / std::sqrt(float(config_.head_dim));
  args.kv_dtype = kv_shape_.dtype;
  args.context = context_;
  args.own = own_;
  const bool has_last_query = t + n_tokens == pass.plan_.n_tokens;
  if (pass.plan_.masses && has_last_query) args.block_mass = pass.masses_.data();
  backend_.attend(args);
}

void Llama::attn_out(ForwardPass& pass, int n_tokens) {
  const PassBuffers& b = *pass.buffers_;
  const size_t n_q = size_t(config_.n_heads) * config_.head_dim;
  const MatmulTarget target = layers_[pass.layer_].out.target(b.norm);
  backend_.matmul({&target, 1}, b.attn + pass.next_ * n_q, n_tokens);
  backend_.add(b.x + size_t(pass.next_) * config_.n_embd, b.norm,
               int64_t(n_tokens) * config_.n_embd);
}

void Llama::gate_up(ForwardPass& pass, int n_tokens) {
  const Layer& layer = layers_[pass.layer_];
  const PassBuffers& b = *pass.buffers_;
  const size_t at = size_t(pass.next_) * config_.n_ff;
  backend_.rms_norm(b.x + size_t(pass.next_) * config_.n_embd, layer.ffn_norm.data(), n_tokens,
                    config_.n_embd, config_.rms_eps, b.norm);
  const MatmulTarget targets[] = {layer.gate.target(b.gate + at), layer.up.target(b.up + at)};
  backend_.matmul(targets, b.norm, n_tokens);
  backend_.silu_mul(b.gate + at, b.up + at, int64_t(n_tokens) * config_.n_ff);
}

void Llama::down(ForwardPass& pass, int n_tokens) {
  const PassBuffers& b = *pass.buffers_;
  const MatmulTarget target = layers_[pass.layer_].down.target(b.norm);
  backend_.matmul({&target, 1}, b.gate + size_t(pass.next_) * config_.n_ff, n_tokens);
  backend_.add(b.x + size_t(pass.next_) * config_.n_embd, b.norm,
               int64_t(n_tokens) * config_.n_embd);
}

// The blocks of the attended sequences that a query sees: all of them.
void Llama::gather_context(const PassTarget& target, int layer) {
  context_.clear();
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    for (const AttendedKv& attended : target.attended) {
      for (int block = 0; block < blocks_for(attended.n_tokens); ++block) {
        const int n_tokens = std::min(kBlockTokens, attended.n_tokens - block * kBlockTokens);
        context_.push_back({attended.blocks->extent(layer, kv_head, block), nullptr, n_tokens});
      }
    }
  }
}

void Llama::gather_own(const PassTarget& target, int layer, int n_own_tokens) {
  own_.clear();
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    for (int block = 0; block < blocks_for(n_own_tokens); ++block) {
      const int n_tokens = std::min(kBlockTokens, n_own_tokens - block * kBlockTokens);
      own_.push_back({target.blocks->extent(layer, kv_head, block), nullptr, n_tokens});
    }
  }
}

bool Llama::logits(const float* hidden, int n_tokens, float* out, const StopFlag& stop) {
  CHECK(n_tokens >= 1 && n_tokens <= kChunkTokens);
  const int n_embd = config_.n_embd;
  backend_.rms_norm(hidden, output_norm_.data(), n_tokens, n_embd, config_.rms_eps,
                    logits_norm_.data());
  const double row_flops = 2.0 * n_embd * n_tokens;
  int64_t row = 0;
  while (row < config_.n_vocab) {
    if (stop.raised()) return false;
    // Rows of the output lie together only for a single token.
    const int64_t n_left = config_.n_vocab - row;
    const int64_t n_rows = n_tokens == 1 ? logits_sizer_.items(row_flops, n_left) : n_left;
    WeightView part = output_;
    part.data = output_.row(row);
    part.rows = n_rows;
    const MatmulTarget target{&part, nullptr, out + row};
    const Clock::time_point start = Clock::now();
    backend_.matmul({&target, 1}, logits_norm_.data(), n_tokens);
    logits_sizer_.measured(row_flops * double(n_rows), Clock::now() - start);
    row += n_rows;
  }
  return true;
}

int Llama::logits_rows_per_step() const {
  const double flops = 2.0 * double(config_.n_embd) * double(config_.n_vocab);
  return int(logits_sizer_.items(flops, 16));
}

}  // namespace nosa
