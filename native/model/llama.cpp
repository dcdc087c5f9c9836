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

}  // namespace

Result<std::unique_ptr<Llama>> Llama::create(const Weights& weights, const Adapter* adapter,
                                             const ModelConfig& config, const KvShape& kv_shape,
                                             Backend& backend) {
  std::unique_ptr<Llama> llama(new Llama(config, kv_shape, backend));
  if (Status status = llama->load(weights, adapter); !status.ok()) return status;
  return llama;
}

Status Llama::load(const Weights& weights, const Adapter* adapter) {
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
  if (EvictionScores::present_in(weights)) {
    Result<EvictionScores> scores = EvictionScores::from_weights(weights, kv_shape_);
    if (!scores.ok()) return scores.status();
    eviction_scores_ = *std::move(scores);
  } else if (adapter != nullptr) {
    eviction_scores_ = adapter->eviction_scores();
  }

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

    for (int j = 0; j < n_projections; ++j) {
      const Projection projection{j};
      const auto [name, n_rows, n_cols] = projection_shape(projection, config_);
      Result<Linear> linear = load_linear(weights, blk + name, n_rows, n_cols);
      if (!linear.ok()) return linear.status();
      if (adapter != nullptr) linear->update = adapter->update(i, projection);
      layer.linear(projection) = *std::move(linear);
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
    const int n_left = pass.plan_.n_tokens - pass.next_;
    const int n_fit = int(sizer.items(flops, n_left));
    const int n_tokens = pass.stage_ == ForwardPass::Stage::kAttend ? whole_blocks(pass, target, n_fit, n_left) : n_fit;
    const Clock::time_point start = Clock::now();
    const Result<int> n_done = step(pass, target, n_tokens);
    if (!n_done.ok()) return n_done.status();
    sizer.measured(flops * *n_done, Clock::now() - start);
  }
  return {};
}

// As many of the pass's next tokens as `n_fit`, or about so many that own blocks stay whole, for queries
// of one block choose together: at most twice as many.
int Llama::whole_blocks(const ForwardPass& pass, const PassTarget& target, int n_fit, int n_left) {
  const int first = pass.plan_.first + pass.next_;
  if (n_fit == n_left || !target.selector->chooses(first)) return n_fit;
  const int n_over = (first + n_fit) % kBlockTokens;
  if (n_over == 0) return n_fit;
  if (n_over < n_fit && n_over < kBlockTokens / 2) return n_fit - n_over;
  const int n_missing = kBlockTokens - n_over;
  return n_missing <= n_fit ? std::min(n_fit + n_missing, n_left) : n_fit;
}

// What one token of the pass's next step costs.
double Llama::item_flops(const ForwardPass& pass, const PassTarget& target) const {
  const Layer& layer = layers_[std::min<size_t>(pass.layer_, layers_.size() - 1)];
  switch (pass.stage_) {
    case ForwardPass::Stage::kEmbed: return double(config_.n_embd);
    case ForwardPass::Stage::kQkv: return layer.q.flops() + layer.k.flops() + layer.v.flops();
    case ForwardPass::Stage::kAttend: {
      const int own_idx = pass.plan_.first + pass.next_;
      double n_keys = double(own_idx + 1);
      for (const AttendedKv& attended : target.attended) n_keys += attended.n_tokens;
      if (target.selector->chooses(own_idx)) {
        // The chosen blocks, and a key for each window of all of them.
        n_keys = n_keys / (2 * kWindowStride) + target.selector->options().budget.total_blocks * kBlockTokens;
      }
      return 4.0 * n_keys * config_.n_heads * config_.head_dim;
    }
    case ForwardPass::Stage::kAttnOut: return layer.out.flops();
    case ForwardPass::Stage::kGateUp: return layer.gate.flops() + layer.up.flops();
    case ForwardPass::Stage::kDown: return layer.down.flops();
    case ForwardPass::Stage::kDone: break;
  }
  return 0;
}

