// Sequences and their files: what saves one, and what takes over a saved one.
#include "session/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kv/xxh64.h"
#include "session/segment_file.h"

namespace nosa {

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

}  // namespace nosa
