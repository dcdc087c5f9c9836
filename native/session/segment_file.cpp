#include "session/segment_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "kv/xxh64.h"
#include "session/segment_journal.h"

namespace nosa {
namespace {

constexpr size_t page_bytes = KvShape::page_bytes;
constexpr std::array<char, 8> head_magic = {'N', 'O', 'S', 'A', 'K', 'V', '\r', '\n'};
constexpr std::array<char, 8> tail_magic = {'N', 'O', 'S', 'A', 'E', 'N', 'D', '\n'};
constexpr uint32_t file_version = 1;
constexpr size_t sections_max = 16;

struct FileHead {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t block_tokens;
  uint32_t n_layers;
  uint32_t n_kv_heads;
  uint32_t head_dim;
  uint32_t dtype;
  uint32_t base_position;
};
struct SectionEntry {
  std::array<char, 16> name;  // Ends with a zero.
  int64_t offset;
  int64_t n_bytes;
  uint64_t checksum;
};
struct FileTail {
  std::array<char, 8> magic;
  uint32_t n_blocks;
  uint32_t n_tokens;
  uint32_t n_sections;
  uint32_t zero;
  std::array<SectionEntry, sections_max> sections;
};

// Head and tail each fill a page that ends with the checksum of what comes before.
struct Page {
  alignas(8) std::array<std::byte, page_bytes> bytes = {};

  static constexpr size_t checked_bytes = page_bytes - sizeof(uint64_t);

  template <typename T>
  void put(const T& content) {
    static_assert(sizeof(T) <= checked_bytes);
    std::memcpy(bytes.data(), &content, sizeof(T));
    const uint64_t sum = xxh64(std::span(bytes).first(checked_bytes));
    std::memcpy(bytes.data() + checked_bytes, &sum, sizeof sum);
  }
  template <typename T>
  T get() const {
    T content;
    std::memcpy(&content, bytes.data(), sizeof(T));
    return content;
  }
  bool intact() const {
    uint64_t sum;
    std::memcpy(&sum, bytes.data() + checked_bytes, sizeof sum);
    return sum == xxh64(std::span(bytes).first(checked_bytes));
  }
};

FileHead make_head(const SegmentIdentity& identity) {
  FileHead head = {};
  head.magic = head_magic;
  head.version = file_version;
  head.block_tokens = kBlockTokens;
  head.n_layers = uint32_t(identity.shape.n_layers);
  head.n_kv_heads = uint32_t(identity.shape.n_kv_heads);
  head.head_dim = uint32_t(identity.shape.head_dim);
  head.dtype = uint32_t(identity.shape.dtype);
  head.base_position = uint32_t(identity.base_position);
  return head;
}

bool same_shape(const FileHead& a, const FileHead& b) {
  return a.block_tokens == b.block_tokens && a.n_layers == b.n_layers &&
         a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim && a.dtype == b.dtype;
}

int64_t whole_pages(int64_t n_bytes) {
  return (n_bytes + int64_t(page_bytes) - 1) / int64_t(page_bytes) * int64_t(page_bytes);
}

// The extent with the rows of missing tokens, and the padding, set to zero.
void copy_valid_rows(const std::byte* extent, const KvShape& shape, size_t n_tokens,
                     std::span<std::byte> out) {
  const size_t row_bytes = size_t(shape.head_dim) * shape.value_bytes();
  const size_t half_bytes = row_bytes * kBlockTokens;
  std::ranges::fill(out, std::byte(0));
  std::memcpy(out.data(), extent, n_tokens * row_bytes);
  std::memcpy(out.data() + half_bytes, extent + half_bytes, n_tokens * row_bytes);
}

std::string journal_path(const std::string& path) { return partial_path(path) + ".log"; }

/// The parts of a file's end while they are read.
class IndexReader {
 public:
  IndexReader(const std::string& path, const SegmentIdentity& identity, ReadFile& file)
      : path_(path), identity_(identity), file_(file) {}

  Status check_head();
  Status read_tail();
  Result<SegmentIndex> read_index();

 private:
  Result<std::vector<std::byte>> section(std::string_view name);
  Status damaged(const std::string& what) const {
    return Status::corrupt(path_ + " is damaged (" + what + "); it has to be computed again.");
  }

