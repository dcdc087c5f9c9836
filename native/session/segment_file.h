#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "kv/block.h"
#include "kv/side_car.h"
#include "session/file.h"

namespace nosa {

// The file of one computed sequence: the KV of its blocks, then everything about them.
//
//   head      one page: magic, version, shape, base position
//   extents   [n_blocks, n_layers, n_kv_heads] of extent_bytes each, as they lie in memory
//   sections  each from a page on: "key", "tokens", "checksums" (xxh64 of every extent) and
//             "side_car"
//   tail      one page: number of blocks and tokens, and the table of sections
//
// While a sequence is still being computed its file is PATH.part, which has no sections and no tail
// yet, and beside it lies a journal, PATH.part.log (see segment_journal.h).
//
// Blocks are appended when they are finished and never move, and any extent can be read and checked
// alone, past the page cache. Numbers are little-endian. Rows of a block past its tokens are zero,
// so that equal sequences make equal files and nothing of another block leaks.

/// What a file must agree on before its KV may be used.
struct SegmentIdentity {
  KvShape shape;
  int base_position = 0;
  std::string key;  ///< Whatever else the KV depends on.
};

/// All that a file says besides its extents.
struct SegmentIndex {
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> checksums;  ///< xxh64 by extent, [n_blocks, n_layers, n_kv_heads]
  SideCar side_car;

  /// Where the extent lies whose checksum is at index `at`.
  static int64_t extent_offset(const KvShape& shape, size_t at);
};

class SegmentJournal;

class SegmentWriter {
 public:
  /// Fails as NewFile::create() does.
  static Result<SegmentWriter> create(const std::string& path, const SegmentIdentity& identity);

  /// Writes in such a way that resume() can go on from the last checkpoint() when the process dies.
  /// Replaces a partial file that is there. Fails as NewFile::create_kept() does.
  static Result<SegmentWriter> create_partial(const std::string& path,
                                              const SegmentIdentity& identity);

  struct Resumed;
  /// Goes on from what create_partial() left, and gives its whole blocks. What came after the last
  /// checkpoint is cut off. Fails as read_segment_index(), with kNotFound when there is no partial
  /// file or nothing in it yet, and as NewFile::reopen_kept().
  static Result<Resumed> resume(const std::string& path, const SegmentIdentity& identity);

  SegmentWriter(SegmentWriter&&) noexcept;
  SegmentWriter& operator=(SegmentWriter&&) = delete;
  ~SegmentWriter();

  /// Appends the next block. `tokens` are 1 .. kBlockTokens; `extents` are
  /// [n_layers, n_kv_heads] pointers to extent_bytes() bytes. Only the last block may be partial.
  /// When a partial file cannot be appended to, it is as it was at the last checkpoint.
  Status append(std::span<const uint32_t> tokens, std::span<const std::byte* const> extents);

  /// Notes in the journal what was appended since the last time; writes no more than that.
  /// Fails with kNoSpace or kIo, and then the files are as they were at the last checkpoint.
  /// REQUIRES: made by create_partial() or resume(); whole blocks; `side_car` holds their tokens.
  Status checkpoint(const SideCar& side_car);

  /// Writes sections and tail, and puts the file in place; gives its size in bytes. A partial file
  /// that this fails for is as it was at the last checkpoint.
  /// REQUIRES: `side_car` holds the tokens that were appended.
  Result<int64_t> finish(const SideCar& side_car);

  /// Removes what was written.
  void discard();

  const SegmentIdentity& identity() const { return identity_; }

  /// Appended so far.
  const std::vector<uint32_t>& tokens() const { return tokens_; }

  /// Of the extents appended so far, [n_blocks, n_layers, n_kv_heads].
  const std::vector<uint64_t>& checksums() const { return checksums_; }

 private:
  SegmentWriter(NewFile file, const SegmentIdentity& identity);

  Status write_block(std::span<const uint32_t> tokens, std::span<const std::byte* const> extents);
  Status write_end(const SideCar& side_car);
  void roll_back();

  NewFile file_;
  SegmentIdentity identity_;
  std::vector<uint32_t> tokens_;
  std::vector<uint64_t> checksums_;
  std::unique_ptr<SegmentJournal> journal_;  // Of a partial file.
  size_t n_noted_tokens_ = 0;                // In the journal.
};

/// Where the extents of a sequence that is still being written lie.
std::string partial_path(const std::string& path);

/// Reads and checks everything but the extents. Fails with kNotFound, kIo, kCorrupt (not such a
/// file, damaged), kUnsupported (of another version) or kInvalidArgument (of another key, model or
/// position).
Result<SegmentIndex> read_segment_index(const std::string& path, const SegmentIdentity& identity);

/// A writer that has read what it goes on from.
struct SegmentWriter::Resumed {
  SegmentWriter writer;
  SegmentIndex index;
};

}  // namespace nosa
