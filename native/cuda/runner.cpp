#include "cuda/runner.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "kernels/linear.h"
#include "kernels/read_rows.h"

namespace nosa::cuda {
namespace {

/// Moves a value into a unique_ptr, or leaves with the status.
template <typename T>
Status keep(Result<T> result, std::unique_ptr<T>& to) {
  if (!result.ok()) return result.status();
  to = std::make_unique<T>(*std::move(result));
  return {};
}

Status keep(Result<PinnedBuffer> result, PinnedBuffer& to) {
  if (!result.ok()) return result.status();
  to = *std::move(result);
  return {};
}

template <typename T>
Status keep(Result<std::unique_ptr<T>> result, std::unique_ptr<T>& to) {
  if (!result.ok()) return result.status();
  to = *std::move(result);
  return {};
}

}  // namespace

Result<std::unique_ptr<Runner>> Runner::create(const ModelSource& source, const RunnerOptions& options,
                                               const RunnerShared& shared) {
  std::unique_ptr<Runner> runner(new Runner());
  const auto open = [&]() -> Status {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    NOSA_CUDA_TRY(cudaMemGetInfo(&free_bytes, &total_bytes), "Asking for the free device memory");
    Result<MemoryPlan> plan = plan_memory(source, options, free_bytes + (shared.model ? shared.model->bytes() : 0));
    if (!plan.ok()) return plan.status();
    runner->plan_ = *std::move(plan);
    const RunnerOptions& o = runner->plan_.options;
    constexpr const char* what = "Opening the GPU";
    NOSA_CUDA_TRY(cudaStreamCreateWithFlags(&runner->stream_, cudaStreamNonBlocking), what);
    NOSA_CUDA_TRY(cudaStreamCreateWithFlags(&runner->write_stream_, cudaStreamNonBlocking), what);
    NOSA_CUDA_TRY(cudaEventCreateWithFlags(&runner->step_done_, cudaEventDisableTiming), what);
    NOSA_CUDA_TRY(cudaEventCreateWithFlags(&runner->write_done_, cudaEventDisableTiming), what);

    runner->model_ = shared.model;
    if (runner->model_ == nullptr) {
      Result<std::unique_ptr<DeviceModel>> model = DeviceModel::create(source, runner->stream_);
      if (!model.ok()) return model.status();
      runner->model_ = *std::move(model);
    }
    NOSA_TRY(keep(PagePool::create(source.shape, o.n_pages, o.resident, shared.host), runner->pool_));
    NOSA_TRY(keep(PageArena::create(*runner->pool_, o.n_arena_pages), runner->arena_));
    const int n_slots = o.resident ? 0 : o.n_slots;
    NOSA_TRY(keep(LaneMemory::create(source.shape, *runner->pool_, o.n_lanes, o.n_blocks_max, n_slots), runner->lanes_));
    NOSA_TRY(keep(DecodeStep::create(*runner->model_, *runner->pool_, *runner->lanes_, o.step, o.n_seqs_max), runner->steps_.emplace_back()));
    NOSA_TRY(keep(Prefill::create(*runner->model_, o.chunk_tokens, o.n_blocks_max), runner->prefill_));
    runner->sequences_ = std::make_unique<Sequences>(*runner->pool_);
    runner->lane_states_.resize(size_t(o.n_lanes));
    return {};
  };
  if (Status status = open(); !status.ok()) return status;
  return runner;
}

Status Runner::grow(std::unique_ptr<Runner>& runner, const ModelSource& source, int n_blocks, size_t host_bytes_max) {
  NOSA_TRY(runner->synchronise());
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  NOSA_CUDA_TRY(cudaMemGetInfo(&free_bytes, &total_bytes), "Asking for the free device memory");
  const MemoryPlan before = runner->plan();
  const Result<MemoryPlan> grown = plan_growth(source, before, n_blocks, host_bytes_max, free_bytes + before.device_bytes());
  if (!grown.ok()) return grown.status();
  // The weights stay; all else must go before there is room for what follows.
  const RunnerShared shared = {runner->model(), nullptr};
  runner.reset();
  std::string why;
  for (const RunnerOptions& options : {grown->options, before.options}) {
    Result<std::unique_ptr<Runner>> made = create(source, options, shared);
    if (made.ok()) {
      runner = *std::move(made);
      return {};
    }
    why = made.status().message();
  }
  return Status::io(why);
}

Runner::~Runner() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  if (write_stream_ != nullptr) cudaStreamSynchronize(write_stream_);
  if (step_done_ != nullptr) cudaEventDestroy(step_done_);
  if (write_done_ != nullptr) cudaEventDestroy(write_done_);
  steps_.clear();
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
  if (write_stream_ != nullptr) cudaStreamDestroy(write_stream_);
}

Result<SequenceKey> Runner::create_sequence(int base_position, std::span<const SequenceKey> attended) {
  for (const SequenceKey key : attended) {
    if (Status status = unbind(key); !status.ok()) return status;
  }
  return sequences_->create(base_position, attended);
}

Result<SequenceKey> Runner::fork(SequenceKey key) {
  if (Status status = unbind(key); !status.ok()) return status;
  return sequences_->fork(key);
}