// Does the next `n_tokens` of the current stage, or fewer, and moves the cursor; gives how many.
Result<int> Llama::step(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  using Stage = ForwardPass::Stage;
  target.blocks->store().begin_step();
  switch (pass.stage_) {
    case Stage::kEmbed:
      n_tokens = pass.plan_.n_tokens;
      embed(pass, target);
      break;
    case Stage::kQkv:
      if (Status status = qkv(pass, target, n_tokens); !status.ok()) return status;
      break;
    case Stage::kAttend:
      if (Status status = attend(pass, target, n_tokens); !status.ok()) return status;
      break;
    case Stage::kAttnOut: attn_out(pass, n_tokens); break;
    case Stage::kGateUp: gate_up(pass, n_tokens); break;
    case Stage::kDown: down(pass, n_tokens); break;
    case Stage::kDone: return 0;
  }
  pass.next_ += n_tokens;
  if (pass.next_ < pass.plan_.n_tokens) return n_tokens;

  pass.next_ = 0;
  if (pass.stage_ != Stage::kDown) {
    pass.stage_ = Stage(int(pass.stage_) + 1);
  } else {
    ++pass.layer_;
    pass.stage_ = pass.layer_ < config_.n_layers ? Stage::kQkv : Stage::kDone;
  }
  return n_tokens;
}

void Llama::embed(ForwardPass& pass, const PassTarget& target) {
  backend_.embed(embedding_, target.tokens.subspan(pass.plan_.first, pass.plan_.n_tokens),
                 pass.buffers_->x);
  if (pass.plan_.masses) {
    const int n_blocks = selector_blocks(target, pass.end());
    pass.masses_.assign(size_t(config_.n_kv_heads) * n_blocks, 0.0f);
  }
}

// Blocks in the selector's order: of the attended sequences, then own.
int Llama::selector_blocks(const PassTarget& target, int n_own_tokens) const {
  return target.selector->n_context_blocks() + blocks_for(n_own_tokens);
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
  return append_side_car(target, pass.layer_, begin, end, args.k, args.v);
}

// Takes the tokens [begin, end) of a layer, whose keys are stored, into the sequence's side-car.
Status Llama::append_side_car(const PassTarget& target, int layer, int begin, int end,
                              const float* k, const float* v) {
  // New windows reach back to keys of blocks that may have left memory.
  wanted_.clear();
  const int first_token = windows_in(begin) * kWindowStride;
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    for (int block = first_token / kBlockTokens; block < blocks_for(end); ++block) {
      wanted_.push_back(target.blocks->id(layer, kv_head, block));
    }
  }
  if (Status status = target.blocks->store().make_resident(wanted_); !status.ok()) return status;
  token_scores_.resize(size_t(end - begin) * config_.n_kv_heads);
  eviction_scores_.compute(layer, k, v, end - begin, token_scores_.data());
  target.side_car->append(layer, *target.blocks, end, token_scores_);
  return {};
}

// Queries that choose their blocks go by own blocks, for those have most of their choice in common;
// the others, which see everything, go together.
Status Llama::attend(ForwardPass& pass, const PassTarget& target, int n_tokens) {
  const int end = pass.next_ + n_tokens;
  const PassPlan& plan = pass.plan_;
  int token = pass.next_;
  while (token < end && !target.selector->chooses(plan.first + token)) token += 1;
  if (token > pass.next_) {
    Status status = attend_all(pass, target, pass.next_, token - pass.next_);
    if (!status.ok()) return status;
  }
  while (token < end) {
    const int block_end = (plan.first + token) / kBlockTokens * kBlockTokens + kBlockTokens;
    int n = std::min(end - token, block_end - plan.first - token);
    // Masses are added up for the last token alone.
    const bool with_last = token + n == plan.n_tokens;
    if (plan.masses && with_last && n > 1) n -= 1;
    Status status = attend_chosen(pass, target, token, n);
    // When memory does not hold what all of them chose, it may hold what half of them did.
    while (status.code() == StatusCode::kOutOfMemory && n > 1) {
      n /= 2;
      status = attend_chosen(pass, target, token, n);
    }
    if (!status.ok()) return status;
    token += n;
  }
  return {};
}

