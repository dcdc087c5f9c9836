#include "session/sequence.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "core/check.h"
#include "kv/xxh64.h"
#include "session/segment_file.h"

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
  const uint32_t n_vocab = uint32_t(shared_.model.config().n_vocab);
  const auto outside = std::ranges::find_if(tokens, [&](uint32_t id) { return id >= n_vocab; });
  if (outside != tokens.end()) {
    return Status::invalid_argument("Token id " + std::to_string(*outside) +
                                    " is outside the vocabulary of " + std::to_string(n_vocab) +
                                    ".");
  }
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

Result<DecodeOutcome> Sequence::decode(const DecodeRequest& request, const StopFlag& stop) {
  if (Status status = check_growable(); !status.ok()) return status;
  if (tokens_.empty()) {
    return Status::invalid_argument("There is no token to go on from; set the tokens first.");
  }
  const uint32_t n_vocab = uint32_t(shared_.model.config().n_vocab);
  for (const uint32_t id : request.teacher) {
    if (id >= n_vocab) {
      return Status::invalid_argument("Token id " + std::to_string(id) +
                                      " is outside the vocabulary of " + std::to_string(n_vocab) +
                                      ".");
    }
  }
  const size_t n_steps = request.forced ? std::min(size_t(request.n_steps), request.teacher.size())
                                        : size_t(request.n_steps);
  if (n_steps > size_t(position_end - base_position_ - n_tokens())) {
    return Status::invalid_argument("The sequence would become too long.");
  }
  if (Status status = follow_grammar(request); !status.ok()) return status;

  const uint64_t n_loaded = shared_.store.n_loaded();
  const uint64_t n_fetched = n_fetched_;
  DecodeOutcome outcome;
  MassSum masses;
  const bool drafts = request.drafts && !request.forced && !request.masses && !request.selections &&
                      shared_.model.gpu() == nullptr;
  while (outcome.steps.size() < n_steps && !outcome.stopped) {
    if (drafts) {
      const int n_left = int(n_steps - outcome.steps.size());
      const Result<bool> drafted = decode_drafted(request, n_left, stop, outcome);
      if (!drafted.ok()) return drafted.status();
      if (outcome.interrupted) break;
      if (*drafted) continue;
    }
    const Result<bool> ready = next_logits(stop, request.masses ? &masses : nullptr, request.selections);
    if (!ready.ok()) return ready.status();
    if (!*ready) {
      outcome.interrupted = true;
      break;
    }
    append(request, outcome, draw(request, outcome.steps.size(), tokens_.size()));
  }
  grammar_state_.reset();
  outcome.masses = best_masses(masses);
  outcome.blocks_read = shared_.store.n_loaded() - n_loaded;
  outcome.blocks_fetched = n_fetched_ - n_fetched;
  if (last_.token_idx >= 0) {
    const double n_lists = shared_.model.kv_shape().extents_per_block();
    outcome.attended_blocks = int(std::lround(double(last_.n_attended) / n_lists));
    outcome.total_blocks = n_context_blocks() + blocks_for(last_.token_idx + 1);
  }
  return outcome;
}