Status Runner::close(SequenceKey key) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return {};
  if ((*found)->lane != Sequence::no_lane) {
    // What it leaves on the device is of no use to anyone.
    NOSA_TRY(wait_for_writing());
    lane_states_[size_t((*found)->lane)].taken = false;
    (*found)->lane = Sequence::no_lane;
  }
  sequences_->close(key);
  return {};
}

Result<int> Runner::set_tokens(SequenceKey key, std::span<const uint32_t> tokens) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  if (sequence.n_attending > 0) {
    return Status::invalid_argument("The sequence is attended by others and must not change; fork it first.");
  }
  const auto [mine, theirs] = std::ranges::mismatch(sequence.tokens, tokens);
  const int n_common = int(mine - sequence.tokens.begin());
  if (n_common < sequence.n_computed) {
    if (Status status = unbind_lane(sequence); !status.ok()) return status;
    sequences_->cut(sequence, n_common);
  }
  sequence.tokens.assign(tokens.begin(), tokens.end());
  return sequence.n_computed;
}

bool Runner::chooses(const Sequence& sequence, int n_tokens) const {
  const StepOptions& options = step_of(sequence).options();
  if (sequence.attends_all || options.policy == Policy::kFull) return false;
  return sequence.n_open_blocks(n_tokens) > options.budget.total_blocks;
}

// The next token is written to a page that nobody else holds. A page taken for it may have had another life.
Status Runner::own_tail(Sequence& sequence) {
  const Result<std::vector<int32_t>> fresh = sequences_->own_tail(sequence, stream_);
  if (!fresh.ok()) return fresh.status();
  for (const int32_t page : *fresh) arena_->forget(page);
  return {};
}

// Pages for `n_tokens` own tokens. A fresh page may have had another life.
Status Runner::make_room(Sequence& sequence, int n_tokens) {
  const size_t n_before = sequence.pages.size();
  NOSA_TRY(sequences_->grow(sequence, n_tokens));
  for (size_t i = n_before; i < sequence.pages.size(); ++i) arena_->forget(sequence.pages[i]);
  if (sequence.lane == Sequence::no_lane || sequence.pages.size() == n_before) return {};
  return lanes_->add_pages(sequence.lane, int(sequence.attended_pages.size() + n_before),
                           std::span(sequence.pages).subspan(n_before), stream_);
}

Status Runner::prefill(SequenceKey key, int n_left) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  const int end = int(sequence.tokens.size()) - n_left;
  while (sequence.n_computed < end) {
    const int n = std::min(end - sequence.n_computed, plan_.options.chunk_tokens);
    const int chunk_end = sequence.n_computed + n;
    const bool selects = chooses(sequence, chunk_end) && !plan_.options.dense_prefill;
    if (selects || sequence.n_blocks(chunk_end) > arena_->n_places()) return feed(key, end);
    NOSA_TRY(compute_chunk(sequence, n));
  }
  return {};
}

// Tokens that attend to everything before them. `n` is at most a chunk, and all blocks fit the arena.
Status Runner::compute_chunk(Sequence& sequence, int n) {
  const int chunk_end = sequence.n_computed + n;
  NOSA_TRY(unbind_lane(sequence));
  NOSA_TRY(own_tail(sequence));
  NOSA_TRY(make_room(sequence, chunk_end));
  PrefillChunk chunk;
  chunk.ids = std::span(sequence.tokens).subspan(size_t(sequence.n_computed), size_t(n));
  chunk.own_start = sequence.n_computed;
  chunk.base_position = sequence.base_position;
  chunk.attended_pages = sequence.attended_pages;
  chunk.attended_info = sequence.attended_info;
  chunk.own_pages = std::span<const int32_t>(sequence.pages).first(size_t(blocks_for(chunk_end)));
  NOSA_TRY(prefill_->compute(chunk, *pool_, *arena_, stream_));
  sequence.n_computed = chunk_end;
  return {};
}

// So many queries that what they choose fits the slots whatever it is.
int Runner::queries_at_once(const Sequence& sequence) const {
  if (pool_->resident()) return kQueriesMax;
  const StepOptions& options = step_of(sequence).options();
  const SelectionBudget& budget = options.budget;
  const int n_forced = budget.sink_blocks + budget.window_blocks;
  const int n_picks = options.policy == Policy::kNosa ? budget.query_picks() : budget.total_blocks - n_forced;
  return std::clamp(1 + (plan_.options.n_slots - budget.total_blocks) / std::max(1, n_picks + 1), 1, kQueriesMax);
}

// A few tokens a step, each with a selection of its own.
Status Runner::feed(SequenceKey key, int end) {
  Sequence& sequence = **sequences_->get(key);
  const int n_max = queries_at_once(sequence);
  NOSA_TRY(bind_lane(sequence, key, {}));
  NOSA_TRY(make_room(sequence, end));
  std::vector<int32_t> ids;
  while (sequence.n_computed < end) {
    const int to_boundary = kBlockTokens - sequence.n_computed % kBlockTokens;
    const int n = std::min({n_max, end - sequence.n_computed, to_boundary});
    ids.assign(sequence.tokens.begin() + sequence.n_computed, sequence.tokens.begin() + sequence.n_computed + n);
    NOSA_TRY(lanes_->set_n_tokens(sequence.lane, sequence.n_computed + n, stream_));
    NOSA_TRY(step_of(sequence).feed(sequence.lane, ids, stream_));
    NOSA_TRY(keep_choices(step_of(sequence), std::array{static_cast<const Sequence*>(&sequence)}, {&key, 1}, n));
    n_steps_ += 1;
    sequence.n_computed += n;
    if (sequence.n_computed % kBlockTokens == 0) {
      NOSA_TRY(start_writing_back(sequence, sequence.n_computed / kBlockTokens - 1));
    }
  }
  return step_of(sequence).check(stream_);
}

