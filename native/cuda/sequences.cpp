#include "cuda/sequences.h"

#include <algorithm>

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "kv/selection.h"

namespace nosa::cuda {
namespace {

BlockInfo info_of(int n_tokens, int block) {
  BlockInfo info = {};
  info.n_tokens = uint8_t(std::min(kBlockTokens, n_tokens - block * kBlockTokens));
  info.n_windows = uint8_t(std::clamp(windows_in(n_tokens) - block * kBlockWindows, 0, kBlockWindows));
  return info;
}

}  // namespace

Sequences::~Sequences() {
  for (auto& [key, sequence] : entries_) {
    for (const int32_t page : sequence.pages) pool_.release(page);
  }
}

Result<SequenceKey> Sequences::create(int base_position, std::span<const SequenceKey> attended) {
  Sequence sequence;
  sequence.base_position = base_position;
  const SequenceKey key{++last_key_};
  entries_.emplace(key, std::move(sequence));
  if (Status status = attend(key, attended); !status.ok()) {
    entries_.erase(key);
    return status;
  }
  return key;
}

Status Sequences::attend(SequenceKey key, std::span<const SequenceKey> attended) {
  const Result<Sequence*> found = get(key);
  if (!found.ok()) return found.status();
  CHECK((*found)->attended.empty() && (*found)->lane == Sequence::no_lane);
  if (Status status = check_attendable(attended); !status.ok()) return status;
  (*found)->attended.assign(attended.begin(), attended.end());
  for (const SequenceKey other : attended) ++entries_.at(other).n_attending;
  list_attended(**found);
  return {};
}

Status Sequences::check_attendable(std::span<const SequenceKey> attended) {
  for (const SequenceKey key : attended) {
    const Result<Sequence*> found = get(key);
    if (!found.ok()) return found.status();
    if ((*found)->n_computed < int((*found)->tokens.size())) {
      return Status::invalid_argument("A sequence to attend has tokens that are not computed; prefill it first.");
    }
  }
  return {};
}

void Sequences::list_attended(Sequence& sequence) {
  sequence.attended_pages.clear();
  sequence.attended_info.clear();
  sequence.n_masked = 0;
  for (const SequenceKey key : sequence.attended) {
    const Sequence& other = entries_.at(key);
    for (int block = 0; block < blocks_for(other.n_computed); ++block) {
      sequence.attended_pages.push_back(other.pages[size_t(block)]);
      sequence.attended_info.push_back(info_of(other.n_computed, block));
    }
  }
}

void Sequences::mark(Sequence& sequence, std::span<const uint8_t> flags) {
  CHECK(sequence.lane == Sequence::no_lane);
  CHECK(flags.empty() || flags.size() == sequence.attended_info.size());
  list_attended(sequence);
  for (size_t i = 0; i < flags.size(); ++i) {
    BlockInfo& info = sequence.attended_info[i];
    info.pinned = (flags[i] & pinned_flag) != 0 ? 1 : 0;
    if ((flags[i] & masked_flag) == 0) continue;
    info.masked = 1;
    info.n_windows = 0;
    sequence.n_masked += 1;
    // The last window of the block before reaches into this one, if it is of the same sequence; of another one it has none.
    if (i > 0) sequence.attended_info[i - 1].n_windows = std::min<uint8_t>(sequence.attended_info[i - 1].n_windows, kBlockWindows - 1);
  }
}

Result<SequenceKey> Sequences::fork(SequenceKey key) {
  const Result<Sequence*> found = get(key);
  if (!found.ok()) return found.status();
  CHECK((*found)->lane == Sequence::no_lane);
  Sequence copy = **found;
  copy.n_attending = 0;
  copy.pages.resize(size_t(blocks_for(copy.n_computed)));
  for (const int32_t page : copy.pages) pool_.retain(page);
  for (const SequenceKey other : copy.attended) ++entries_.at(other).n_attending;
  const SequenceKey fork{++last_key_};
  entries_.emplace(fork, std::move(copy));
  return fork;
}

void Sequences::close(SequenceKey key) {
  const auto entry = entries_.find(key);
  if (entry == entries_.end() || !entry->second.open) return;
  CHECK(entry->second.lane == Sequence::no_lane);
  entry->second.open = false;
  release(key);
}

// Erases a closed sequence that nobody attends, and lets go of those it attends.
void Sequences::release(SequenceKey key) {
  Sequence& sequence = entries_.at(key);
  if (sequence.open || sequence.n_attending > 0) return;
  for (const int32_t page : sequence.pages) pool_.release(page);
  const std::vector<SequenceKey> attended = std::move(sequence.attended);
  entries_.erase(key);
  for (const SequenceKey other : attended) {
    --entries_.at(other).n_attending;
    release(other);
  }
}

Result<Sequence*> Sequences::get(SequenceKey key) {
  const auto entry = entries_.find(key);
  if (entry == entries_.end() || !entry->second.open) return Status::disposed("The sequence was disposed.");
  return &entry->second;
}

void Sequences::cut(Sequence& sequence, int n_tokens) {
  CHECK(sequence.lane == Sequence::no_lane && sequence.n_attending == 0);
  sequence.n_computed = std::min(sequence.n_computed, n_tokens);
  while (int(sequence.pages.size()) > blocks_for(sequence.n_computed)) {
    pool_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

bool Sequences::use_step(int step) const {
  return std::ranges::any_of(entries_, [&](const auto& entry) { return entry.second.step == step; });
}

void Sequences::step_removed(int step) {
  for (auto& [key, sequence] : entries_) {
    if (sequence.step > step) sequence.step -= 1;
  }
}

Status Sequences::grow(Sequence& sequence, int n_tokens) {
  while (int(sequence.pages.size()) < blocks_for(n_tokens)) {
    const Result<int> page = pool_.take();
    if (!page.ok()) return page.status();
    sequence.pages.push_back(*page);
  }
  return {};
}

Result<std::vector<int32_t>> Sequences::own_tail(Sequence& sequence, cudaStream_t stream) {
  CHECK(sequence.lane == Sequence::no_lane);
  const int tail = sequence.n_computed / kBlockTokens;
  const bool window_open = tail > 0 && windows_in(sequence.n_computed) < tail * kBlockWindows;
  std::vector<int32_t> fresh;
  for (int block = window_open ? tail - 1 : tail; block <= tail && block < int(sequence.pages.size()); ++block) {
    int32_t& mine = sequence.pages[size_t(block)];
    if (!pool_.shared(mine)) continue;
    const Result<int> page = pool_.take();
    if (!page.ok()) return page.status();
    NOSA_TRY(pool_.copy(mine, *page, stream));
    pool_.release(mine);
    mine = *page;
    fresh.push_back(*page);
  }
  return fresh;
}

}  // namespace nosa::cuda
