#include "kv/residency.h"

#include "core/check.h"

namespace nosa {

void Residency::add(BlockId block, bool may_go) {
  const size_t index = size_t(block);
  if (index >= entries_.size()) entries_.resize(index + 1);
  Entry& added = entries_[index];
  CHECK(!added.present);
  added = {.present = true, .may_go = may_go, .step = step_};
  if (may_go) link_newest(int32_t(index));
  n_blocks_ += 1;
}

void Residency::remove(BlockId block) {
  if (!contains(block)) return;
  Entry& removed = entry(block);
  if (removed.may_go) unlink(int32_t(block));
  removed = {};
  n_blocks_ -= 1;
}

void Residency::use(BlockId block) {
  Entry& used = entry(block);
  used.step = step_;
  if (!used.may_go || newest_ == int32_t(block)) return;
  unlink(int32_t(block));
  link_newest(int32_t(block));
}

bool Residency::contains(BlockId block) const {
  return size_t(block) < entries_.size() && entries_[size_t(block)].present;
}

std::optional<BlockId> Residency::victim() const {
  // Uses move a block to the new end, so if the oldest was used in this step, all were.
  if (oldest_ == kNone || entries_[oldest_].step == step_) return std::nullopt;
  return BlockId(oldest_);
}

void Residency::next_victims(size_t n, std::vector<BlockId>& out) const {
  out.clear();
  for (int32_t at = oldest_; at != kNone && entries_[at].step != step_ && out.size() < n; at = entries_[at].newer) {
    out.push_back(BlockId(at));
  }
}

void Residency::check_integrity() const {
  size_t n_present = 0;
  size_t n_going = 0;
  for (const Entry& each : entries_) {
    n_present += each.present ? 1 : 0;
    n_going += each.may_go ? 1 : 0;
  }
  CHECK(n_present == n_blocks_);
  int32_t before = kNone;
  uint64_t step = 0;
  size_t n_linked = 0;
  for (int32_t at = oldest_; at != kNone; at = entries_[at].newer) {
    CHECK(entries_[at].present && entries_[at].may_go);
    CHECK(entries_[at].older == before && entries_[at].step >= step);
    step = entries_[at].step;
    before = at;
    n_linked += 1;
  }
  CHECK(before == newest_ && n_linked == n_going);
}

Residency::Entry& Residency::entry(BlockId block) {
  CHECK(contains(block));
  return entries_[size_t(block)];
}

void Residency::unlink(int32_t index) {
  Entry& gone = entries_[index];
  (gone.older == kNone ? oldest_ : entries_[gone.older].newer) = gone.newer;
  (gone.newer == kNone ? newest_ : entries_[gone.newer].older) = gone.older;
  gone.older = gone.newer = kNone;
}

void Residency::link_newest(int32_t index) {
  entries_[index].older = newest_;
  entries_[index].newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = index;
  newest_ = index;
}

}  // namespace nosa