Status Runner::decode(const DecodeCommand& command, std::vector<int32_t>& drawn) {
  CHECK(command.n_steps >= 1 && command.n_steps <= DecodeStep::n_steps_max);
  std::vector<Sequence*> sequences;
  for (const SequenceKey key : command.sequences) {
    const Result<Sequence*> found = sequences_->get(key);
    if (!found.ok()) return found.status();
    Sequence& sequence = **found;
    if (sequence.tokens.empty()) return Status::invalid_argument("There is no token to go on from; set the tokens first.");
    if (sequence.n_attending > 0) {
      return Status::invalid_argument("The sequence is attended by others and must not change; fork it first.");
    }
    if (sequence.n_computed == int(sequence.tokens.size())) {
      // What follows is drawn from the last token's output, which is computed anew.
      NOSA_TRY(unbind_lane(sequence));
      sequences_->cut(sequence, sequence.n_computed - 1);
    }
    NOSA_TRY(prefill(key, 1));
    sequences.push_back(&sequence);
  }
  std::vector<int32_t> lanes;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = *sequences[i];
    NOSA_TRY(bind_lane(sequence, command.sequences[i], command.sequences));
    NOSA_TRY(make_room(sequence, sequence.n_computed + command.n_steps));
    NOSA_TRY(lanes_->set_n_tokens(sequence.lane, sequence.n_computed + 1, stream_));
    lanes.push_back(sequence.lane);
    ids.push_back(int32_t(sequence.tokens[size_t(sequence.n_computed)]));
  }
  NOSA_TRY(steps_[0]->begin(lanes, ids, command.teacher, command.n_steps, stream_));
  for (int i = 0; i < command.n_steps; ++i) {
    NOSA_TRY(steps_[0]->decode(stream_));
    NOSA_TRY(keep_choices(*steps_[0], sequences, command.sequences, 1));
    n_steps_ += 1;
    for (Sequence* sequence : sequences) {
      sequence->n_computed += 1;
      if (sequence->n_computed % kBlockTokens == 0) {
        NOSA_TRY(start_writing_back(*sequence, sequence->n_computed / kBlockTokens - 1));
      }
    }
  }
  NOSA_TRY(steps_[0]->read_tokens(command.n_steps, drawn, stream_));
  for (size_t i = 0; i < drawn.size(); ++i) {
    sequences[i % sequences.size()]->tokens.push_back(uint32_t(drawn[i]));
  }
  return {};
}

// Of the step just enqueued, which takes `n_queries` tokens of every sequence behind those that count as computed.
Status Runner::keep_choices(DecodeStep& step, std::span<const Sequence* const> sequences, std::span<const SequenceKey> keys,
                            int n_queries) {
  if (!plan_.options.step.keeps_choices || step.options().policy == Policy::kFull) return {};
  const size_t n_rows_each = n_queries == 1 ? 1 : size_t(kQueriesMax);
  StepChoices found;
  NOSA_TRY(step.read_choices(int(sequences.size() * n_rows_each), found, stream_));
  const size_t n_heads = size_t(found.n_kv_heads);
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (int q = 0; q < n_queries; ++q) {
      const int own_idx = sequences[s]->n_computed + q;
      if (!chooses(*sequences[s], own_idx + 1)) continue;
      TokenChoice& choice = choices_.emplace_back();
      choice.key = keys[s];
      choice.own_idx = own_idx;
      for (size_t layer = 0; layer < size_t(shape().n_layers); ++layer) {
        for (size_t head = 0; head < n_heads; ++head) {
          const size_t list = (layer * size_t(found.n_rows) + s * n_rows_each + size_t(q)) * n_heads + head;
          const SelectedBlock* first = found.selected.data() + list * size_t(found.n_selected_max);
          std::vector<int32_t>& blocks = choice.blocks.emplace_back();
          for (int32_t i = 0; i < found.n_blocks[list]; ++i) blocks.push_back(first[i].block);
        }
      }
    }
  }
  return {};
}

Status Runner::pretend_computed(SequenceKey key, std::span<const uint32_t> tokens) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  CHECK(sequence.tokens.empty());
  NOSA_TRY(make_room(sequence, int(tokens.size())));
  sequence.tokens.assign(tokens.begin(), tokens.end());
  sequence.n_computed = int(tokens.size());
  return {};
}

Status Runner::bind(SequenceKey key) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  return bind_lane(**found, key, {});
}

Status Runner::unbind(SequenceKey key) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  return unbind_lane(**found);
}

