#include "session/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/check.h"

namespace nosa {

Result<std::unique_ptr<PassBuffers>> SequenceShared::take_buffers() {
  if (spare_.empty()) return PassBuffers::create(model.config());
  std::unique_ptr<PassBuffers> buffers = std::move(spare_.back());
  spare_.pop_back();
  return buffers;
}

void SequenceShared::put_buffers(std::unique_ptr<PassBuffers> buffers) {
  if (spare_.size() < spare_max) spare_.push_back(std::move(buffers));
}

ThreadPool* SequenceShared::draw_pool() {
  if (draw_pool_ == nullptr && samplers.empty()) {
    Result<std::unique_ptr<ThreadPool>> made = ThreadPool::create({.n_threads = std::clamp(n_threads_, 1, draw_threads_max)});
    samplers.resize(made.ok() ? size_t((*made)->n_threads()) : 1);
    if (made.ok()) draw_pool_ = *std::move(made);
  }
  return draw_pool_.get();
}

size_t SequenceShared::work_bytes(const ModelConfig& config) {
  const size_t logits = size_t(Sequence::score_rows_max) * config.n_vocab * sizeof(float);
  return (spare_max + 1) * PassBuffers::bytes(config) + logits;
}

Sequence::Sequence(SequenceShared& shared, int base_position,
                   std::vector<const Sequence*> attended)
    : shared_(shared),
      base_position_(base_position),
      attended_(std::move(attended)),
      blocks_(shared.store, shared.model.kv_shape()),
      side_car_(shared.model.kv_shape()) {
  for (const Sequence* sequence : attended_) {
    attended_kv_.push_back({&sequence->blocks_, &sequence->side_car_, sequence->n_tokens(), sequence->device_.get()});
  }
  DeviceNetwork* device = shared.model.device_network();
  if (device != nullptr) device_ = std::make_unique<DeviceKv>(device, base_position);
  selector_ = std::make_unique<BlockSelector>(shared.model.kv_shape(), SelectionOptions(), attended_kv_);
}

Sequence::~Sequence() {
  CHECK(n_attending_ == 0);
  drop_pass();
}

Result<int> Sequence::set_tokens(std::span<const uint32_t> tokens) {
  if (Status status = check_growable(); !status.ok()) return status;
  if (Status status = check_ids(tokens); !status.ok()) return status;
  if (tokens.size() > size_t(position_end - base_position_)) {
    return Status::invalid_argument("A sequence of " + std::to_string(tokens.size()) +
                                    " tokens is too long.");
  }

  const auto [mine, theirs] = std::ranges::mismatch(tokens_, tokens);
  const int n_common = int(mine - tokens_.begin());
  if (pass_ && pass_->end() > n_common) drop_pass();
  if (n_common < n_tokens() || tokens.size() > tokens_.size()) forget_score();
  n_computed_ = std::min(n_computed_, n_common);
  if (last_.token_idx >= n_common) last_.token_idx = -1;
  if (device_ != nullptr) device_->truncate(n_common);
  const int n_kept = pass_ ? pass_->end() : n_computed_;
  blocks_.truncate(blocks_for(n_kept));
  side_car_.truncate(n_kept);
  selector_->truncate(n_kept / kBlockTokens);
  tokens_.assign(tokens.begin(), tokens.end());
  return n_computed_;
}

Status Sequence::select(const SelectionOptions& options) {
  if (Status status = BlockSelector::validate(options, attended_kv_); !status.ok()) return status;
  if (options == selector_->options()) return {};
  if (pass_) {
    drop_pass();
    side_car_.truncate(n_computed_);
  }
  forget_score();
  selector_ = std::make_unique<BlockSelector>(shared_.model.kv_shape(), options, attended_kv_);
  if (device_ != nullptr) device_->selection_changed(n_computed_);
  return {};
}

Result<PrefetchOutcome> Sequence::prefetch(const StopFlag& stop) {
  constexpr size_t n_at_once = 256;  // Megabytes, so that a stop is heard in time.
  PrefetchOutcome outcome;
  if (DeviceNetwork* device = shared_.model.gpu(); device != nullptr) {
    // The GPU gets all of it, through memory.
    const uint64_t n_loaded = shared_.store.n_loaded();
    const Result<DeviceNetwork::Outcome> brought = device->load_attended(target(), stop);
    if (!brought.ok()) return brought.status();
    outcome.blocks = shared_.store.n_loaded() - n_loaded;
    outcome.interrupted = *brought == DeviceNetwork::Outcome::kInterrupted;
    if (*brought != DeviceNetwork::Outcome::kNotHere) return outcome;
  }
  if (shared_.disk == nullptr) return outcome;
  const std::vector<BlockId> missing = missing_base_blocks();
  shared_.store.begin_step();
  for (size_t first = 0; first < missing.size(); first += n_at_once) {
    outcome.interrupted = stop.raised();
    if (outcome.interrupted) break;
    const size_t n = std::min(n_at_once, missing.size() - first);
    const Result<size_t> n_read = shared_.store.prefetch(std::span(missing).subspan(first, n));
    if (!n_read.ok()) return n_read.status();
    outcome.blocks += *n_read;
    if (*n_read < n) break;  // Memory is full.
  }
  return outcome;
}

// Blocks on disk that the next query takes in any case, in the order in which they lie in their files.
std::vector<BlockId> Sequence::missing_base_blocks() {
  struct Place {
    int32_t block;
    int layer;
    int kv_head;
    auto operator<=>(const Place&) const = default;
  };
  const KvShape& shape = shared_.model.kv_shape();
  std::vector<Place> places;
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    for (int kv_head = 0; kv_head < shape.n_kv_heads; ++kv_head) {
      for (const int32_t block : selector_->base(layer, kv_head, n_computed_, side_car_)) {
        places.push_back({block, layer, kv_head});
      }
    }
  }
  std::ranges::sort(places);
  std::vector<BlockId> missing;
  for (const auto& [block, layer, kv_head] : places) {
    const BlockSelector::Place at = selector_->place(block);
    const bool is_own = at.sequence == BlockSelector::none_attended;
    const BlockTable& blocks = is_own ? blocks_ : *attended_kv_[size_t(at.sequence)].blocks;
    if (at.block >= blocks.n_blocks()) continue;  // The block that the next token begins.
    const BlockId id = blocks.id(layer, kv_head, at.block);
    if (!shared_.store.resident(id)) missing.push_back(id);
  }
  return missing;
}

