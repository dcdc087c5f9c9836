#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/status.h"
#include "kv/block.h"
#include "session/file.h"

namespace nosa {

// The file of one computed sequence: its tokens and the KV of its blocks.
//
//   page         what                                             bytes
//   0            magic, version, shape, base position, key        4096
//   then for     index, number of tokens, tokens, checksums       4096
//   each block   n_layers x n_kv_heads extents, layer by layer    extents_per_block x extent_bytes
//   last         number of blocks and tokens                      4096
//
// Blocks are appended when they are finished, and each carries its own checksum, so that whoever
// writes while computing loses at most the block it was in. Everything starts on a page, as direct
// reads need. Numbers are little-endian. Rows of a block past its tokens are zero in the file, so
// that equal sequences make equal files and nothing of another block leaks.

/// What a file must agree on before its KV may be used.
struct SegmentIdentity {
  KvShape shape;
  int base_position = 0;
  std::string key;  ///< At most key_bytes_max; whatever else the KV depends on.

  static constexpr size_t key_bytes_max = 2048;
};

class SegmentWriter {
 public:
  /// Fails with kInvalidArgument for a key that is too long, else as NewFile::create().
  static Result<SegmentWriter> create(const std::string& path, const SegmentIdentity& identity);

  /// Appends the next block. `tokens` are 1 .. kBlockTokens; `extents` are
  /// [n_layers, n_kv_heads] pointers to extent_bytes() bytes. Only the last block may be partial.
  Status append(std::span<const uint32_t> tokens, std::span<const std::byte* const> extents);

  /// Writes the end and puts the file in place; gives its size in bytes.
  Result<int64_t> finish();

 private:
  SegmentWriter(NewFile file, const KvShape& shape) : file_(std::move(file)), shape_(shape) {}

  NewFile file_;
  KvShape shape_;
  uint32_t n_blocks_ = 0;
  uint32_t n_tokens_ = 0;
};

class SegmentReader {
 public:
  /// Checks the head of the file. Fails with kNotFound, kIo, kCorrupt (not such a file, damaged),
  /// kUnsupported (of another version) or kInvalidArgument (of another key, model or position).
  static Result<SegmentReader> open(const std::string& path, const SegmentIdentity& identity);

  /// Reads the head of the next block: its tokens into `tokens`, and how many they are; 0 at the
  /// end of the file. Fails with kCorrupt or kIo.
  Result<int> next_block(std::span<uint32_t, kBlockTokens> tokens);

  /// Reads the extents of that block, as in SegmentWriter::append().
  /// Fails with kCorrupt when their checksum is wrong.
  Status read_extents(std::span<std::byte* const> extents);

 private:
  SegmentReader(ReadFile file, std::string path, const KvShape& shape)
      : file_(std::move(file)), path_(std::move(path)), shape_(shape) {}

  Status damaged(const std::string& what) const;

  ReadFile file_;
  std::string path_;
  KvShape shape_;
  uint32_t n_blocks_ = 0;
  uint32_t n_tokens_ = 0;
  uint64_t extents_checksum_ = 0;  // Of the block whose head was read last.
};

}  // namespace nosa