// Blocks that the next query is sure to attend to; all of them where there are slots enough.
std::vector<int32_t> Runner::preload(const Sequence& sequence) const {
  std::vector<int32_t> blocks;
  if (pool_->resident()) return blocks;
  const int n_attended = int(sequence.attended_pages.size());
  const int n_blocks = sequence.n_blocks(sequence.n_computed);
  const int n_slots = lanes_->n_slots();
  const SelectionBudget& budget = step_of(sequence).options().budget;
  const int n_own_next = blocks_for(sequence.n_computed + 1);
  const int window_begin = n_attended + std::max(0, n_own_next - budget.window_blocks);
  for (int b = 0; b < n_blocks; ++b) {
    if (n_blocks < n_slots || b < budget.sink_blocks || b >= window_begin) blocks.push_back(b);
  }
  return blocks;
}

// Does nothing when it is bound. Lanes of the sequences in `keep` are not given away.
Status Runner::bind_lane(Sequence& sequence, SequenceKey key, std::span<const SequenceKey> keep) {
  clock_ += 1;
  if (sequence.lane != Sequence::no_lane) {
    lane_states_[size_t(sequence.lane)].last_use = clock_;
    return {};
  }
  NOSA_TRY(own_tail(sequence));
  // What it gains in its lane, the arena does not have.
  if (sequence.n_computed % kBlockTokens != 0) arena_->forget(sequence.pages[size_t(sequence.n_computed / kBlockTokens)]);
  const Result<int> lane = free_lane(keep);
  if (!lane.ok()) return lane.status();

  std::vector<int32_t> pages = sequence.attended_pages;
  pages.insert(pages.end(), sequence.pages.begin(), sequence.pages.end());
  const std::vector<int32_t> preloaded = preload(sequence);
  LaneBinding binding;
  binding.pages = pages;
  binding.info = sequence.attended_info;
  binding.n_attended = int(sequence.attended_pages.size());
  binding.n_tokens = sequence.n_computed;
  binding.base_position = sequence.base_position;
  binding.preload = preloaded;
  NOSA_TRY(wait_for_writing());
  NOSA_TRY(lanes_->bind(*lane, binding, *pool_, stream_));
  NOSA_TRY(step_of(sequence).rank(*lane, binding.n_attended, sequence.n_computed, stream_));
  sequence.lane = *lane;
  lane_states_[size_t(*lane)] = {key, true, clock_};
  return {};
}

// A lane that is free, else the one longest unused, whose sequence leaves it.
Result<int> Runner::free_lane(std::span<const SequenceKey> keep) {
  int best = -1;
  for (int lane = 0; lane < int(lane_states_.size()); ++lane) {
    const LaneState& state = lane_states_[size_t(lane)];
    if (!state.taken) return lane;
    if (std::ranges::find(keep, state.key) != keep.end()) continue;
    if (best < 0 || state.last_use < lane_states_[size_t(best)].last_use) best = lane;
  }
  if (best < 0) {
    return Status::invalid_argument("A step takes at most " + std::to_string(lane_states_.size()) + " sequences here.");
  }
  const Result<Sequence*> found = sequences_->get(lane_states_[size_t(best)].key);
  CHECK(found.ok());
  if (Status status = unbind_lane(**found); !status.ok()) return status;
  return best;
}

Status Runner::unbind_lane(Sequence& sequence) {
  if (sequence.lane == Sequence::no_lane) return {};
  NOSA_TRY(wait_for_writing());
  if (!pool_->resident() && sequence.n_computed % kBlockTokens != 0) {
    const int own_block = sequence.n_computed / kBlockTokens;
    const int page = sequence.pages[size_t(own_block)];
    arena_->forget(page);
    NOSA_TRY(lanes_->write_back(sequence.lane, int(sequence.attended_pages.size()) + own_block, page, *pool_, stream_));
  }
  lane_states_[size_t(sequence.lane)].taken = false;
  sequence.lane = Sequence::no_lane;
  return {};
}

// A finished own block goes to host memory beside the next steps. Its slot keeps it while it is in the window, and by the
// time the next block is finished, it must be there.
Status Runner::start_writing_back(const Sequence& sequence, int own_block) {
  if (pool_->resident()) return {};
  if (written_at_step_ != n_steps_) NOSA_TRY(wait_for_writing());
  written_at_step_ = n_steps_;
  const int page = sequence.pages[size_t(own_block)];
  arena_->forget(page);
  NOSA_CUDA_TRY(cudaEventRecord(step_done_, stream_), "Writing a block back");
  NOSA_CUDA_TRY(cudaStreamWaitEvent(write_stream_, step_done_, 0), "Writing a block back");
  NOSA_TRY(lanes_->write_back(sequence.lane, int(sequence.attended_pages.size()) + own_block, page, *pool_, write_stream_));
  NOSA_CUDA_TRY(cudaEventRecord(write_done_, write_stream_), "Writing a block back");
  writing_ = true;
  return {};
}

// What comes next on the main stream may read every page.
Status Runner::wait_for_writing() {
  if (!writing_) return {};
  writing_ = false;
  NOSA_CUDA_TRY(cudaStreamWaitEvent(stream_, write_done_, 0), "Writing a block back");
  return {};
}

Status Runner::synchronise() {
  NOSA_CUDA_TRY(cudaStreamSynchronize(write_stream_), "Waiting for the GPU");
  NOSA_CUDA_TRY(cudaStreamSynchronize(stream_), "Waiting for the GPU");
  return {};
}

