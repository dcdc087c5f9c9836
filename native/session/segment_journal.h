#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/status.h"
#include "kv/side_car.h"
#include "session/file.h"
#include "session/segment_file.h"

namespace nosa {

/// What a segment file that is still being written says of itself, beside it: one entry a checkpoint
/// with the tokens, checksums and side-car of the blocks that came since the one before.
///
///   head     magic, version, length of the key; the key; checksum
///   entries  lengths, tokens [from, to), checksum; payload
///
/// Entries are appended after the extents they speak of. An entry's checksum covers it and the
/// checksum of the entry before it, so that what was torn when a process died ends the journal.
class SegmentJournal {
 public:
  /// Fails as NewFile::create_kept() does.
  static Result<SegmentJournal> create(const std::string& path, const std::string& key);

  struct Opened;
  /// Reads the entries whose extents lie within `file_bytes` of the segment's file, and cuts the rest
  /// off. Fails with kNotFound (none, or it holds no entry), kCorrupt (not a journal), kUnsupported
  /// (of another version), kInvalidArgument (another key) or kIo.
  static Result<Opened> open(const std::string& path, const SegmentIdentity& identity,
                             int64_t file_bytes);

  /// Appends an entry for the tokens [from, from + tokens.size()). Fails with kNoSpace or kIo, and
  /// then the journal is as it was.
  Status append(int from, std::span<const uint32_t> tokens, std::span<const uint64_t> checksums,
                const SideCar& side_car);

  void remove() { file_.remove(); }

 private:
  SegmentJournal(NewFile file, uint64_t chain) : file_(std::move(file)), chain_(chain) {}

  NewFile file_;
  uint64_t chain_;  // Checksum of the last entry.
};

struct SegmentJournal::Opened {
  SegmentJournal journal;
  SegmentIndex index;
};

}  // namespace nosa