Result<PrefillOutcome> Sequence::prefill(int tokens_max, const StopFlag& stop) {
  const uint64_t n_loaded = shared_.store.n_loaded();
  const uint64_t n_fetched = n_fetched_;
  int n_left = tokens_max;
  bool interrupted = false;
  while (n_computed_ < n_tokens() && n_left > 0) {
    if (!pass_ || pass_->done()) {
      const int n = std::min({pass_end(n_computed_) - n_computed_, n_tokens() - n_computed_, n_left});
      if (Status status = start_pass(n_computed_, n, {}); !status.ok()) return status;
    }
    const int n_before = n_computed_;
    const Result<bool> finished = advance(stop);
    if (!finished.ok()) return finished.status();
    if (!*finished) {
      interrupted = true;
      break;
    }
    drop_pass();
    n_left -= n_computed_ - n_before;
  }
  return PrefillOutcome{n_computed_, n_computed_ == n_tokens(), interrupted,
                        shared_.store.n_loaded() - n_loaded, n_fetched_ - n_fetched};
}

std::unique_ptr<Sequence> Sequence::fork() const {
  auto copy = std::make_unique<Sequence>(shared_, base_position_, attended_);
  copy->tokens_ = tokens_;
  copy->n_computed_ = n_computed_;
  copy->blocks_ = blocks_.fork();
  copy->blocks_.truncate(blocks_for(n_computed_));
  copy->side_car_ = side_car_;
  copy->side_car_.truncate(n_computed_);
  copy->attended_kv_ = attended_kv_;
  copy->selector_ = std::make_unique<BlockSelector>(shared_.model.kv_shape(), selector_->options(),
                                                    copy->attended_kv_);
  copy->last_ = last_;
  if (device_ != nullptr) copy->device_->fork_from(*device_);
  return copy;
}

Status Sequence::check_growable() const {
  if (n_attending_ == 0) return {};
  return Status::invalid_argument("The sequence is attended by " + std::to_string(n_attending_) +
                                  " others and must not change; fork it first.");
}

Status Sequence::check_ids(std::span<const uint32_t> ids) const {
  const uint32_t n_vocab = uint32_t(shared_.model.config().n_vocab);
  const auto outside = std::ranges::find_if(ids, [&](uint32_t id) { return id >= n_vocab; });
  if (outside == ids.end()) return {};
  return Status::invalid_argument("Token id " + std::to_string(*outside) + " is outside the vocabulary of " +
                                  std::to_string(n_vocab) + ".");
}

PassTarget Sequence::target() {
  return {tokens_, base_position_, &blocks_, &side_car_, attended_kv_, selector_.get(), device_.get()};
}

// Where a pass over the token `first` and those behind it ends at the latest.
int Sequence::pass_end(int first) {
  if (const DeviceNetwork* device = shared_.model.gpu(); device != nullptr) return first + device->pass_tokens(target(), first);
  return (first / kChunkTokens + 1) * kChunkTokens;
}

// REQUIRES: no half-done pass.
Status Sequence::start_pass(int first, int n_tokens, const Wanted& wanted) {
  drop_pass();
  // For a query among tokens that are computed already, own blocks behind it must not be ranked.
  if (first < n_computed_) selector_->truncate(first / kBlockTokens);
  const PassPlan plan{first, n_tokens, n_computed_, wanted.masses, wanted.selections, wanted.all_hidden};
  if (shared_.model.gpu() != nullptr) {
    pass_.emplace(plan, nullptr);
    return {};
  }
  return start_on_cores(plan);
}