Status Runner::attend(SequenceKey key, std::span<const SequenceKey> attended) {
  NOSA_TRY(unbind(key));
  for (const SequenceKey other : attended) NOSA_TRY(unbind(other));
  return sequences_->attend(key, attended);
}

Status Runner::select(SequenceKey key, const StepOptions& options, std::span<const uint8_t> flags) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  const bool attends_all = options.policy == Policy::kFull;
  const Result<int> step = attends_all ? Result<int>(0) : step_for(options);
  if (!step.ok()) return step.status();
  NOSA_TRY(unbind_lane(sequence));
  sequence.step = *step;
  sequence.attends_all = attends_all;
  sequences_->mark(sequence, flags);
  return {};
}

// The step with these options; made when there is none, in the place of one that no sequence uses any more when there are
// many.
Result<int> Runner::step_for(const StepOptions& options) {
  constexpr size_t steps_max = 12;
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i]->options() == options) return int(i);
  }
  size_t place = steps_.size();
  if (place == steps_max) {
    // The plan's own stays; of the others, the one that was made first.
    place = 1;
    while (place < steps_max && sequences_->use_step(int(place))) ++place;
    if (place == steps_max) return Status::unsupported("The GPU keeps at most 12 ways to select blocks at once.");
    NOSA_TRY(synchronise());
    steps_.erase(steps_.begin() + long(place));
    sequences_->step_removed(int(place));
    place = steps_.size();
  }
  std::unique_ptr<DecodeStep> step;
  if (Status status = keep(DecodeStep::create(*model_, *pool_, *lanes_, options, plan_.options.n_seqs_max), step); !status.ok()) {
    return status;
  }
  steps_.push_back(std::move(step));
  return int(place);
}

Status Runner::put_block(SequenceKey key, const BlockSource& block) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  CHECK(sequence.n_computed % kBlockTokens == 0 && sequence.n_computed == int(sequence.tokens.size()));
  CHECK(block.n_tokens >= 1 && block.n_tokens <= kBlockTokens);
  NOSA_TRY(unbind_lane(sequence));
  NOSA_TRY(make_room(sequence, sequence.n_computed + block.n_tokens));
  // Nothing may still write to a page that had another life.
  NOSA_TRY(synchronise());
  const int page = sequence.pages[size_t(sequence.n_computed / kBlockTokens)];
  NOSA_TRY(pool_->write(page, block.extents, block.compressed, block.token_scores, block.window_scores, stream_));
  sequence.n_computed += block.n_tokens;
  sequence.tokens.resize(size_t(sequence.n_computed));  // Which tokens they are does not matter any more.
  return {};
}

Status Runner::cut(SequenceKey key, int n_tokens) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  if (size_t(n_tokens) >= sequence.tokens.size()) return {};
  if (sequence.n_attending > 0) {
    return Status::invalid_argument("The sequence is attended by others and must not change; fork it first.");
  }
  NOSA_TRY(unbind_lane(sequence));
  sequences_->cut(sequence, n_tokens);
  sequence.tokens.resize(size_t(n_tokens));
  return {};
}

Result<bool> Runner::chooses(SequenceKey key, int n_tokens) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  return chooses(**found, n_tokens);
}

Status Runner::advance(const AdvanceRequest& request) {
  const Result<Sequence*> found = sequences_->get(request.key);
  if (!found.ok()) return found.status();
  Sequence& sequence = **found;
  const int first = sequence.n_computed;
  const int n = int(request.tokens.size());
  const int end = first + n;
  CHECK(n >= 1 && n <= plan_.options.chunk_tokens && request.n_hidden >= 1 && request.n_hidden <= n);
  CHECK(first == int(sequence.tokens.size()));
  // One token that sees no more than a selection holds sees the same in a step.
  const bool steps = chooses(sequence, end) || ((n == 1 || request.detail) && by_steps(sequence, end));
  if (request.detail && !steps) return Status::unsupported("What a query attends to is not told where it attends to everything.");
  if (steps ? n > step_tokens_max : sequence.n_blocks(end) > arena_->n_places()) {
    return Status::unsupported("The tokens attend to more blocks than fit the device at once.");
  }
  const size_t n_embd = size_t(shape().n_embd);
  n_fetched_.assign(1, 0);
  details_.assign(1, {});
  NOSA_TRY(make_staging(size_t(request.n_hidden), 1));
  staged_.push_back({request.key, first, first});
  sequence.tokens.insert(sequence.tokens.end(), request.tokens.begin(), request.tokens.end());
  const auto compute = [&]() -> Status {
    if (steps) return advance_by_steps(sequence, request, end);
    NOSA_TRY(compute_chunk(sequence, n));
    NOSA_TRY(stage_side_cars(sequence, first));
    NOSA_TRY(stage_hidden(prefill_->device_hidden() + size_t(n - request.n_hidden) * n_embd, request.n_hidden, 0));
    return synchronise();
  };
  if (Status status = compute(); !status.ok()) {
    sequence.tokens.resize(size_t(sequence.n_computed));
    return status;
  }
  n_hidden_ = size_t(request.n_hidden) * n_embd;
  return {};
}