Result<ScoreOutcome> Sequence::score(int from, const StopFlag& stop) {
  if (from < 1 || from > n_tokens()) {
    return Status::invalid_argument("Scoring must start between token 1 and the end (" +
                                    std::to_string(n_tokens()) + "), not at " +
                                    std::to_string(from) + ".");
  }
  if (!score_ || score_->from != from) score_ = ScoreProgress{from, {}};
  std::vector<float>& logprobs = score_->logprobs;
  while (from + int(logprobs.size()) < n_tokens()) {
    // The hidden row that predicts the next token to score.
    const int row = from + int(logprobs.size()) - 1;
    if (pass_ && pass_->done() && (row < pass_->plan().first || row >= pass_->end())) drop_pass();
    if (!pass_) {
      const int first = std::min(row, n_computed_);
      const int n = std::min(pass_end(first), n_tokens()) - first;
      if (Status status = start_pass(first, n, {.all_hidden = true}); !status.ok()) return status;
    }
    const Result<bool> finished = advance(stop);
    if (!finished.ok()) return finished.status();
    if (!*finished) return ScoreOutcome{logprobs, true};
    const bool covered = row >= pass_->plan().first && row < pass_->end();
    if (covered && !harvest_scores(stop)) return ScoreOutcome{logprobs, true};
    drop_pass();
  }
  const Result<PrefillOutcome> rest = prefill(n_tokens(), stop);
  if (!rest.ok()) return rest.status();
  if (rest->interrupted) return ScoreOutcome{logprobs, true};
  ScoreOutcome outcome{std::move(logprobs), false};
  forget_score();
  return outcome;
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

Result<int64_t> Sequence::save(const std::string& path, const std::string& key) {
  const SegmentIdentity identity{shared_.model.kv_shape(), base_position_, key};
  // What is half written for this very file is finished, anything else written from the start.
  std::optional<SegmentWriter> writer;
  if (partial_ && partial_->path == path && partial_->writer.identity().key == key &&
      begins_with(partial_->writer.tokens())) {
    writer.emplace(std::move(partial_->writer));
    partial_.reset();
  } else {
    Result<SegmentWriter> made = SegmentWriter::create(path, identity);
    if (!made.ok()) return made.status();
    writer.emplace(*std::move(made));
  }
  const int n_blocks = blocks_for(n_computed_);
  if (Status status = append_blocks(*writer, n_blocks); !status.ok()) return status;
  // A parked pass may be ahead of what is computed; the file holds the latter alone.
  SideCar side_car = side_car_;
  side_car.truncate(n_computed_);
  const Result<int64_t> n_bytes = writer->finish(side_car);
  if (!n_bytes.ok()) return n_bytes;
  // Not the block that a parked pass has written more of.
  const int n_saved = pass_ ? n_computed_ / kBlockTokens : n_blocks;
  if (Status status = adopt_saved(path, *writer, 0, n_saved); !status.ok()) return status;
  return n_bytes;
}

Result<int> Sequence::checkpoint(const std::string& path, const std::string& key) {
  const Result<SegmentWriter*> writer = partial_writer(path, key);
  if (!writer.ok()) return writer.status();
  const int n_before = int((*writer)->tokens().size()) / kBlockTokens;
  const int n_blocks = n_computed_ / kBlockTokens;
  Status status = append_blocks(**writer, n_blocks);
  if (status.ok()) status = (*writer)->checkpoint(side_car_);
  if (status.ok()) status = adopt_saved(partial_path(path), **writer, n_before, n_blocks);
  if (!status.ok()) return status;
  return n_blocks * kBlockTokens;
}

// The open writer of `path`, of which the sequence is a continuation; opened or made when need be.
Result<SegmentWriter*> Sequence::partial_writer(const std::string& path, const std::string& key) {
  const SegmentIdentity identity{shared_.model.kv_shape(), base_position_, key};
  if (partial_ && (partial_->path != path || partial_->writer.identity().key != key)) partial_.reset();
  if (!partial_) {
    // One that a process before this one, or a failed save, has left.
    Result<SegmentWriter::Resumed> old = SegmentWriter::resume(path, identity);
    if (old.ok()) partial_.emplace(path, std::move(old->writer));
  }
  if (partial_ && begins_with(partial_->writer.tokens())) return &partial_->writer;
  partial_.reset();
  Result<SegmentWriter> made = SegmentWriter::create_partial(path, identity);
  if (!made.ok()) return made.status();
  partial_.emplace(path, *std::move(made));
  return &partial_->writer;
}

// Whether these tokens are the first of those computed.
bool Sequence::begins_with(std::span<const uint32_t> tokens) const {
  return tokens.size() <= size_t(n_computed_) && std::equal(tokens.begin(), tokens.end(), tokens_.begin());
}

// Appends the blocks that `writer` does not have yet, up to block `n_blocks`.
Status Sequence::append_blocks(SegmentWriter& writer, int n_blocks) {
  std::vector<BlockId> ids(size_t(shared_.model.kv_shape().extents_per_block()));
  std::vector<const std::byte*> extents(ids.size());
  for (int block = int(writer.tokens().size()) / kBlockTokens; block < n_blocks; ++block) {
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = block_id(block, i);
    shared_.store.begin_step();
    if (Status status = shared_.store.make_resident(ids); !status.ok()) return status;
    for (size_t i = 0; i < ids.size(); ++i) extents[i] = shared_.store.data(ids[i]);
    const int begin = block * kBlockTokens;
    const int n = std::min(kBlockTokens, n_computed_ - begin);
    const std::span<const uint32_t> tokens(tokens_.data() + begin, size_t(n));
    if (Status status = writer.append(tokens, extents); !status.ok()) return status;
  }
  return {};
}

// From here on `path` is where these blocks lie when memory needs their place.
Status Sequence::adopt_saved(const std::string& path, const SegmentWriter& writer, int first_block,
                             int n_blocks) {
  if (shared_.disk == nullptr || first_block >= n_blocks) return {};
  const KvShape& shape = shared_.model.kv_shape();
  const Result<DiskTier::FileId> file = shared_.disk->open_file(path);
  if (!file.ok()) return file.status();
  const size_t n_extents = size_t(shape.extents_per_block());
  for (int block = first_block; block < n_blocks; ++block) {
    for (size_t i = 0; i < n_extents; ++i) {
      const size_t at = size_t(block) * n_extents + i;
      shared_.store.saved(block_id(block, i),
                          shared_.disk->adopt(*file, SegmentIndex::extent_offset(shape, at),
                                              writer.checksums()[at]));
    }
  }
  shared_.disk->close_unused(*file);
  return {};
}

// Extent `i` of a block, in the order [n_layers, n_kv_heads].
BlockId Sequence::block_id(int block, size_t i) const {
  const int n_kv_heads = shared_.model.kv_shape().n_kv_heads;
  return blocks_.id(int(i) / n_kv_heads, int(i) % n_kv_heads, block);
}

Status Sequence::check_empty() const {
  if (Status status = check_growable(); !status.ok()) return status;
  if (tokens_.empty()) return {};
  return Status::invalid_argument("Only an empty sequence can be loaded into.");
}

Result<int> Sequence::load(const std::string& path, const std::string& key) {
  if (Status status = check_empty(); !status.ok()) return status;
  Result<SegmentIndex> index = read_segment_index(path, {shared_.model.kv_shape(), base_position_, key});
  if (!index.ok()) return index.status();
  if (Status status = take_over(path, *std::move(index)); !status.ok()) return status;
  return n_computed_;
}

Result<int> Sequence::resume(const std::string& path, const std::string& key) {
  if (Status status = check_empty(); !status.ok()) return status;
  partial_.reset();
  Result<SegmentWriter::Resumed> resumed =
      SegmentWriter::resume(path, {shared_.model.kv_shape(), base_position_, key});
  if (!resumed.ok()) return resumed.status();
  if (Status status = take_over(partial_path(path), std::move(resumed->index)); !status.ok()) return status;
  partial_.emplace(path, std::move(resumed->writer));
  return n_computed_;
}

// Makes the saved tokens and blocks those of this empty sequence, which stays empty on failure.
Status Sequence::take_over(const std::string& path, SegmentIndex index) {
  const uint32_t n_vocab = uint32_t(shared_.model.config().n_vocab);
  if (std::ranges::any_of(index.tokens, [&](uint32_t id) { return id >= n_vocab; })) {
    return Status::corrupt(path + " holds tokens outside the vocabulary.");
  }
  Status status = shared_.disk == nullptr ? read_blocks(path, index) : adopt_blocks(path, index);
  if (!status.ok()) {
    clear();
    return status;
  }
  tokens_ = std::move(index.tokens);
  side_car_ = std::move(index.side_car);
  n_computed_ = n_tokens();
  return {};
}

// Blocks stay in the file, and are read when something attends to them.
Status Sequence::adopt_blocks(const std::string& path, const SegmentIndex& index) {
  const KvShape& shape = shared_.model.kv_shape();
  const Result<DiskTier::FileId> file = shared_.disk->open_file(path);
  if (!file.ok()) return file.status();
  std::vector<TierSlot> slots(size_t(shape.extents_per_block()));
  for (size_t first = 0; first < index.checksums.size(); first += slots.size()) {
    for (size_t i = 0; i < slots.size(); ++i) {
      slots[i] = shared_.disk->adopt(*file, SegmentIndex::extent_offset(shape, first + i),
                                     index.checksums[first + i]);
    }
    blocks_.adopt(slots);
  }
  shared_.disk->close_unused(*file);
  return {};
}

// All blocks come into memory now.
Status Sequence::read_blocks(const std::string& path, const SegmentIndex& index) {
  const KvShape& shape = shared_.model.kv_shape();
  Result<ReadFile> file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  if (Status status = blocks_.grow(blocks_for(int(index.tokens.size()))); !status.ok()) return status;
  const size_t per_block = size_t(shape.extents_per_block());
  for (size_t i = 0; i < index.checksums.size(); ++i) {
    const BlockId id = block_id(int(i / per_block), i % per_block);
    const std::span<std::byte> extent(shared_.store.data(id), shape.extent_bytes());
    Status status = file->read(SegmentIndex::extent_offset(shape, i), extent);
    if (!status.ok()) return status;
    if (xxh64(extent) != index.checksums[i]) {
      return Status::corrupt(path + " is damaged (block " + std::to_string(i / per_block) +
                             "); it has to be computed again.");
    }
  }
  return {};
}

void Sequence::clear() {
  drop_pass();
  forget_score();
  tokens_.clear();
  n_computed_ = 0;
  last_.token_idx = -1;
  if (device_ != nullptr) device_->truncate(0);
  blocks_.truncate(0);
  side_car_.truncate(0);
  selector_->truncate(0);
}

Status Sequence::check_growable() const {
  if (n_attending_ == 0) return {};
  return Status::invalid_argument("The sequence is attended by " + std::to_string(n_attending_) +
                                  " others and must not change; fork it first.");
}

// Takes the grammar to where the tokens are. They alone say where that is, so commands may be cut off and
// repeated at will.
Status Sequence::follow_grammar(const DecodeRequest& request) {
  grammar_state_.reset();
  if (request.grammar == nullptr) return {};
  if (request.forced) return Status::invalid_argument("Given tokens follow no grammar.");
  if (request.grammar_from < 0 || request.grammar_from > n_tokens()) {
    return Status::invalid_argument("The grammar's text must begin within the sequence.");
  }
  grammar_state_.emplace(request.grammar);
  for (const uint32_t id : std::span(tokens_).subspan(size_t(request.grammar_from))) {
    if (grammar_state_->take(id)) continue;
    grammar_state_.reset();
    return Status::invalid_argument("The tokens that are there do not follow the grammar.");
  }
  return {};
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
  if (Status status = blocks_.grow(blocks_for(first + n_tokens)); !status.ok()) return status;
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
  n_fetched_ += pass_->n_fetched();
  n_computed_ = std::max(n_computed_, pass_->end());
  const int n_embd = shared_.model.config().n_embd;
  const float* hidden = pass_->hidden(pass_->plan().n_tokens - 1, n_embd);
  last_.hidden.assign(hidden, hidden + n_embd);
  last_.token_idx = pass_->end() - 1;
  last_.selections = pass_->selections();
  last_.tells = !pass_->on_device() || pass_->plan().selections;
  last_.n_attended = pass_->n_attended();
  return true;
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
  if (Status status = blocks_.grow(blocks_for(end)); !status.ok()) return status;
  Result<std::unique_ptr<PassBuffers>> buffers = shared_.take_buffers();
  if (!buffers.ok()) return buffers.status();
  pass_.emplace(plan, *std::move(buffers));
  return {};
}

// As Llama::logits(), wherever it can be done.
bool Sequence::logits(const float* hidden, int n_rows, float* out, const StopFlag& stop) {
  DeviceNetwork* device = shared_.model.gpu();
  if (device != nullptr && device->logits(hidden, n_rows, out)) return true;
  return shared_.model.network().logits(hidden, n_rows, out, stop);
}

int Sequence::logits_rows_per_step() const {
  const DeviceNetwork* device = shared_.model.gpu();
  return device != nullptr ? device->logits_rows_per_step() : shared_.model.network().logits_rows_per_step();
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
    if (masses != nullptr && pass_->plan().masses) {
      const std::vector<float> found =
          pass_->attended_masses(shared_.model.config(), n_context_blocks());
      masses->by_block.resize(found.size());
      for (size_t i = 0; i < found.size(); ++i) masses->by_block[i] += double(found[i]);
      ++masses->n_passes;
    }
    drop_pass();
  }
}

