#include "session/session.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/check.h"

namespace nosa {

Result<std::unique_ptr<Session>> Session::open(const ModelOptions& options, const KvLimits& limits) {
  std::unique_ptr<Session> session(new Session(limits));
  Result<std::unique_ptr<Model>> model = Model::open(options);
  if (!model.ok()) return model.status();
  session->model_ = *std::move(model);
  const size_t extent_bytes = session->model_->kv_shape().extent_bytes();
  if (!limits.spill_folder.empty()) {
    session->disk_ = std::make_unique<DiskTier>(DiskTierOptions{
        .extent_bytes = extent_bytes,
        .spill_folder = limits.spill_folder,
        .spill_bytes_max = limits.spill_bytes_max,
    });
  }
  const BlockStoreOptions store_options{extent_bytes, limits.memory_bytes_max};
  session->store_ = std::make_unique<BlockStore>(store_options, session->disk_.get());
  session->shared_ = std::make_unique<SequenceShared>(*session->model_, *session->store_, session->disk_.get(), options.n_threads);
  return session;
}

Session::~Session() {
  std::vector<SequenceId> open;
  for (const auto& [id, entry] : entries_) {
    if (entry.open) open.push_back(id);
  }
  for (const SequenceId id : open) close_sequence(id);
  CHECK(entries_.empty());
}

Result<SequenceId> Session::create_sequence(int base_position,
                                            std::span<const SequenceId> attended) {
  if (base_position < 0 || base_position >= Sequence::position_end) {
    return Status::invalid_argument("A sequence cannot begin at position " +
                                    std::to_string(base_position) + ".");
  }
  std::vector<const Sequence*> sequences;
  sequences.reserve(attended.size());
  for (const SequenceId id : attended) {
    const Result<Sequence*> found = sequence(id);
    if (!found.ok()) return found.status();
    const int n_waiting = (*found)->n_tokens() - (*found)->n_computed();
    if (n_waiting > 0) {
      return Status::invalid_argument("A sequence to attend has " + std::to_string(n_waiting) +
                                      " tokens that are not computed; prefill it first.");
    }
    sequences.push_back(*found);
  }
  return add(std::make_unique<Sequence>(*shared_, base_position, std::move(sequences)),
             {attended.begin(), attended.end()});
}

Result<SequenceId> Session::fork_sequence(SequenceId id) {
  const Result<Sequence*> found = sequence(id);
  if (!found.ok()) return found.status();
  return add((*found)->fork(), entries_.at(id).attended);
}

Result<Sequence*> Session::sequence(SequenceId id) {
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || !entry->second.open) {
    return Status::disposed("The sequence was disposed.");
  }
  return entry->second.sequence.get();
}

std::vector<Result<DecodeOutcome>> Session::decode_together(std::span<const DecodeTask> tasks, const StopFlag& stop) {
  std::vector<Status> refused;
  std::vector<DecodePart> parts;
  for (const DecodeTask& task : tasks) {
    const Result<Sequence*> found = sequence(task.id);
    Status& status = refused.emplace_back(found.status());
    if (!status.ok()) continue;
    if (std::ranges::find(parts, *found, &DecodePart::sequence) != parts.end()) {
      status = Status::invalid_argument("A sequence can be decoded once in a command.");
      continue;
    }
    parts.push_back({*found, &task.request});
  }
  std::vector<Result<DecodeOutcome>> decoded = Sequence::decode_together(parts, stop);
  std::vector<Result<DecodeOutcome>> outcomes;
  auto next = decoded.begin();
  for (const Status& status : refused) {
    if (status.ok()) outcomes.push_back(std::move(*next++));
    else outcomes.emplace_back(status);
  }
  return outcomes;
}

void Session::close_sequence(SequenceId id) {
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || !entry->second.open) return;
  entry->second.open = false;
  release(id);
}

MemoryUse Session::memory() const {
  MemoryUse use;
  use.kv_bytes = store_->n_held() * store_->extent_bytes();
  use.kv_blocks = store_->n_held();
  use.sequences = entries_.size();
  use.resident_bytes = store_->mapped_bytes();
  for (const auto& [id, entry] : entries_) use.side_car_bytes += entry.sequence->side_car_bytes();
  if (limits_.memory_bytes_max != KvLimits().memory_bytes_max) use.memory_bytes_max = limits_.memory_bytes_max;
  if (disk_ != nullptr) {
    use.disk_bytes_read = disk_->bytes_read();
    use.disk_bytes_written = disk_->bytes_written();
  }
  use.blocks_read = store_->n_loaded();
  use.blocks_prefetched = store_->n_prefetched();
  use.prefetched_used = store_->n_prefetched_used();
  use.blocks_spilled = store_->n_put_out();
  use.blocks_written_behind = store_->n_written_behind();
  if (const DeviceNetwork* device = model_->gpu(); device != nullptr) use.device_bytes = device->device_bytes();
  use.step_sequences = step_sequences();
  use.device = model_->device();
  use.gpu_problem = model_->gpu_problem();
  return use;
}

Status Session::limit_memory(size_t bytes_max) {
  limits_.memory_bytes_max = bytes_max;
  return store_->limit(bytes_max);
}

void Session::check_integrity() const {
  store_->check_integrity();
  size_t n_upper = 0;
  for (const auto& [id, entry] : entries_) {
    CHECK(entry.n_holders > 0);
    CHECK(entry.sequence->n_computed() <= entry.sequence->n_tokens());
    const BlockTable& blocks = entry.sequence->blocks();
    CHECK(blocks.n_blocks() >= blocks_for(entry.sequence->n_computed()));
    n_upper += size_t(blocks.n_blocks()) * size_t(blocks.shape().extents_per_block());
  }
  CHECK(store_->n_held() <= n_upper);  // Less when forks share.
  CHECK((store_->n_held() == 0) == (n_upper == 0));
}

Result<SequenceId> Session::add(std::unique_ptr<Sequence> sequence,
                                std::vector<SequenceId> attended) {
  if (entries_.size() >= sequences_max) {
    return Status::out_of_memory("There are too many sequences; dispose some.");
  }
  for (const SequenceId id : attended) {
    Entry& entry = entries_.at(id);
    ++entry.n_holders;
    entry.sequence->seal();
  }
  const SequenceId id{++last_id_};
  entries_.emplace(id, Entry{std::move(sequence), std::move(attended), 1, true});
  return id;
}

// One holder less; the last one frees the sequence, and lets go of those it attends.
void Session::release(SequenceId id) {
  Entry& entry = entries_.at(id);
  if (--entry.n_holders > 0) return;
  const std::vector<SequenceId> attended = std::move(entry.attended);
  entries_.erase(id);
  for (const SequenceId other : attended) {
    entries_.at(other).sequence->unseal();
    release(other);
  }
}

}  // namespace nosa
