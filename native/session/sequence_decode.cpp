// Sequences and what comes out of them: tokens drawn, with and without guesses ahead, and the log-probabilities of given ones.
#include "session/sequence.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>

#include "core/check.h"

namespace nosa {

Result<DecodeOutcome> Sequence::decode(const DecodeRequest& request, const StopFlag& stop) {
  Decoding decoding;
  Status status = begin_decode(request, decoding);
  while (status.ok() && decoding.goes_on()) status = decode_step(decoding, stop);
  if (!status.ok()) return status;
  return end_decode(decoding);
}

Status Sequence::begin_decode(const DecodeRequest& request, Decoding& decoding) {
  if (Status status = check_growable(); !status.ok()) return status;
  if (tokens_.empty()) {
    return Status::invalid_argument("There is no token to go on from; set the tokens first.");
  }
  if (Status status = check_ids(request.teacher); !status.ok()) return status;
  const size_t n_steps = request.forced ? std::min(size_t(request.n_steps), request.teacher.size())
                                        : size_t(request.n_steps);
  if (n_steps > size_t(position_end - base_position_ - n_tokens())) {
    return Status::invalid_argument("The sequence would become too long.");
  }
  decoding.request = &request;
  decoding.n_steps = n_steps;
  decoding.drafts = request.drafts && !request.forced && !request.masses && !request.selections && shared_.model.gpu() == nullptr;
  decoding.n_fetched_before = n_fetched_;
  return follow_grammar(request);
}

// One token more, or several that were guessed; or it is interrupted.
Status Sequence::decode_step(Decoding& decoding, const StopFlag& stop) {
  const DecodeRequest& request = *decoding.request;
  DecodeOutcome& outcome = decoding.outcome;
  const uint64_t n_loaded = shared_.store.n_loaded();
  const auto step = [&]() -> Status {
    if (decoding.drafts) {
      const Result<bool> drafted = decode_drafted(request, int(decoding.n_steps - outcome.steps.size()), stop, outcome);
      if (!drafted.ok()) return drafted.status();
      if (*drafted || outcome.interrupted) return {};
    }
    const Result<bool> ready = next_logits(stop, request.masses ? &decoding.masses : nullptr, request.selections);
    if (!ready.ok()) return ready.status();
    outcome.interrupted = !*ready;
    if (*ready) append(request, outcome, draw(request, outcome.steps.size(), tokens_.size(), shared_.sampler));
    return {};
  };
  Status status = step();
  outcome.blocks_read += shared_.store.n_loaded() - n_loaded;
  return status;
}

DecodeOutcome Sequence::end_decode(Decoding& decoding) {
  grammar_state_.reset();
  DecodeOutcome& outcome = decoding.outcome;
  outcome.masses = best_masses(decoding.masses);
  outcome.blocks_fetched = n_fetched_ - decoding.n_fetched_before;
  if (last_.token_idx >= 0) {
    const double n_lists = shared_.model.kv_shape().extents_per_block();
    outcome.attended_blocks = int(std::lround(double(last_.n_attended) / n_lists));
    outcome.total_blocks = n_context_blocks() + blocks_for(last_.token_idx + 1);
  }
  return std::move(outcome);
}

// Whether all that its next step takes is one pass of one token on the GPU.
bool Sequence::waits_for_one_token() const {
  return shared_.model.gpu() != nullptr && n_computed_ == n_tokens() - 1 && (!pass_ || pass_->done());
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
    step = draw(request, outcome.steps.size(), size_t(n_real) + row, shared_.sampler);
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
DecodeStep Sequence::draw(const DecodeRequest& request, size_t step_idx, size_t n_tokens, Sampler& sampler) {
  DecodeStep step;
  if (request.forced) {
    step.token = request.teacher[step_idx];
  } else {
    SamplingOptions sampling = request.sampling;
    if (grammar_state_ && grammar_state_->in_call()) sampling.repetition_penalty = 1.0f;
    step.token = sampler.draw(sampling, {tokens_.data(), n_tokens}, request.banned_ids, uint64_t(base_position_) + n_tokens,
                              grammar_state_ ? &*grammar_state_ : nullptr);
    if (grammar_state_) CHECK(grammar_state_->take(step.token));
  }
  step.logprob = sampler.logprob(step.token);
  if (request.top > 0) step.top = sampler.top(request.top);
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