bool Runner::by_steps(const Sequence& sequence, int n_tokens) const {
  return chooses(sequence, n_tokens) || sequence.n_open_blocks(n_tokens) <= step_of(sequence).options().budget.total_blocks;
}

// Nothing is staged yet, and there is room for what comes.
Status Runner::make_staging(size_t n_hidden, size_t n_logits) {
  n_hidden_ = 0;
  has_logits_ = false;
  staged_.clear();
  n_staged_ = 0;
  const auto hold = [](PinnedBuffer& buffer, size_t bytes, const char* what) -> Status {
    return buffer.bytes() >= bytes ? Status() : keep(PinnedBuffer::create(bytes, what), buffer);
  };
  static_assert(step_tokens_max >= kLinearRowsMax, "a row for each sequence of a step");
  NOSA_TRY(hold(rows_, step_tokens_max * pool_->page_bytes() / kBlockTokens, "rows of keys and values"));
  NOSA_TRY(hold(scores_, step_tokens_max * size_t(shape().n_streams()) * sizeof(float), "scores of tokens"));
  NOSA_TRY(hold(hidden_, n_hidden * size_t(shape().n_embd) * sizeof(float), "activations"));
  // Page-locked memory takes its time: not anew for every further sequence.
  return hold(logits_, std::bit_ceil(n_logits) * size_t(shape().n_vocab) * sizeof(float), "scores of the next token");
}

Result<std::vector<int>> Runner::together(std::span<const SequenceKey> keys) {
  std::vector<int> found;
  const Sequence* first = nullptr;
  for (size_t i = 0; i < keys.size() && found.size() < size_t(plan_.options.n_seqs_max); ++i) {
    const Result<Sequence*> sequence = sequences_->get(keys[i]);
    if (!sequence.ok()) return sequence.status();
    if (!by_steps(**sequence, (*sequence)->n_computed + 1)) continue;
    if (first == nullptr) first = *sequence;
    if ((*sequence)->step == first->step) found.push_back(int(i));
  }
  return found;
}

Status Runner::advance_together(std::span<const NextToken> tokens) {
  CHECK(!tokens.empty() && tokens.size() <= size_t(plan_.options.n_seqs_max));
  std::vector<Sequence*> sequences;
  for (const NextToken& next : tokens) {
    const Result<Sequence*> found = sequences_->get(next.key);
    if (!found.ok()) return found.status();
    CHECK((*found)->n_computed == int((*found)->tokens.size()));
    sequences.push_back(*found);
  }
  n_fetched_.assign(tokens.size(), 0);
  details_.assign(tokens.size(), {});
  NOSA_TRY(make_staging(tokens.size(), tokens.size()));
  if (Status status = step_together(sequences, tokens); !status.ok()) {
    for (size_t i = 0; i < sequences.size(); ++i) sequences[i]->tokens.resize(size_t(sequences[i]->n_computed));
    return status;
  }
  n_hidden_ = tokens.size() * size_t(shape().n_embd);
  return {};
}

Status Runner::step_together(std::span<Sequence* const> sequences, std::span<const NextToken> tokens) {
  const size_t n = sequences.size();
  DecodeStep& step = step_of(*sequences[0]);
  std::vector<SequenceKey> keys;
  for (const NextToken& next : tokens) keys.push_back(next.key);
  // All that may want for room comes before anything is computed.
  for (size_t i = 0; i < n; ++i) {
    NOSA_TRY(bind_lane(*sequences[i], keys[i], keys));
    NOSA_TRY(make_room(*sequences[i], sequences[i]->n_computed + 1));
  }
  std::vector<int32_t> lanes;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < n; ++i) {
    Sequence& sequence = *sequences[i];
    NOSA_TRY(lanes_->set_n_tokens(sequence.lane, sequence.n_computed + 1, stream_));
    sequence.tokens.push_back(tokens[i].token);
    lanes.push_back(sequence.lane);
    ids.push_back(int32_t(tokens[i].token));
  }
  const bool detail = std::ranges::any_of(tokens, &NextToken::detail);
  NOSA_TRY(step.start_counting_all(stream_));
  NOSA_TRY(step.begin(lanes, ids, {}, 1, stream_));
  NOSA_TRY(step.decode(stream_, detail));
  NOSA_TRY(keep_choices(step, std::vector<const Sequence*>(sequences.begin(), sequences.end()), keys, 1));
  n_steps_ += 1;
  for (size_t i = 0; i < n; ++i) {
    staged_.push_back({keys[i], sequences[i]->n_computed, sequences[i]->n_computed});
    NOSA_TRY(stage_rows(*sequences[i], 1));
  }
  NOSA_TRY(stage_hidden(step.device_hidden(), int(n), 0));
  NOSA_CUDA_TRY(cudaMemcpyAsync(logits_.host(), step.device_logits(), n * size_t(shape().n_vocab) * sizeof(float), cudaMemcpyDeviceToHost, stream_),
                "Reading the scores of next tokens");
  for (Sequence* sequence : sequences) {
    sequence->n_computed += 1;
    if (sequence->n_computed % kBlockTokens == 0) NOSA_TRY(start_writing_back(*sequence, sequence->n_computed / kBlockTokens - 1));
  }
  if (detail) NOSA_TRY(step.read_details(details_, stream_));
  std::vector<unsigned long long> n_loads;
  NOSA_TRY(step.read_loads(n_loads, stream_));
  for (size_t i = 0; i < n; ++i) n_fetched_[i] = n_loads[size_t(lanes[i])];
  return {};
}