// Puts the scores of the token after the last one into the sampler; false when interrupted.
Result<bool> Sequence::next_logits(const StopFlag& stop, MassSum* masses, bool selections) {
  const Result<bool> ready = catch_up(stop, masses, selections);
  if (!ready.ok() || !*ready) return ready;
  const size_t n_vocab = size_t(shared_.model.config().n_vocab);
  if (shared_.logits.size() < n_vocab) shared_.logits.resize(n_vocab);
  if (!logits(last_.hidden.data(), 1, shared_.logits.data(), stop)) return false;
  shared_.sampler.set_logits({shared_.logits.data(), n_vocab});
  return true;
}

// Takes a drawn token in, unless it ends the generation.
void Sequence::append(const DecodeRequest& request, DecodeOutcome& outcome, DecodeStep step) {
  const uint32_t token = step.token;
  outcome.steps.push_back(std::move(step));
  outcome.stopped =
      !request.forced && std::ranges::find(request.stop_ids, token) != request.stop_ids.end();
  if (outcome.stopped) return;
  forget_score();
  tokens_.push_back(token);
}

// Tokens that may follow, so many that they end before the next grid line: a pass never crosses one.
std::vector<uint32_t> Sequence::draft(int n_left) const {
  const int grid_end = ((n_tokens() - 1) / kChunkTokens + 1) * kChunkTokens;
  const int n_max = std::min({draft_length_.get(), n_left - 1, grid_end - n_tokens()});
  if (n_max <= 0) return {};
  std::vector<std::span<const uint32_t>> others;
  for (const Sequence* sequence : attended_) others.emplace_back(sequence->tokens_);
  return Drafter().draft(tokens_, others, n_max);
}

