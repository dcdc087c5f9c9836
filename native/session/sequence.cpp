#include "session/sequence.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

#include "core/check.h"
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

Sequence::Sequence(SequenceShared& shared, int base_position,
                   std::vector<const Sequence*> attended)
    : shared_(shared),
      base_position_(base_position),
      attended_(std::move(attended)),
      blocks_(shared.store, shared.model.kv_shape()) {
  for (const Sequence* sequence : attended_) {
    attended_kv_.push_back({&sequence->blocks_, sequence->n_tokens()});
  }
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
  if (last_hidden_at_ >= n_common) last_hidden_at_ = -1;
  blocks_.truncate(blocks_for(pass_ ? pass_->end() : n_computed_));
  tokens_.assign(tokens.begin(), tokens.end());
  return n_computed_;
}

Result<PrefillOutcome> Sequence::prefill(int tokens_max, const StopFlag& stop) {
  int n_left = tokens_max;
  bool interrupted = false;
  while (n_computed_ < n_tokens() && n_left > 0) {
    if (!pass_ || pass_->done()) {
      const int grid_end = (n_computed_ / kChunkTokens + 1) * kChunkTokens;
      const int n = std::min({grid_end - n_computed_, n_tokens() - n_computed_, n_left});
      if (Status status = start_pass(n_computed_, n, false); !status.ok()) return status;
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
  return PrefillOutcome{n_computed_, n_computed_ == n_tokens(), interrupted};
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

  DecodeOutcome outcome;
  outcome.total_blocks = n_attended_blocks();
  outcome.attended_blocks = outcome.total_blocks;
  MassSum masses;
  while (outcome.steps.size() < n_steps && !outcome.stopped) {
    const Result<bool> ready = next_logits(stop, request.masses ? &masses : nullptr);
    if (!ready.ok()) return ready.status();
    if (!*ready) {
      outcome.interrupted = true;
      break;
    }
    outcome.steps.push_back(draw(request, outcome.steps.size()));
    const uint32_t token = outcome.steps.back().token;
    outcome.stopped =
        !request.forced && std::ranges::find(request.stop_ids, token) != request.stop_ids.end();
    if (outcome.stopped) break;
    forget_score();
    tokens_.push_back(token);
  }
  outcome.masses = best_masses(masses);
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
      const int grid_end = (first / kChunkTokens + 1) * kChunkTokens;
      const int n = std::min(grid_end, n_tokens()) - first;
      if (Status status = start_pass(first, n, false); !status.ok()) return status;
    }
    const Result<bool> finished = advance(stop);
    if (!finished.ok()) return finished.status();
    const bool covered = row >= pass_->plan().first && row < pass_->end();
    if (!*finished || (covered && !harvest_scores(stop))) return ScoreOutcome{logprobs, true};
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
  copy->last_hidden_ = last_hidden_;
  copy->last_hidden_at_ = last_hidden_at_;
  return copy;
}

Result<int64_t> Sequence::save(const std::string& path, const std::string& key) const {
  const KvShape& shape = shared_.model.kv_shape();
  Result<SegmentWriter> writer = SegmentWriter::create(path, {shape, base_position_, key});
  if (!writer.ok()) return writer.status();
  std::vector<const std::byte*> extents(size_t(shape.extents_per_block()));
  for (int block = 0; block < blocks_for(n_computed_); ++block) {
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      for (int kv_head = 0; kv_head < shape.n_kv_heads; ++kv_head) {
        extents[size_t(layer) * shape.n_kv_heads + kv_head] = blocks_.extent(layer, kv_head, block);
      }
    }
    const int begin = block * kBlockTokens;
    const int n = std::min(kBlockTokens, n_computed_ - begin);
    const std::span<const uint32_t> tokens(tokens_.data() + begin, size_t(n));
    if (Status status = writer->append(tokens, extents); !status.ok()) return status;
  }
  return writer->finish();
}

Result<int> Sequence::load(const std::string& path, const std::string& key) {
  if (Status status = check_growable(); !status.ok()) return status;
  if (!tokens_.empty()) {
    return Status::invalid_argument("Only an empty sequence can be loaded into.");
  }
  if (Status status = load_blocks(path, key); !status.ok()) {
    clear();
    return status;
  }
  n_computed_ = n_tokens();
  return n_computed_;
}

Status Sequence::load_blocks(const std::string& path, const std::string& key) {
  const KvShape& shape = shared_.model.kv_shape();
  const uint32_t n_vocab = uint32_t(shared_.model.config().n_vocab);
  Result<SegmentReader> reader = SegmentReader::open(path, {shape, base_position_, key});
  if (!reader.ok()) return reader.status();

  std::vector<std::byte*> extents(size_t(shape.extents_per_block()));
  std::array<uint32_t, kBlockTokens> tokens;
  for (int block = 0;; ++block) {
    const Result<int> n = reader->next_block(tokens);
    if (!n.ok()) return n.status();
    if (*n == 0) return {};
    const std::span<const uint32_t> valid(tokens.data(), size_t(*n));
    if (std::ranges::any_of(valid, [&](uint32_t id) { return id >= n_vocab; })) {
      return Status::corrupt(path + " holds tokens outside the vocabulary.");
    }
    if (Status status = blocks_.grow(block + 1); !status.ok()) return status;
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      for (int kv_head = 0; kv_head < shape.n_kv_heads; ++kv_head) {
        Result<std::byte*> extent = blocks_.writable_extent(layer, kv_head, block);
        if (!extent.ok()) return extent.status();
        extents[size_t(layer) * shape.n_kv_heads + kv_head] = *extent;
      }
    }
    if (Status status = reader->read_extents(extents); !status.ok()) return status;
    tokens_.insert(tokens_.end(), valid.begin(), valid.end());
  }
}

