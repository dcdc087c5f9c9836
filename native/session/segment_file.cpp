#include "session/segment_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "core/check.h"
#include "kv/xxh64.h"

namespace nosa {
namespace {

constexpr std::array<char, 8> file_magic = {'N', 'O', 'S', 'A', 'K', 'V', '\r', '\n'};
constexpr uint32_t file_version = 1;
constexpr uint32_t block_magic = 0x4B4C422Eu;  // ".BLK"
constexpr uint32_t end_magic = 0x444E452Eu;    // ".END"

// Each of these starts a page of its own; the rest of the page is zero.
struct FileHead {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t block_tokens;
  uint32_t n_layers;
  uint32_t n_kv_heads;
  uint32_t head_dim;
  uint32_t dtype;
  uint32_t base_position;
  uint32_t key_bytes;
  std::array<char, SegmentIdentity::key_bytes_max> key;
};
struct BlockHead {
  uint32_t magic;
  uint32_t index;
  uint32_t n_tokens;
  uint32_t zero;
  uint64_t extents_checksum;
  std::array<uint32_t, kBlockTokens> tokens;
};
struct FileEnd {
  uint32_t magic;
  uint32_t n_blocks;
  uint32_t n_tokens;
};

// A page ends with the checksum of what comes before.
struct Page {
  alignas(8) std::array<std::byte, KvShape::page_bytes> bytes = {};

  static constexpr size_t checked_bytes = KvShape::page_bytes - sizeof(uint64_t);