// Steps from one pass over the token that waits and those guessed to follow it. False when there is
// nothing to guess; then nothing has changed. When interrupted the guesses are dropped with their pass.
Result<bool> Sequence::decode_drafted(const DecodeRequest& request, int n_left,
                                      const StopFlag& stop, DecodeOutcome& outcome) {
  const bool one_waits = n_computed_ == n_tokens() - 1 && (!pass_ || pass_->done());
  if (!one_waits) return false;
  const std::vector<uint32_t> guesses = draft(n_left);
  if (guesses.empty()) return false;
  const int n_real = n_tokens();
  forget_score();
  tokens_.insert(tokens_.end(), guesses.begin(), guesses.end());
  Status status = start_pass(n_real - 1, 1 + int(guesses.size()), {.all_hidden = true});
  if (status.ok()) {
    const Result<bool> finished = advance(stop);
    status = finished.ok() ? Status() : finished.status();
    if (finished.ok() && *finished) {
      const Result<bool> judged = judge(request, int(guesses.size()), stop, outcome);
      if (judged.ok() && *judged) return true;
      status = judged.ok() ? Status() : judged.status();
    }
    outcome.interrupted = status.ok();
  }
  drop_pass();
  // The pass may have been over, and only its judging interrupted: the token that waited waits again.
  n_computed_ = std::min(n_computed_, n_real - 1);
  drop_from(n_real);
  last_.token_idx = -1;
  if (!status.ok()) return status;
  return true;
}