Status Sequence::start_on_cores(const PassPlan& plan) {
  if (Status status = blocks_.grow(blocks_for(plan.first + plan.n_tokens)); !status.ok()) return status;
  Result<std::unique_ptr<PassBuffers>> buffers = shared_.take_buffers();
  if (!buffers.ok()) return buffers.status();
  pass_.emplace(plan, *std::move(buffers));
  return {};
}

// Takes the pass on; true when it is done, and then its tokens count as computed. One on the GPU is done or there is none.
Result<bool> Sequence::advance(const StopFlag& stop) {
  if (pass_->done()) return true;
  if (pass_->on_device()) {
    const Result<bool> goes_on = advance_on_device(stop);
    if (!goes_on.ok() || !*goes_on) return goes_on;
  }
  if (!pass_->done()) {
    Status status = shared_.model.network().advance(*pass_, target(), stop);
    if (!status.ok()) return status;
  }
  if (!pass_->done()) return false;
  finish_pass();
  return true;
}

// The tokens of a pass that is done count as computed.
void Sequence::finish_pass() {
  n_fetched_ += pass_->n_fetched();
  n_computed_ = std::max(n_computed_, pass_->end());
  const int n_embd = shared_.model.config().n_embd;
  const float* hidden = pass_->hidden(pass_->plan().n_tokens - 1, n_embd);
  last_.hidden.assign(hidden, hidden + n_embd);
  last_.token_idx = pass_->end() - 1;
  last_.selections = pass_->selections();
  last_.tells = !pass_->on_device() || pass_->plan().selections;
  last_.n_attended = pass_->n_attended();
}

// False when interrupted. True when the pass is done, or when the cores have to go on with it.
Result<bool> Sequence::advance_on_device(const StopFlag& stop) {
  DeviceNetwork* device = shared_.model.gpu();
  Result<DeviceNetwork::Outcome> outcome = DeviceNetwork::Outcome::kNotHere;
  if (device != nullptr) outcome = device->compute(*pass_, target(), stop);
  if (outcome.ok() && *outcome == DeviceNetwork::Outcome::kDone) return true;
  if (outcome.ok() && *outcome == DeviceNetwork::Outcome::kNotHere) {
    if (Status status = leave_device(); !status.ok()) return status;
    return true;
  }
  // Nothing of it is half done.
  pass_.reset();
  if (!outcome.ok()) return outcome.status();
  return false;
}

// Begins the pass anew for the cores, which take fewer tokens at a time.
Status Sequence::leave_device() {
  PassPlan plan = pass_->plan();
  pass_.reset();
  const int end = std::min(plan.first + plan.n_tokens, (plan.first / kChunkTokens + 1) * kChunkTokens);
  plan.masses = plan.masses && end == plan.first + plan.n_tokens;
  plan.n_tokens = end - plan.first;
  return start_on_cores(plan);
}

void Sequence::drop_pass() {
  if (!pass_) return;
  if (!pass_->on_device()) shared_.put_buffers(pass_->take_buffers());
  pass_.reset();
}

// Computes what waits, and the hidden row of the last token; true when both are there.
Result<bool> Sequence::catch_up(const StopFlag& stop, MassSum* masses, bool selections) {
  for (;;) {
    const bool is_there = n_computed_ == n_tokens() && last_.token_idx == n_tokens() - 1;
    if (is_there && (!selections || last_.tells)) return true;
    if (is_there) masses = nullptr;  // They were not asked for when it was computed.
    if (!pass_ || pass_->done()) {
      const int first = std::min(n_computed_, n_tokens() - 1);
      int n = std::min(pass_end(first), n_tokens()) - first;
      const bool tells = masses != nullptr || selections;
      // On the GPU a token that is to tell of itself goes alone.
      if (tells && n > 1 && first + n == n_tokens() && shared_.model.gpu() != nullptr) n -= 1;
      const bool is_last = first + n == n_tokens();
      Status status = start_pass(first, n, {.masses = masses != nullptr && is_last, .selections = selections && is_last});
      if (!status.ok()) return status;
    }
    const Result<bool> finished = advance(stop);
    if (!finished.ok() || !*finished) return finished;
    if (masses != nullptr && pass_->plan().masses) add_masses(*masses);
    drop_pass();
  }
}

void Sequence::add_masses(MassSum& masses) const {
  const std::vector<float> found = pass_->attended_masses(shared_.model.config(), n_context_blocks());
  masses.by_block.resize(found.size());
  for (size_t i = 0; i < found.size(); ++i) masses.by_block[i] += double(found[i]);
  ++masses.n_passes;
}

}  // namespace nosa