Status Llama::attend_all(ForwardPass& pass, const PassTarget& target, int token, int n_tokens) {
  const int n_own = blocks_for(pass.plan_.first + token + n_tokens);
  const int n_context = target.selector->n_context_blocks();
  gather_.clear();
  for (int32_t b = 0; b < n_context; ++b) {
    if (!target.selector->masked(b)) gather_.common.push_back(b);
  }
  for (int b = 0; b < n_own; ++b) gather_.own.push_back(n_context + b);
  const auto common = std::span<const int32_t>(gather_.common);
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) gather_.heads.push_back({common, {}});
  if (Status status = gather(target, pass.layer_, pass.plan_.first + token + n_tokens); !status.ok()) {
    return status;
  }
  attend_gathered(pass, target, token, n_tokens, 0);
  if (token + n_tokens < pass.plan_.n_tokens) return {};
  std::vector<int32_t> all;
  if (target.selector->masks_any()) {
    all = gather_.common;
    all.insert(all.end(), gather_.own.begin(), gather_.own.end());
  }
  pass.selections_.insert(pass.selections_.end(), size_t(config_.n_kv_heads), all);
  pass.n_attended_ += (gather_.common.size() + gather_.own.size()) * size_t(config_.n_kv_heads);
  return {};
}

// REQUIRES: the tokens are of one own block.
Status Llama::attend_chosen(ForwardPass& pass, const PassTarget& target, int token, int n_tokens) {
  BlockSelector::Queries queries;
  queries.layer = pass.layer_;
  queries.own_idx = pass.plan_.first + token;
  queries.n_tokens = n_tokens;
  queries.q = pass.buffers_->q + size_t(token) * config_.n_heads * config_.head_dim;
  queries.n_heads = config_.n_heads;
  queries.scale = 1.0f / std::sqrt(float(config_.head_dim));
  queries.own = target.side_car;
  const BlockChoice& choice = target.selector->choose(queries, backend_, selector_scratch_);

  // The window is the end of what all have in common; in it a query sees only its past.
  const int window = target.selector->window_begin(queries.own_idx);
  const int32_t first_own = target.selector->n_context_blocks() + window;
  const int n_own = queries.own_idx / kBlockTokens + 1 - window;
  gather_.clear();
  for (int b = 0; b < n_own; ++b) gather_.own.push_back(first_own + b);
  const size_t n_picks_each = size_t(n_tokens) * size_t(choice.n_picks);
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    const auto common = std::span(choice.common).subspan(size_t(kv_head) * choice.n_common,
                                                         size_t(choice.n_common - n_own));
    const auto picks = std::span(choice.picks).subspan(size_t(kv_head) * n_picks_each, n_picks_each);
    gather_.heads.push_back({common, picks});
  }
  // Blocks of these queries are safe until the next ones begin, so that a small budget serves them all.
  target.blocks->store().begin_step();
  Status status = gather(target, pass.layer_, queries.own_idx + n_tokens);
  if (!status.ok()) return status;
  attend_gathered(pass, target, token, n_tokens, choice.n_picks);
  if (token + n_tokens < pass.plan_.n_tokens) return {};
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    pass.selections_.push_back(choice.selection(kv_head, n_tokens - 1));
    pass.n_attended_ += pass.selections_.back().size();
  }
  return {};
}

