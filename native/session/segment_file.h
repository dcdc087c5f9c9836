#pragma once

#include <cstddef>
#include <cstdint>
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
// Blocks are appended when they are finished and never move, and any extent can be read and checked
// alone, past the page cache. Numbers are little-endian. Rows of a block past its tokens are zero,
// so that equal sequences make equal files and nothing of another block leaks.

/// What a file must agree on before its KV may be used.
struct SegmentIdentity {
  KvShape shape;
  int base_position = 0;
  std::string key;  ///< Whatever else the KV depends on.
};

class SegmentWriter {
 public:
  /// Fails as NewFile::create() does.
  static Result<SegmentWriter> create(const std::string& path, const SegmentIdentity& identity);

  /// Appends the next block. `tokens` are 1 .. kBlockTokens; `extents` are
  /// [n_layers, n_kv_heads] pointers to extent_bytes() bytes. Only the last block may be partial.
  Status append(std::span<const uint32_t> tokens, std::span<const std::byte* const> extents);

  /// Writes sections and tail, and puts the file in place; gives its size in bytes.
  /// REQUIRES: `side_car` holds the tokens that were appended.
  Result<int64_t> finish(const SideCar& side_car);

  /// Of the extents appended so far, [n_blocks, n_layers, n_kv_heads].
  const std::vector<uint64_t>& checksums() const { return checksums_; }

 private:
  SegmentWriter(NewFile file, const SegmentIdentity& identity)
      : file_(std::move(file)), identity_(identity) {}

  NewFile file_;
  SegmentIdentity identity_;
  std::vector<uint32_t> tokens_;
  std::vector<uint64_t> checksums_;
};

/// All that a file says besides its extents.
struct SegmentIndex {
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> checksums;  ///< xxh64 by extent, [n_blocks, n_layers, n_kv_heads]
  SideCar side_car;

  /// Where the extent lies whose checksum is at index `at`.
  static int64_t extent_offset(const KvShape& shape, size_t at);
};

/// Reads and checks everything but the extents. Fails with kNotFound, kIo, kCorrupt (not such a
/// file, damaged), kUnsupported (of another version) or kInvalidArgument (of another key, model or
/// position).
Result<SegmentIndex> read_segment_index(const std::string& path, const SegmentIdentity& identity);

}  // namespace nosa