  const std::string& path_;
  const SegmentIdentity& identity_;
  ReadFile& file_;
  FileTail tail_ = {};
};

Status IndexReader::check_head() {
  Page page;
  if (Status status = file_.read(0, page.bytes); !status.ok()) return status;
  const FileHead head = page.get<FileHead>();
  if (head.magic != head_magic) return Status::corrupt(path_ + " is not a saved sequence.");
  if (head.version != file_version) {
    return Status::unsupported(path_ + " was saved by another version of Nosa.");
  }
  if (!page.intact()) return damaged("its first page");
  const FileHead wanted = make_head(identity_);
  if (!same_shape(head, wanted)) {
    return Status::invalid_argument(path_ + " was saved for another model.");
  }
  if (head.base_position != wanted.base_position) {
    return Status::invalid_argument(path_ + " was saved for another position.");
  }
  return {};
}

Status IndexReader::read_tail() {
  const Result<int64_t> n_bytes = file_.size_bytes();
  if (!n_bytes.ok()) return n_bytes.status();
  if (*n_bytes < int64_t(2 * page_bytes) || *n_bytes % int64_t(page_bytes) != 0) {
    return damaged("its length");
  }
  Page page;
  Status status = file_.read(*n_bytes - int64_t(page_bytes), page.bytes);
  if (!status.ok()) return status;
  tail_ = page.get<FileTail>();
  if (!page.intact() || tail_.magic != tail_magic) return damaged("its end");
  if (tail_.n_sections > tail_.sections.size() ||
      tail_.n_tokens > uint32_t(std::numeric_limits<int>::max() - kBlockTokens) ||
      tail_.n_blocks != uint32_t(blocks_for(int(tail_.n_tokens)))) {
    return damaged("its sizes");
  }
  // Everything lies one after the other, so any missing or surplus page shows.
  const size_t n_extents = size_t(tail_.n_blocks) * size_t(identity_.shape.extents_per_block());
  int64_t at = SegmentIndex::extent_offset(identity_.shape, n_extents);
  for (const SectionEntry& entry : std::span(tail_.sections).first(tail_.n_sections)) {
    if (entry.offset != at || entry.n_bytes < 0 || entry.n_bytes > *n_bytes) {
      return damaged("its sections");
    }
    at += whole_pages(entry.n_bytes);
  }
  return at + int64_t(page_bytes) == *n_bytes ? Status() : damaged("its length");
}

Result<SegmentIndex> IndexReader::read_index() {
  const Result<std::vector<std::byte>> key = section("key");
  if (!key.ok()) return key.status();
  if (!std::ranges::equal(*key, std::as_bytes(std::span(identity_.key)))) {
    return Status::invalid_argument(path_ + " was saved for another key.");
  }
  const Result<std::vector<std::byte>> tokens = section("tokens");
  if (!tokens.ok()) return tokens.status();
  const Result<std::vector<std::byte>> checksums = section("checksums");
  if (!checksums.ok()) return checksums.status();
  const Result<std::vector<std::byte>> side_car = section("side_car");
  if (!side_car.ok()) return side_car.status();

  const KvShape& shape = identity_.shape;
  SegmentIndex index{{}, {}, SideCar(shape)};
  index.tokens.resize(tail_.n_tokens);
  index.checksums.resize(size_t(tail_.n_blocks) * size_t(shape.extents_per_block()));
  if (tokens->size() != index.tokens.size() * sizeof(uint32_t) ||
      checksums->size() != index.checksums.size() * sizeof(uint64_t) ||
      !index.side_car.read(*side_car, int(tail_.n_tokens))) {
    return damaged("its index");
  }
  std::ranges::copy(*tokens, std::as_writable_bytes(std::span(index.tokens)).begin());
  std::ranges::copy(*checksums, std::as_writable_bytes(std::span(index.checksums)).begin());
  return index;
}

Result<std::vector<std::byte>> IndexReader::section(std::string_view name) {
  for (const SectionEntry& entry : std::span(tail_.sections).first(tail_.n_sections)) {
    if (std::string_view(entry.name.data(), std::ranges::find(entry.name, '\0')) != name) continue;
    std::vector<std::byte> pages(static_cast<size_t>(whole_pages(entry.n_bytes)));
    if (Status status = file_.read(entry.offset, pages); !status.ok()) return status;
    if (xxh64(pages) != entry.checksum) return damaged("its " + std::string(name));
    pages.resize(size_t(entry.n_bytes));
    return pages;
  }
  return damaged("its " + std::string(name));
}

}  // namespace

std::string partial_path(const std::string& path) { return path + ".part"; }

SegmentWriter::SegmentWriter(NewFile file, const SegmentIdentity& identity)
    : file_(std::move(file)), identity_(identity) {}
SegmentWriter::SegmentWriter(SegmentWriter&&) noexcept = default;
SegmentWriter::~SegmentWriter() = default;

Result<SegmentWriter> SegmentWriter::create(const std::string& path,
                                            const SegmentIdentity& identity) {
  Result<NewFile> file = NewFile::create(path);
  if (!file.ok()) return file.status();
  Page page;
  page.put(make_head(identity));
  if (Status status = file->append(page.bytes); !status.ok()) return status;
  return SegmentWriter(*std::move(file), identity);
}

Result<SegmentWriter> SegmentWriter::create_partial(const std::string& path,
                                                    const SegmentIdentity& identity) {
  // The journal comes last: where there is one, the file that it speaks of is there too.
  Result<NewFile> file = NewFile::create_kept(path, partial_path(path));
  if (!file.ok()) return file.status();
  remove_file(journal_path(path));
  Page page;
  page.put(make_head(identity));
  if (Status status = file->append(page.bytes); !status.ok()) {
    file->remove();
    return status;
  }
  Result<SegmentJournal> journal = SegmentJournal::create(journal_path(path), identity.key);
  if (!journal.ok()) {
    file->remove();
    return journal.status();
  }
  SegmentWriter writer(*std::move(file), identity);
  writer.journal_ = std::make_unique<SegmentJournal>(*std::move(journal));
  return writer;
}

Result<SegmentWriter::Resumed> SegmentWriter::resume(const std::string& path,
                                                     const SegmentIdentity& identity) {
  const std::string partial = partial_path(path);
  Result<NewFile> file = NewFile::reopen_kept(path, partial);
  if (!file.ok()) return file.status();
  // A process that died while it began the file; the journal may be of one before it.
  if (file->size_bytes() < int64_t(page_bytes)) return Status::not_found(partial + " holds nothing yet.");
  {
    Result<ReadFile> old = ReadFile::open(partial);
    if (!old.ok()) return old.status();
    if (Status status = IndexReader(partial, identity, *old).check_head(); !status.ok()) return status;
  }
  Result<SegmentJournal::Opened> opened =
      SegmentJournal::open(journal_path(path), identity, file->size_bytes());
  if (!opened.ok()) return opened.status();
  SegmentIndex& index = opened->index;
  Status status = file->truncate(SegmentIndex::extent_offset(identity.shape, index.checksums.size()));
  if (!status.ok()) return status;

  SegmentWriter writer(*std::move(file), identity);
  writer.journal_ = std::make_unique<SegmentJournal>(std::move(opened->journal));
  writer.tokens_ = index.tokens;
  writer.checksums_ = index.checksums;
  writer.n_noted_tokens_ = index.tokens.size();
  return Resumed{std::move(writer), std::move(index)};
}

Status SegmentWriter::append(std::span<const uint32_t> tokens,
                             std::span<const std::byte* const> extents) {
  CHECK(!tokens.empty() && tokens.size() <= size_t(kBlockTokens));
  CHECK(extents.size() == size_t(identity_.shape.extents_per_block()));
  CHECK(tokens_.size() % kBlockTokens == 0);  // No block after a partial one.
  const Status status = write_block(tokens, extents);
  if (!status.ok()) roll_back();
  return status;
}

Status SegmentWriter::write_block(std::span<const uint32_t> tokens,
                                  std::span<const std::byte* const> extents) {
  const KvShape& shape = identity_.shape;
  const size_t extent_bytes = shape.extent_bytes();
  const size_t used_bytes = size_t(2) * kBlockTokens * size_t(shape.head_dim) * shape.value_bytes();
  const bool as_it_is = tokens.size() == size_t(kBlockTokens) && used_bytes == extent_bytes;
  std::vector<std::byte> cleaned(as_it_is ? 0 : extent_bytes);
  for (const std::byte* extent : extents) {
    std::span<const std::byte> bytes(extent, extent_bytes);
    if (!as_it_is) {
      copy_valid_rows(extent, shape, tokens.size(), cleaned);
      bytes = cleaned;
    }
    checksums_.push_back(xxh64(bytes));
    if (Status status = file_.append(bytes); !status.ok()) return status;
  }
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return {};
}

Status SegmentWriter::checkpoint(const SideCar& side_car) {
  CHECK(journal_ != nullptr && tokens_.size() % kBlockTokens == 0);
  if (n_noted_tokens_ == tokens_.size()) return {};
  const size_t n_noted_checksums =
      n_noted_tokens_ / kBlockTokens * size_t(identity_.shape.extents_per_block());
  const Status status = journal_->append(int(n_noted_tokens_), std::span(tokens_).subspan(n_noted_tokens_),
                                         std::span(checksums_).subspan(n_noted_checksums), side_car);
  if (!status.ok()) {
    roll_back();
    return status;
  }
  n_noted_tokens_ = tokens_.size();
  return {};
}

// Back to the last checkpoint. A file that is not kept goes away whole with its writer.
void SegmentWriter::roll_back() {
  if (journal_ == nullptr) return;
  tokens_.resize(n_noted_tokens_);
  checksums_.resize(n_noted_tokens_ / kBlockTokens * size_t(identity_.shape.extents_per_block()));
  // Should it fail: resume() cuts off what no entry of the journal speaks of.
  (void)file_.truncate(SegmentIndex::extent_offset(identity_.shape, checksums_.size()));
}

void SegmentWriter::discard() {
  if (journal_ != nullptr) journal_->remove();
  file_.remove();
}

Result<int64_t> SegmentWriter::finish(const SideCar& side_car) {
  Status status = write_end(side_car);
  if (status.ok()) status = file_.put_in_place();
  if (!status.ok()) {
    roll_back();
    return status;
  }
  if (journal_ != nullptr) journal_->remove();
  return file_.size_bytes();
}

Status SegmentWriter::write_end(const SideCar& side_car) {
  std::vector<std::byte> side_car_bytes;
  side_car.write(side_car_bytes);
  const std::pair<std::string_view, std::span<const std::byte>> sections[] = {
      {"key", std::as_bytes(std::span(identity_.key))},
      {"tokens", std::as_bytes(std::span(tokens_))},
      {"checksums", std::as_bytes(std::span(checksums_))},
      {"side_car", side_car_bytes}};
  static_assert(std::size(sections) <= sections_max);

  FileTail tail = {};
  tail.magic = tail_magic;
  tail.n_blocks = uint32_t(blocks_for(int(tokens_.size())));
  tail.n_tokens = uint32_t(tokens_.size());
  for (const auto& [name, bytes] : sections) {
    std::vector<std::byte> pages(bytes.begin(), bytes.end());
    pages.resize(size_t(whole_pages(int64_t(bytes.size()))));
    SectionEntry& entry = tail.sections[tail.n_sections++];
    std::ranges::copy(name, entry.name.begin());
    entry.offset = file_.size_bytes();
    entry.n_bytes = int64_t(bytes.size());
    entry.checksum = xxh64(pages);
    if (Status status = file_.append(pages); !status.ok()) return status;
  }
  Page page;
  page.put(tail);
  return file_.append(page.bytes);
}

int64_t SegmentIndex::extent_offset(const KvShape& shape, size_t at) {
  return int64_t(page_bytes) + int64_t(at) * int64_t(shape.extent_bytes());
}

Result<SegmentIndex> read_segment_index(const std::string& path,
                                        const SegmentIdentity& identity) {
  Result<ReadFile> file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  IndexReader reader(path, identity, *file);
  if (Status status = reader.check_head(); !status.ok()) return status;
  if (Status status = reader.read_tail(); !status.ok()) return status;
  return reader.read_index();
}

}  // namespace nosa