// Attention of tokens of the pass over what was gathered.
void Llama::attend_gathered(ForwardPass& pass, const PassTarget& target, int token, int n_tokens,
                            int n_picks) {
  const size_t n_q = size_t(config_.n_heads) * config_.head_dim;
  const size_t n_kv_heads = size_t(config_.n_kv_heads);
  const int32_t own_block = gather_.own.front() - target.selector->n_context_blocks();
  AttentionArgs args;
  args.q = pass.buffers_->q + token * n_q;
  args.out = pass.buffers_->attn + token * n_q;
  args.n_tokens = n_tokens;
  args.n_heads = config_.n_heads;
  args.n_kv_heads = config_.n_kv_heads;
  args.head_dim = config_.head_dim;
  args.own_start = pass.plan_.first + token - own_block * kBlockTokens;
  args.scale = 1.0f / std::sqrt(float(config_.head_dim));
  args.kv_dtype = kv_shape_.dtype;
  args.context = gather_.context_refs;
  args.own = gather_.own_refs;
  args.picked = gather_.picked_refs;
  args.picked_begin = gather_.picked_begin;
  args.picks = gather_.picks;
  args.n_picks = n_picks;
  const bool masses = pass.plan_.masses && token + n_tokens == pass.plan_.n_tokens;
  const size_t n_context = args.context.size() / n_kv_heads;
  const size_t n_own = args.own.size() / n_kv_heads;
  const size_t row = n_context + n_own + size_t(n_picks);
  if (masses) {
    mass_.assign(row * n_kv_heads, 0.0f);
    args.block_mass = mass_.data();
  }
  backend_.attend(args);
  if (!masses) return;

  // From the order of this call to that of all blocks.
  const size_t row_all = pass.masses_.size() / n_kv_heads;
  for (size_t kv_head = 0; kv_head < n_kv_heads; ++kv_head) {
    const float* from = mass_.data() + kv_head * row;
    float* to = pass.masses_.data() + kv_head * row_all;
    const auto& [common, picked] = gather_.heads[kv_head];
    for (size_t i = 0; i < n_context; ++i) to[common[i]] += from[i];
    for (size_t i = 0; i < size_t(n_picks); ++i) to[picked[i]] += from[n_context + n_own + i];
  }
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

void Llama::Gather::clear() {
  common.clear();
  own.clear();
  heads.clear();
  context_refs.clear();
  own_refs.clear();
  picked_refs.clear();
  picked_begin.clear();
  picks.clear();
}

// Brings what gather_ names into memory, and finds where it lies.
Status Llama::gather(const PassTarget& target, int layer, int n_own_tokens) {
  gathered_.clear();
  picked_.clear();
  gather_.picked_begin.push_back(0);
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    const auto& [common, picks] = gather_.heads[size_t(kv_head)];
    want(target, layer, kv_head, common, n_own_tokens);
    want(target, layer, kv_head, gather_.own, n_own_tokens);
    // Each picked block once, however many picked it.
    const auto first = picked_.insert(picked_.end(), picks.begin(), picks.end());
    std::sort(first, picked_.end());
    picked_.erase(std::unique(first, picked_.end()), picked_.end());
    const auto begin = picked_.begin() + gather_.picked_begin.back();
    want(target, layer, kv_head, std::span(begin, picked_.end()), n_own_tokens);
    for (const int32_t idx : picks) {
      gather_.picks.push_back(int32_t(std::lower_bound(begin, picked_.end(), idx) - begin));
    }
    gather_.picked_begin.push_back(int32_t(picked_.size()));
  }
  wanted_.clear();
  for (const Wanted& each : gathered_) wanted_.push_back(each.blocks->id(layer, each.kv_head, each.block));
  if (Status status = target.blocks->store().make_resident(wanted_); !status.ok()) return status;

  // In the order in which they are wanted.
  n_referred_ = 0;
  for (int kv_head = 0; kv_head < config_.n_kv_heads; ++kv_head) {
    const int32_t n_picked = gather_.picked_begin[size_t(kv_head) + 1] - gather_.picked_begin[size_t(kv_head)];
    refer(target, layer, gather_.heads[size_t(kv_head)].common.size(), gather_.context_refs);
    refer(target, layer, gather_.own.size(), gather_.own_refs);
    refer(target, layer, size_t(n_picked), gather_.picked_refs);
  }
  return {};
}

void Llama::want(const PassTarget& target, int layer, int kv_head, std::span<const int32_t> blocks,
                 int n_own_tokens) {
  for (const int32_t idx : blocks) {
    const BlockSelector::Place place = target.selector->place(idx);
    Wanted wanted{target.blocks, target.side_car, kv_head, place.block, n_own_tokens};
    if (place.sequence != BlockSelector::none_attended) {
      const AttendedKv& kv = target.attended[place.sequence];
      wanted = {kv.blocks, kv.side_car, kv_head, place.block, kv.n_tokens};
    }
    wanted.blocks->prefetch_id(layer, kv_head, place.block);
    gathered_.push_back(wanted);
  }
}

// Appends where the next `n` of those wanted lie.
void Llama::refer(const PassTarget& target, int layer, size_t n, std::vector<KvBlockRef>& refs) {
  for (const size_t end = n_referred_ + n; n_referred_ < end; ++n_referred_) {
    const Wanted& wanted = gathered_[n_referred_];
    const int first_token = wanted.block * kBlockTokens;
    KvBlockRef ref;
    ref.extent = target.blocks->store().data(wanted_[n_referred_]);
    ref.n_tokens = std::min(kBlockTokens, wanted.n_tokens - first_token);
    if (eviction_scores_.additive()) {
      ref.token_bias = wanted.side_car->token_scores(layer, wanted.kv_head).data() + first_token;
    }
    refs.push_back(ref);
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