// Draws from the rows of the finished pass as long as the guesses are right, and forgets the others.
// False when interrupted; then no step was taken.
Result<bool> Sequence::judge(const DecodeRequest& request, int n_drafted, const StopFlag& stop,
                             DecodeOutcome& outcome) {
  const ModelConfig& config = shared_.model.config();
  const size_t n_vocab = size_t(config.n_vocab);
  const int n_rows = n_drafted + 1;
  if (shared_.logits.size() < n_vocab * n_rows) shared_.logits.resize(n_vocab * n_rows);
  for (int row = 0; row < n_rows;) {
    const int n = std::min(n_rows - row, logits_rows_per_step());
    float* scores = shared_.logits.data() + n_vocab * row;
    if (!logits(pass_->hidden(row, config.n_embd), n, scores, stop)) return false;
    row += n;
  }
  const int n_real = n_tokens() - n_drafted;
  int n_right = 0;
  DecodeStep step;
  for (int row = 0;; ++row) {
    shared_.sampler.set_logits({shared_.logits.data() + n_vocab * row, n_vocab});
    step = draw(request, outcome.steps.size(), size_t(n_real) + row);
    if (row == n_drafted || step.token != tokens_[size_t(n_real) + row]) break;
    if (std::ranges::find(request.stop_ids, step.token) != request.stop_ids.end()) break;
    outcome.steps.push_back(std::move(step));
    ++n_right;
  }
  const int n_kept = n_real + n_right;
  const float* hidden = pass_->hidden(n_right, config.n_embd);
  last_.hidden.assign(hidden, hidden + config.n_embd);
  last_.token_idx = n_kept - 1;
  drop_pass();
  drop_from(n_kept);
  n_computed_ = n_kept;
  outcome.n_drafted += n_drafted;
  outcome.n_right += n_right;
  draft_length_.judged(n_drafted, n_right);
  append(request, outcome, std::move(step));
  return true;
}