Status Runner::advance_by_steps(Sequence& sequence, const AdvanceRequest& request, int end) {
  DecodeStep& step = step_of(sequence);
  const int n_max = queries_at_once(sequence);
  const int first_hidden = end - request.n_hidden;
  NOSA_TRY(bind_lane(sequence, request.key, {}));
  NOSA_TRY(make_room(sequence, end));
  NOSA_TRY(step.start_counting(sequence.lane, stream_));
  while (sequence.n_computed < end) {
    const int own = sequence.n_computed;
    const int n_left = end - own;
    int n = std::min({n_max, n_left, kBlockTokens - own % kBlockTokens});
    // The last token goes alone when it is to tell of itself.
    if (request.detail && n == n_left && n > 1) n -= 1;
    std::vector<int32_t> ids(sequence.tokens.begin() + own, sequence.tokens.begin() + own + n);
    NOSA_TRY(lanes_->set_n_tokens(sequence.lane, own + n, stream_));
    if (n == 1) {
      NOSA_TRY(step.begin({&sequence.lane, 1}, ids, {}, 1, stream_));
      NOSA_TRY(step.decode(stream_, request.detail && n_left == 1));
    } else {
      NOSA_TRY(step.feed(sequence.lane, ids, stream_));
    }
    NOSA_TRY(keep_choices(step, std::array{static_cast<const Sequence*>(&sequence)}, {&request.key, 1}, n));
    n_steps_ += 1;
    NOSA_TRY(stage_rows(sequence, n));
    const int from = std::max(first_hidden, own);
    if (from < own + n) {
      NOSA_TRY(stage_hidden(step.device_hidden() + size_t(from - own) * size_t(shape().n_embd), own + n - from, from - first_hidden));
    }
    if (n == 1 && n_left == 1) {
      NOSA_CUDA_TRY(cudaMemcpyAsync(logits_.host(), step.device_logits(), size_t(shape().n_vocab) * sizeof(float), cudaMemcpyDeviceToHost, stream_),
                    "Reading the scores of the next token");
      has_logits_ = true;
    }
    sequence.n_computed += n;
    if (sequence.n_computed % kBlockTokens == 0) {
      NOSA_TRY(start_writing_back(sequence, sequence.n_computed / kBlockTokens - 1));
    }
  }
  if (request.detail) NOSA_TRY(step.read_details(details_, stream_));
  return step.read_count(sequence.lane, n_fetched_[0], stream_);
}

// Rows of the `n` newest tokens, of one block, which the step just enqueued computes; of the sequence staged last.
Status Runner::stage_rows(const Sequence& sequence, int n) {
  const int own = sequence.n_computed;
  const size_t n_streams = size_t(shape().n_streams());
  const size_t at = n_staged_;
  const int block = own / kBlockTokens;
  ReadRowsParams params;
  lanes_->locate(sequence.lane, int(sequence.attended_pages.size()) + block, sequence.pages[size_t(block)], *pool_, params);
  params.first_row = own % kBlockTokens;
  params.n_rows = n;
  params.rows = rows_.device() + at * n_streams * 2 * size_t(shape().head_dim) * sizeof(uint16_t);
  params.scores = reinterpret_cast<float*>(scores_.device()) + at * n_streams;
  staged_.back().end += n;
  n_staged_ += size_t(n);
  return to_status(cuda::read_rows(params, stream_), "Reading new keys and values");
}

// Hidden rows on the device become row `first_row` and following of those that the host gets.
Status Runner::stage_hidden(const float* rows, int n_rows, int first_row) {
  const size_t n_embd = size_t(shape().n_embd);
  return to_status(cudaMemcpyAsync(hidden_.as<float>() + size_t(first_row) * n_embd, rows, size_t(n_rows) * n_embd * sizeof(float),
                                   cudaMemcpyDeviceToHost, stream_),
                   "Reading activations");
}

/// Where the side-car of one block lies in the staging memory.
struct SideCarStage {
  size_t n_streams;
  size_t head_dim;
  std::byte* base;

  static constexpr size_t n_windows = kBlockWindows;
  size_t bytes() const { return n_streams * (n_windows * head_dim * sizeof(uint16_t) + (kBlockTokens + n_windows) * sizeof(float)); }
  std::byte* at(size_t i) const { return base + i * bytes(); }
  uint16_t* compressed(size_t i) const { return reinterpret_cast<uint16_t*>(at(i)); }
  float* token_scores(size_t i) const { return reinterpret_cast<float*>(at(i) + n_streams * n_windows * head_dim * sizeof(uint16_t)); }
  float* window_scores(size_t i) const { return token_scores(i) + n_streams * kBlockTokens; }
};

