// A decode command for several sequences: what they share is a step of the GPU, nothing else.
#include <algorithm>
#include <vector>

#include "session/sequence.h"

namespace nosa {

/// One sequence's part while the command runs.
class Sequence::Participant {
 public:
  explicit Participant(const DecodePart& part) : sequence_(*part.sequence) { status_ = sequence_.begin_decode(*part.request, decoding_); }

  bool goes_on() const { return status_.ok() && decoding_.goes_on(); }
  void interrupt() { decoding_.outcome.interrupted = true; }
  void step_alone(const StopFlag& stop) { status_ = sequence_.decode_step(decoding_, stop); }
  bool waits_for_one_token() const { return sequence_.waits_for_one_token(); }
  DeviceNetwork* gpu() const { return sequence_.shared_.model.gpu(); }

  /// REQUIRES: a GPU. What comes of it goes to take().
  DeviceNetwork::Together start() {
    const DecodeRequest& request = *decoding_.request;
    status_ = sequence_.start_pass(sequence_.n_computed_, 1, {.masses = request.masses, .selections = request.selections});
    return {.pass = &*sequence_.pass_, .target = sequence_.target(), .status = {}};
  }

  /// Takes over what became of the pass; false when it was not computed. Else draw() comes next.
  bool take(const DeviceNetwork::Together& of) {
    decoding_.outcome.blocks_read += of.n_loaded;
    status_ = of.status;
    if (!of.computed) {
      sequence_.drop_pass();
      return false;
    }
    sequence_.finish_pass();
    if (decoding_.request->masses) sequence_.add_masses(decoding_.masses);
    sequence_.drop_pass();
    if (of.shared) decoding_.outcome.n_shared += 1;
    logits_ = of.logits;
    return true;
  }

  /// Draws and appends what follows the pass. Touches nothing that sequences share, but the sampler.
  void draw(Sampler& sampler) {
    const DecodeRequest& request = *decoding_.request;
    DecodeOutcome& outcome = decoding_.outcome;
    sampler.set_logits({logits_, size_t(sequence_.shared_.model.config().n_vocab)});
    sequence_.append(request, outcome, sequence_.draw(request, outcome.steps.size(), sequence_.tokens_.size(), sampler));
  }

  Result<DecodeOutcome> end() {
    DecodeOutcome outcome = sequence_.end_decode(decoding_);
    if (!status_.ok()) return status_;
    return outcome;
  }

  /// A step of each of `parts`, as many as can in one; gives those that took none.
  static std::vector<Participant*> step_together(std::vector<Participant*> parts, const StopFlag& stop);

 private:
  static void draw_all(std::span<Participant* const> parts);

  Sequence& sequence_;
  Decoding decoding_;
  Status status_;
  const float* logits_ = nullptr;  // Of the pass that take() was given.
};

std::vector<Sequence::Participant*> Sequence::Participant::step_together(std::vector<Participant*> parts, const StopFlag& stop) {
  std::vector<Participant*> alone;
  std::vector<Participant*> waiting;
  for (Participant* part : parts) (part->waits_for_one_token() ? waiting : alone).push_back(part);
  // Those that select otherwise take a step of their own.
  for (bool some = true; some && waiting.size() > 1 && waiting[0]->gpu() != nullptr;) {
    std::vector<DeviceNetwork::Together> passes;
    for (Participant* part : waiting) passes.push_back(part->start());
    waiting[0]->gpu()->compute_together(passes, stop);
    std::vector<Participant*> left;
    std::vector<Participant*> computed;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i]->take(passes[i])) computed.push_back(waiting[i]);
      else if (waiting[i]->goes_on()) left.push_back(waiting[i]);
    }
    draw_all(computed);
    some = left.size() < waiting.size();
    waiting = std::move(left);
  }
  alone.insert(alone.end(), waiting.begin(), waiting.end());
  return alone;
}

// Before the next step: its scores take the place of these.
void Sequence::Participant::draw_all(std::span<Participant* const> parts) {
  if (parts.empty()) return;
  SequenceShared& shared = parts[0]->sequence_.shared_;
  ThreadPool* pool = shared.draw_pool();
  const auto draw = [&](int64_t i, int worker) { parts[size_t(i)]->draw(shared.samplers[size_t(worker)]); };
  if (pool != nullptr) return pool->parallel_for(int64_t(parts.size()), draw);
  for (size_t i = 0; i < parts.size(); ++i) draw(int64_t(i), 0);
}

std::vector<Result<DecodeOutcome>> Sequence::decode_together(std::span<const DecodePart> parts, const StopFlag& stop) {
  std::vector<Participant> all;
  all.reserve(parts.size());
  for (const DecodePart& part : parts) all.emplace_back(part);
  for (;;) {
    std::vector<Participant*> open;
    for (Participant& part : all) {
      if (part.goes_on()) open.push_back(&part);
    }
    if (open.empty()) break;
    if (stop.raised()) {
      for (Participant* part : open) part->interrupt();
      break;
    }
    for (Participant* part : Participant::step_together(std::move(open), stop)) part->step_alone(stop);
  }
  std::vector<Result<DecodeOutcome>> outcomes;
  for (Participant& part : all) outcomes.push_back(part.end());
  return outcomes;
}

}  // namespace nosa