  template <typename T>
  void put(const T& content) {
    static_assert(sizeof(T) <= checked_bytes);
    std::memcpy(bytes.data(), &content, sizeof(T));
  }
  template <typename T>
  T get() const {
    T content;
    std::memcpy(&content, bytes.data(), sizeof(T));
    return content;
  }
  void seal() {
    const uint64_t sum = xxh64(std::span(bytes).first(checked_bytes));
    std::memcpy(bytes.data() + checked_bytes, &sum, sizeof sum);
  }
  bool intact() const {
    uint64_t sum;
    std::memcpy(&sum, bytes.data() + checked_bytes, sizeof sum);
    return sum == xxh64(std::span(bytes).first(checked_bytes));
  }
};

FileHead make_head(const SegmentIdentity& identity) {
  FileHead head = {};
  head.magic = file_magic;
  head.version = file_version;
  head.block_tokens = kBlockTokens;
  head.n_layers = identity.shape.n_layers;
  head.n_kv_heads = identity.shape.n_kv_heads;
  head.head_dim = identity.shape.head_dim;
  head.dtype = uint32_t(identity.shape.dtype);
  head.base_position = identity.base_position;
  head.key_bytes = uint32_t(identity.key.size());
  std::ranges::copy(identity.key, head.key.begin());
  return head;
}

// The extent with the rows of missing tokens, and the padding, set to zero.
void copy_valid_rows(const std::byte* extent, const KvShape& shape, size_t n_tokens,
                     std::span<std::byte> out) {
  const size_t row_bytes = shape.head_dim * shape.value_bytes();
  const size_t half_bytes = row_bytes * kBlockTokens;
  std::ranges::fill(out, std::byte(0));
  std::memcpy(out.data(), extent, n_tokens * row_bytes);
  std::memcpy(out.data() + half_bytes, extent + half_bytes, n_tokens * row_bytes);
}

}  // namespace

Result<SegmentWriter> SegmentWriter::create(const std::string& path,
                                            const SegmentIdentity& identity) {
  if (identity.key.size() > SegmentIdentity::key_bytes_max) {
    return Status::invalid_argument("The key of a saved sequence has more than " +
                                    std::to_string(SegmentIdentity::key_bytes_max) + " bytes.");
  }
  Result<NewFile> file = NewFile::create(path);
  if (!file.ok()) return file.status();
  Page page;
  page.put(make_head(identity));
  page.seal();
  if (Status status = file->append(page.bytes); !status.ok()) return status;
  return SegmentWriter(*std::move(file), identity.shape);
}

Status SegmentWriter::append(std::span<const uint32_t> tokens,
                             std::span<const std::byte* const> extents) {
  CHECK(!tokens.empty() && tokens.size() <= size_t(kBlockTokens));
  CHECK(extents.size() == size_t(shape_.extents_per_block()));
  CHECK(n_tokens_ == n_blocks_ * kBlockTokens);  // No block after a partial one.

  const size_t extent_bytes = shape_.extent_bytes();
  const size_t used_bytes = size_t(2) * kBlockTokens * shape_.head_dim * shape_.value_bytes();
  const bool as_it_is = tokens.size() == size_t(kBlockTokens) && used_bytes == extent_bytes;
  std::vector<std::byte> cleaned(as_it_is ? 0 : extent_bytes * extents.size());
  std::vector<std::span<const std::byte>> parts;
  parts.reserve(extents.size());
  for (size_t i = 0; i < extents.size(); ++i) {
    if (as_it_is) {
      parts.emplace_back(extents[i], extent_bytes);
      continue;
    }
    const std::span<std::byte> part(cleaned.data() + i * extent_bytes, extent_bytes);
    copy_valid_rows(extents[i], shape_, tokens.size(), part);
    parts.emplace_back(part);
  }

  BlockHead head = {};
  head.magic = block_magic;
  head.index = n_blocks_;
  head.n_tokens = uint32_t(tokens.size());
  for (const auto& part : parts) head.extents_checksum = xxh64(part, head.extents_checksum);
  std::ranges::copy(tokens, head.tokens.begin());
  Page page;
  page.put(head);
  page.seal();
  if (Status status = file_.append(page.bytes); !status.ok()) return status;
  for (const auto& part : parts) {
    if (Status status = file_.append(part); !status.ok()) return status;
  }
  ++n_blocks_;
  n_tokens_ += head.n_tokens;
  return {};
}

Result<int64_t> SegmentWriter::finish() {
  Page page;
  page.put(FileEnd{end_magic, n_blocks_, n_tokens_});
  page.seal();
  if (Status status = file_.append(page.bytes); !status.ok()) return status;
  if (Status status = file_.put_in_place(); !status.ok()) return status;
  return file_.size_bytes();
}

Result<SegmentReader> SegmentReader::open(const std::string& path,
                                          const SegmentIdentity& identity) {
  Result<ReadFile> file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  Page page;
  if (Status status = file->read(page.bytes); !status.ok()) return status;
  const FileHead head = page.get<FileHead>();
  if (head.magic != file_magic) return Status::corrupt(path + " is not a saved sequence.");
  if (head.version != file_version) {
    return Status::unsupported(path + " was saved by another version of Nosa.");
  }
  SegmentReader reader(*std::move(file), path, identity.shape);
  if (!page.intact()) return reader.damaged("its first page");

  const FileHead wanted = make_head(identity);
  const bool same_key = head.key_bytes == wanted.key_bytes && head.key == wanted.key;
  const bool same_shape = head.block_tokens == wanted.block_tokens &&
                          head.n_layers == wanted.n_layers &&
                          head.n_kv_heads == wanted.n_kv_heads &&
                          head.head_dim == wanted.head_dim && head.dtype == wanted.dtype;
  if (!same_key || !same_shape || head.base_position != wanted.base_position) {
    return Status::invalid_argument(
        path + " was saved for another " +
        (!same_key ? "key" : same_shape ? "position" : "model") + ".");
  }
  return reader;
}

Result<int> SegmentReader::next_block(std::span<uint32_t, kBlockTokens> tokens) {
  Page page;
  if (Status status = file_.read(page.bytes); !status.ok()) return status;
  if (!page.intact()) return damaged("the head of block " + std::to_string(n_blocks_));

  const FileEnd end = page.get<FileEnd>();
  if (end.magic == end_magic) {
    if (end.n_blocks != n_blocks_ || end.n_tokens != n_tokens_) return damaged("its end");
    return 0;
  }
  const BlockHead head = page.get<BlockHead>();
  const bool after_partial = n_tokens_ != n_blocks_ * kBlockTokens;
  if (head.magic != block_magic || head.index != n_blocks_ || head.n_tokens == 0 ||
      head.n_tokens > uint32_t(kBlockTokens) || after_partial) {
    return damaged("the order of its blocks");
  }
  std::ranges::copy(head.tokens, tokens.begin());
  extents_checksum_ = head.extents_checksum;
  ++n_blocks_;
  n_tokens_ += head.n_tokens;
  return int(head.n_tokens);
}

Status SegmentReader::read_extents(std::span<std::byte* const> extents) {
  CHECK(extents.size() == size_t(shape_.extents_per_block()));
  uint64_t sum = 0;
  for (std::byte* extent : extents) {
    const std::span<std::byte> bytes(extent, shape_.extent_bytes());
    if (Status status = file_.read(bytes); !status.ok()) return status;
    sum = xxh64(bytes, sum);
  }
  return sum == extents_checksum_ ? Status() : damaged("block " + std::to_string(n_blocks_ - 1));
}

Status SegmentReader::damaged(const std::string& what) const {
  return Status::corrupt(path_ + " is damaged (" + what + "); it has to be computed again.");
}

}  // namespace nosa