// The side-cars of the blocks from that of token `first` on, and of the one before, whose last window ends among them.
Status Runner::stage_side_cars(const Sequence& sequence, int first) {
  SideCarStage stage{size_t(shape().n_streams()), size_t(shape().head_dim), nullptr};
  first_side_car_ = std::max(0, first / kBlockTokens - 1);
  const size_t n = size_t(blocks_for(sequence.n_computed) - first_side_car_);
  if (side_cars_.bytes() < n * stage.bytes()) NOSA_TRY(keep(PinnedBuffer::create(n * stage.bytes(), "side-cars of blocks"), side_cars_));
  stage.base = side_cars_.host();
  for (size_t i = 0; i < n; ++i) {
    NOSA_TRY(pool_->read_side_car(sequence.pages[size_t(first_side_car_) + i], stage.compressed(i), stage.token_scores(i),
                                  stage.window_scores(i), stream_));
  }
  return {};
}

Status Runner::read_rows(SequenceKey key, int block, int first_row, int n_rows, const RowsRead& to) {
  const Result<Sequence*> found = sequences_->get(key);
  if (!found.ok()) return found.status();
  const Sequence& sequence = **found;
  const size_t n_streams = size_t(shape().n_streams());
  const size_t row_bytes = size_t(shape().head_dim) * sizeof(uint16_t);
  const int first = block * kBlockTokens + first_row;
  CHECK(first_row >= 0 && n_rows >= 1 && first_row + n_rows <= kBlockTokens && first + n_rows <= sequence.n_computed);
  size_t n_rows_before = 0;
  auto staged = staged_.begin();
  for (; staged != staged_.end() && staged->key != key; ++staged) n_rows_before += size_t(staged->end - staged->first);
  CHECK(staged != staged_.end() && first >= staged->first);
  *to.has_windows = first >= staged->end;
  if (first + n_rows <= staged->end) {
    for (int t = 0; t < n_rows; ++t) {
      const size_t row = (n_rows_before + size_t(first - staged->first + t)) * n_streams;
      for (size_t s = 0; s < n_streams; ++s) {
        const std::byte* from = rows_.host() + (row + s) * 2 * row_bytes;
        std::memcpy(to.extents[s] + size_t(first_row + t) * row_bytes, from, row_bytes);
        std::memcpy(to.extents[s] + size_t(kBlockTokens + first_row + t) * row_bytes, from + row_bytes, row_bytes);
        to.scores[s * size_t(n_rows) + size_t(t)] = scores_.as<float>()[row + s];
      }
    }
    return {};
  }
  CHECK(sequence.lane == Sequence::no_lane);
  const int page = sequence.pages[size_t(block)];
  std::vector<std::byte> copy;
  if (pool_->resident()) NOSA_TRY(pool_->read(page, copy, stream_));
  const std::byte* from = pool_->resident() ? copy.data() : pool_->host(page);
  const SideCarStage stage{n_streams, size_t(shape().head_dim), side_cars_.host()};
  const float* scores = stage.token_scores(size_t(block - first_side_car_));
  for (size_t s = 0; s < n_streams; ++s) {
    const std::byte* extent = from + s * pool_->extent_bytes();
    for (const size_t row : {size_t(first_row), size_t(kBlockTokens + first_row)}) {
      std::memcpy(to.extents[s] + row * row_bytes, extent + row * row_bytes, size_t(n_rows) * row_bytes);
    }
    std::memcpy(to.scores + s * size_t(n_rows), scores + s * kBlockTokens + first_row, size_t(n_rows) * sizeof(float));
  }
  copy_windows(first, first + n_rows, to);
  return {};
}

// The windows that end with the own tokens [first_token, end_token).
void Runner::copy_windows(int first_token, int end_token, const RowsRead& to) const {
  const size_t n_streams = size_t(shape().n_streams());
  const size_t head_dim = size_t(shape().head_dim);
  const SideCarStage stage{n_streams, head_dim, side_cars_.host()};
  const int first = windows_in(first_token);
  const size_t n = size_t(windows_in(end_token) - first);
  for (size_t w = 0; w < n; ++w) {
    const size_t block = (size_t(first) + w) / kBlockWindows - size_t(first_side_car_);
    const size_t at = (size_t(first) + w) % kBlockWindows;
    for (size_t s = 0; s < n_streams; ++s) {
      const uint16_t* key = stage.compressed(block) + (s * kBlockWindows + at) * head_dim;
      std::memcpy(to.compressed + (s * n + w) * head_dim, key, head_dim * sizeof(uint16_t));
      to.window_scores[s * n + w] = stage.window_scores(block)[s * kBlockWindows + at];
    }
  }
}

Status Runner::head(const float* hidden, int n_rows, float* logits) {
  const size_t n_embd = size_t(shape().n_embd);
  const size_t n_vocab = size_t(shape().n_vocab);
  if (n_rows == 1 && has_logits_ && n_hidden_ >= n_embd &&
      std::memcmp(hidden, hidden_.as<float>() + n_hidden_ - n_embd, n_embd * sizeof(float)) == 0) {
    std::memcpy(logits, logits_.host(), n_vocab * sizeof(float));
    return {};
  }
  if (head_ == nullptr) NOSA_TRY(keep(Head::create(*model_), head_));
  for (int row = 0; row < n_rows; row += Head::rows_max) {
    const int n = std::min(Head::rows_max, n_rows - row);
    NOSA_TRY(head_->compute(hidden + size_t(row) * n_embd, n, logits + size_t(row) * n_vocab, stream_));
  }
  return {};
}

}  // namespace nosa::cuda