void Sequence::clear() {
  drop_pass();
  forget_score();
  tokens_.clear();
  n_computed_ = 0;
  last_hidden_at_ = -1;
  blocks_.truncate(0);
}

Status Sequence::check_growable() const {
  if (n_attending_ == 0) return {};
  return Status::invalid_argument("The sequence is attended by " + std::to_string(n_attending_) +
                                  " others and must not change; fork it first.");
}

PassTarget Sequence::target() { return {tokens_, base_position_, &blocks_, attended_kv_}; }

int Sequence::n_attended_blocks() const {
  int n_blocks = 0;
  for (const AttendedKv& kv : attended_kv_) n_blocks += blocks_for(kv.n_tokens);
  return n_blocks;
}

// REQUIRES: no half-done pass.
Status Sequence::start_pass(int first, int n_tokens, bool masses) {
  drop_pass();
  const PassPlan plan{first, n_tokens, n_computed_, masses};
  if (Status status = blocks_.grow(blocks_for(first + n_tokens)); !status.ok()) return status;
  Result<std::unique_ptr<PassBuffers>> buffers = shared_.take_buffers();
  if (!buffers.ok()) return buffers.status();
  pass_.emplace(plan, *std::move(buffers));
  return {};
}

// Takes the pass on; true when it is done, and then its tokens count as computed.
Result<bool> Sequence::advance(const StopFlag& stop) {
  if (pass_->done()) return true;
  Status status = shared_.model.network().advance(*pass_, target(), stop);
  if (!status.ok()) return status;
  if (!pass_->done()) return false;
  n_computed_ = std::max(n_computed_, pass_->end());
  const int n_embd = shared_.model.config().n_embd;
  const float* hidden = pass_->hidden(pass_->plan().n_tokens - 1, n_embd);
  last_hidden_.assign(hidden, hidden + n_embd);
  last_hidden_at_ = pass_->end() - 1;
  return true;
}

void Sequence::drop_pass() {
  if (!pass_) return;
  shared_.put_buffers(pass_->take_buffers());
  pass_.reset();
}

// Computes what waits, and the hidden row of the last token; true when both are there.
Result<bool> Sequence::catch_up(const StopFlag& stop, MassSum* masses) {
  while (n_computed_ < n_tokens() || last_hidden_at_ != n_tokens() - 1) {
    if (!pass_ || pass_->done()) {
      const int first = std::min(n_computed_, n_tokens() - 1);
      const int grid_end = (first / kChunkTokens + 1) * kChunkTokens;
      const int n = std::min(grid_end, n_tokens()) - first;
      const bool is_last = first + n == n_tokens();
      Status status = start_pass(first, n, masses != nullptr && is_last);
      if (!status.ok()) return status;
    }
    const Result<bool> finished = advance(stop);
    if (!finished.ok() || !*finished) return finished;
    if (masses != nullptr && pass_->plan().masses) {
      const std::vector<float> found =
          pass_->attended_masses(shared_.model.config(), n_attended_blocks());
      masses->by_block.resize(found.size());
      for (size_t i = 0; i < found.size(); ++i) masses->by_block[i] += double(found[i]);
      ++masses->n_passes;
    }
    drop_pass();
  }
  return true;
}

// Puts the scores of the token after the last one into the sampler; false when interrupted.
Result<bool> Sequence::next_logits(const StopFlag& stop, MassSum* masses) {
  const Result<bool> ready = catch_up(stop, masses);
  if (!ready.ok() || !*ready) return ready;
  const size_t n_vocab = size_t(shared_.model.config().n_vocab);
  if (shared_.logits.size() < n_vocab) shared_.logits.resize(n_vocab);
  if (!shared_.model.network().logits(last_hidden_.data(), 1, shared_.logits.data(), stop)) {
    return false;
  }
  shared_.sampler.set_logits({shared_.logits.data(), n_vocab});
  return true;
}

DecodeStep Sequence::draw(const DecodeRequest& request, size_t step_idx) {
  DecodeStep step;
  step.token = request.forced
                   ? request.teacher[step_idx]
                   : shared_.sampler.draw(request.sampling, tokens_, request.banned_ids,
                                          uint64_t(base_position_) + tokens_.size());
  step.logprob = shared_.sampler.logprob(step.token);
  if (request.top > 0) step.top = shared_.sampler.top(request.top);
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
  Llama& network = shared_.model.network();
  const ModelConfig& config = shared_.model.config();
  const size_t n_vocab = size_t(config.n_vocab);
  std::vector<float>& logprobs = score_->logprobs;
  const int rows_end = std::min(pass_->end(), n_tokens() - 1);
  for (int row = score_->from + int(logprobs.size()) - 1; row < rows_end;) {
    const int n_rows =
        std::min({rows_end - row, network.logits_rows_per_step(), score_rows_max});
    if (shared_.logits.size() < n_vocab * n_rows) shared_.logits.resize(n_vocab * n_rows);
    const float* hidden = pass_->hidden(row - pass_->plan().first, config.n_embd);
    if (!network.logits(hidden, n_rows, shared_.logits.data(), stop)) return false;
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