// The tokens from `n_tokens` on are not there any more.
void Sequence::drop_from(int n_tokens) {
  tokens_.resize(size_t(n_tokens));
  blocks_.truncate(blocks_for(n_tokens));
  const int n_computed = std::min(n_computed_, n_tokens);
  side_car_.truncate(n_computed);
  selector_->truncate(n_computed / kBlockTokens);
}

// `n_tokens`: so many tokens come before it.
DecodeStep Sequence::draw(const DecodeRequest& request, size_t step_idx, size_t n_tokens) {
  DecodeStep step;
  if (request.forced) {
    step.token = request.teacher[step_idx];
  } else {
    SamplingOptions sampling = request.sampling;
    if (grammar_state_ && grammar_state_->in_call()) sampling.repetition_penalty = 1.0f;
    step.token = shared_.sampler.draw(sampling, {tokens_.data(), n_tokens}, request.banned_ids,
                                      uint64_t(base_position_) + n_tokens,
                                      grammar_state_ ? &*grammar_state_ : nullptr);
    if (grammar_state_) CHECK(grammar_state_->take(step.token));
  }
  step.logprob = shared_.sampler.logprob(step.token);
  if (request.top > 0) step.top = shared_.sampler.top(request.top);
  if (request.selections) step.selections = last_.selections;
  return step;
}

std::vector<BlockMass> Sequence::best_masses(const MassSum& masses) const {
  std::vector<BlockMass> all;
  if (masses.n_passes == 0) return all;
  all.reserve(masses.by_block.size());
  size_t at = 0;
  for (size_t sequence = 0; sequence < attended_kv_.size(); ++sequence) {
    for (int block = 0; block < blocks_for(attended_kv_[sequence].n_tokens); ++block) {
      const double mass = masses.by_block[at++] / masses.n_passes;
      all.push_back({int(sequence), block, float(mass)});
    }
  }
  std::ranges::stable_sort(all, std::ranges::greater(), &BlockMass::mass);
  if (all.size() > DecodeOutcome::masses_max) all.resize(DecodeOutcome::masses_max);
  return all;
}

// Scores from the rows of the finished pass, a few at a time; false when interrupted.
bool Sequence::harvest_scores(const StopFlag& stop) {
  const ModelConfig& config = shared_.model.config();
  const size_t n_vocab = size_t(config.n_vocab);
  std::vector<float>& logprobs = score_->logprobs;
  const int rows_end = std::min(pass_->end(), n_tokens() - 1);
  for (int row = score_->from + int(logprobs.size()) - 1; row < rows_end;) {
    const int n_rows =
        std::min({rows_end - row, logits_rows_per_step(), score_rows_max});
    if (shared_.logits.size() < n_vocab * n_rows) shared_.logits.resize(n_vocab * n_rows);
    const float* hidden = pass_->hidden(row - pass_->plan().first, config.n_embd);
    if (!logits(hidden, n_rows, shared_.logits.data(), stop)) return false;
    for (int i = 0; i < n_rows; ++i) {
      const std::span<const float> logits(shared_.logits.data() + n_vocab * i, n_vocab);
      const uint32_t next = tokens_[size_t(row) + i + 1];
      logprobs.push_back(float(double(logits[next]) - log_sum_exp(logits)));
    }
    row += n_rows;
  }
  return true;
}

}  // namespace nosa
