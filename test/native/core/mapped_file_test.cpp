#include "core/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "support/bytes.h"
#include "support/random.h"
#include "support/temp_folder.h"

namespace nosa {
namespace {

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const test::TempFolder folder;
  test::Random random;
  for (const int64_t n_bytes : {int64_t{1}, int64_t{4096}, random.between(1, 1 << 20)}) {
    const test::Bytes written = random.bytes(n_bytes);
    auto file = MappedFile::open(folder.write("file", written));
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_TRUE(std::ranges::equal(file->bytes(), written));
  }
}

TEST(MappedFile, StaysMappedWhenTheFileIsRemovedAndWhenMoved) {
  const test::TempFolder folder;
  const std::string path = folder.write("file", "text");
  auto opened = MappedFile::open(path);
  ASSERT_TRUE(opened.ok());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  MappedFile first = *std::move(opened);
  auto other = MappedFile::open(folder.write("other", "other text"));
  ASSERT_TRUE(other.ok());
  MappedFile second = *std::move(other);
  second = std::move(first);
  EXPECT_EQ(test::text_of(second.bytes()), "text");
}

TEST(MappedFile, MapsAnEmptyFileToNothing) {
  const test::TempFolder folder;
  auto file = MappedFile::open(folder.write("empty", ""));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, NamesWhatIsMissing) {
  const test::TempFolder folder;
  const Status status = MappedFile::open(folder.path_of("none.gguf")).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("none.gguf does not exist"), std::string::npos);
  const std::string below_file = folder.write("file", "x") + "/deeper";
  EXPECT_EQ(MappedFile::open(below_file).status().code(), StatusCode::kNotFound);
}

TEST(MappedFile, RefusesAFolderAndAPipe) {
  const test::TempFolder folder;
  EXPECT_EQ(MappedFile::open(folder.path()).status().code(), StatusCode::kInvalidArgument);
  const std::string pipe = folder.path_of("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::open(pipe).status().code(), StatusCode::kInvalidArgument);
}

TEST(MappedFile, SaysWhenItMayNotRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const test::TempFolder folder;
  const std::string path = folder.write("secret", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  const Status status = MappedFile::open(path).status();
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_NE(status.message().find("may not be read"), std::string::npos);
}

}  // namespace
}  // namespace nosa
