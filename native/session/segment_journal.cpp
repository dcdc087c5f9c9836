#include "session/segment_journal.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "kv/xxh64.h"

namespace nosa {
namespace {

constexpr std::array<char, 8> magic = {'N', 'O', 'S', 'A', 'L', 'O', 'G', '\n'};
constexpr uint32_t version = 1;

struct Head {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t key_bytes;
};

struct EntryHead {
  uint64_t n_bytes;  // Of the payload.
  uint32_t from;
  uint32_t to;
};

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

uint64_t checksum_of(const EntryHead& head, std::span<const std::byte> payload, uint64_t chain) {
  return xxh64(payload, xxh64(bytes_of(head), chain));
}

void add(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  const size_t at = out.size();
  out.resize(at + bytes.size());
  if (!bytes.empty()) std::memcpy(out.data() + at, bytes.data(), bytes.size());
}

/// Takes plain values from the front of some bytes.
struct Cursor {
  std::span<const std::byte> rest;

  template <typename T>
  bool take(T& value) {
    if (rest.size() < sizeof(T)) return false;
    std::memcpy(&value, rest.data(), sizeof(T));
    rest = rest.subspan(sizeof(T));
    return true;
  }
};

std::vector<std::byte> make_head(const std::string& key) {
  std::vector<std::byte> bytes;
  add(bytes, bytes_of(Head{magic, version, uint32_t(key.size())}));
  add(bytes, std::as_bytes(std::span(key)));
  const uint64_t checksum = xxh64(bytes);
  add(bytes, bytes_of(checksum));
  return bytes;
}

Status check_head(const std::string& path, std::span<const std::byte> bytes, const std::string& key) {
  Head head;
  if (!Cursor{bytes}.take(head)) return Status::not_found(path + " holds nothing yet.");
  if (head.magic != magic) return Status::corrupt(path + " is not a journal of Nosa.");
  if (head.version != version) {
    return Status::unsupported(path + " was written by another version of Nosa.");
  }
  const size_t n_bytes = sizeof(Head) + size_t(head.key_bytes);
  if (bytes.size() < n_bytes + sizeof(uint64_t)) return Status::not_found(path + " holds nothing yet.");
  uint64_t checksum = 0;
  Cursor{bytes.subspan(n_bytes)}.take(checksum);
  if (checksum != xxh64(bytes.first(n_bytes))) {
    return Status::corrupt(path + " is damaged; what it belongs to has to be computed again.");
  }
  const auto stated = bytes.first(n_bytes).subspan(sizeof(Head));
  if (std::ranges::equal(stated, std::as_bytes(std::span(key)))) return {};
  return Status::invalid_argument(path + " was written for another key.");
}

Result<std::vector<std::byte>> read_all(const std::string& path) {
  Result<ReadFile> file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  const Result<int64_t> size = file->size_bytes();
  if (!size.ok()) return size.status();
  std::vector<std::byte> bytes(static_cast<size_t>(*size));
  if (Status status = file->read(0, bytes); !status.ok()) return status;
  return bytes;
}

/// Adds an entry's payload to the index; false when it does not fit what came before.
bool take_entry(const EntryHead& head, std::span<const std::byte> payload, const KvShape& shape,
                SegmentIndex& index) {
  if (head.from != index.tokens.size() || head.to <= head.from || head.to % kBlockTokens != 0 ||
      head.to > uint32_t(std::numeric_limits<int>::max() / 2)) {
    return false;
  }
  const size_t n_tokens = head.to - head.from;
  const size_t n_checksums = n_tokens / kBlockTokens * size_t(shape.extents_per_block());
  const size_t fixed = n_tokens * sizeof(uint32_t) + n_checksums * sizeof(uint64_t);
  if (payload.size() < fixed) return false;
  if (!index.side_car.read_range(payload.subspan(fixed), int(head.from), int(head.to))) return false;
  index.tokens.resize(head.to);
  std::memcpy(index.tokens.data() + head.from, payload.data(), n_tokens * sizeof(uint32_t));
  const size_t at = index.checksums.size();
  index.checksums.resize(at + n_checksums);
  std::memcpy(index.checksums.data() + at, payload.data() + n_tokens * sizeof(uint32_t),
              n_checksums * sizeof(uint64_t));
  return true;
}

}  // namespace

Result<SegmentJournal> SegmentJournal::create(const std::string& path, const std::string& key) {
  Result<NewFile> file = NewFile::create_kept(path, path);
  if (!file.ok()) return file.status();
  const std::vector<std::byte> head = make_head(key);
  if (Status status = file->append(head); !status.ok()) {
    file->remove();
    return status;
  }
  return SegmentJournal(*std::move(file), xxh64(head));
}

Result<SegmentJournal::Opened> SegmentJournal::open(const std::string& path,
                                                    const SegmentIdentity& identity,
                                                    int64_t file_bytes) {
  const Result<std::vector<std::byte>> bytes = read_all(path);
  if (!bytes.ok()) return bytes.status();
  if (Status status = check_head(path, *bytes, identity.key); !status.ok()) return status;

  const size_t head_bytes = make_head(identity.key).size();
  uint64_t chain = xxh64(std::span(*bytes).first(head_bytes));
  SegmentIndex index{{}, {}, SideCar(identity.shape)};
  Cursor cursor{std::span(*bytes).subspan(head_bytes)};
  size_t good_bytes = head_bytes;
  for (;;) {
    EntryHead head = {};
    uint64_t checksum = 0;
    if (!cursor.take(head) || !cursor.take(checksum) || head.n_bytes > cursor.rest.size()) break;
    const std::span<const std::byte> payload = cursor.rest.first(size_t(head.n_bytes));
    if (checksum_of(head, payload, chain) != checksum) break;
    const size_t n_extents = size_t(head.to / kBlockTokens) * size_t(identity.shape.extents_per_block());
    if (SegmentIndex::extent_offset(identity.shape, n_extents) > file_bytes) break;
    if (!take_entry(head, payload, identity.shape, index)) break;
    cursor.rest = cursor.rest.subspan(payload.size());
    good_bytes = bytes->size() - cursor.rest.size();
    chain = checksum;
  }
  if (index.tokens.empty()) return Status::not_found(path + " holds nothing yet.");

  Result<NewFile> file = NewFile::reopen_kept(path, path);
  if (!file.ok()) return file.status();
  if (Status status = file->truncate(int64_t(good_bytes)); !status.ok()) return status;
  return Opened{SegmentJournal(*std::move(file), chain), std::move(index)};
}

Status SegmentJournal::append(int from, std::span<const uint32_t> tokens,
                              std::span<const uint64_t> checksums, const SideCar& side_car) {
  const int to = from + int(tokens.size());
  std::vector<std::byte> payload;
  add(payload, std::as_bytes(tokens));
  add(payload, std::as_bytes(checksums));
  side_car.write_range(from, to, payload);
  const EntryHead head{payload.size(), uint32_t(from), uint32_t(to)};
  const uint64_t checksum = checksum_of(head, payload, chain_);
  std::vector<std::byte> entry;
  add(entry, bytes_of(head));
  add(entry, bytes_of(checksum));
  add(entry, payload);

  const int64_t size_before = file_.size_bytes();
  if (Status status = file_.append(entry); !status.ok()) {
    // What is left of a torn entry ends the journal for whoever reads it, cut off or not.
    (void)file_.truncate(size_before);
    return status;
  }
  chain_ = checksum;
  return {};
}

}  // namespace nosa
