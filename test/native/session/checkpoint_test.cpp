// Sequences that are saved while they are computed: what is there after any end of the process.
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "session_fixture.h"

namespace nosa::test {
namespace {

namespace fs = std::filesystem;

Bytes read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return bytes_of(text);
}

void write(const std::string& path, const Bytes& bytes, size_t n) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(std::min(n, bytes.size())));
}

class CheckpointTest : public TinySession {
 protected:
  CheckpointTest() : tokens(tiny.random_tokens(500, random)), file(folder.path_of("segment")) {
    const auto session = open();
    Sequence& sequence = create(*session, base_position);
    EXPECT_TRUE(sequence.set_tokens(tokens).ok());
    EXPECT_TRUE(sequence.prefill(1000, {}).value().done);
    EXPECT_TRUE(sequence.save(folder.path_of("whole"), key).ok());
    whole = read(folder.path_of("whole"));
    answers = forced_steps(sequence, {1, 2});
  }

  /// Computes the first `n_tokens`, with a checkpoint every chunk.
  void begin(Session& session, int n_tokens) {
    Sequence& sequence = create(session, base_position);
    ASSERT_TRUE(sequence.set_tokens(tokens).ok());
    while (sequence.n_computed() < n_tokens) {
      ASSERT_TRUE(sequence.prefill(128, {}).ok());
      ASSERT_EQ(sequence.checkpoint(file, key).value(), sequence.n_computed() / 64 * 64);
    }
  }

  /// Resumes what is there, if anything, and goes on to the end: the file and the answers must be
  /// those of a sequence that nothing has interrupted. Gives the tokens resumed.
  int resume_and_finish(Session& session) {
    Sequence& sequence = create(session, base_position);
    const Result<int> resumed = sequence.resume(file, key);
    EXPECT_TRUE(resumed.ok() || resumed.status().code() == StatusCode::kNotFound)
        << resumed.status().message();
    EXPECT_EQ(sequence.set_tokens(tokens).value(), resumed.ok() ? *resumed : 0);
    while (sequence.n_computed() < int(tokens.size())) {
      EXPECT_TRUE(sequence.prefill(128, {}).ok());
      EXPECT_TRUE(sequence.checkpoint(file, key).ok());
    }
    EXPECT_TRUE(sequence.save(file, key).ok());
    EXPECT_TRUE(read(file) == whole);
    EXPECT_FALSE(fs::exists(partial));
    EXPECT_FALSE(fs::exists(journal));
    const auto got = forced_steps(sequence, {1, 2});
    EXPECT_TRUE(same_bits(got[0], answers[0]) && same_bits(got[1], answers[1]));
    fs::remove(file);
    return resumed.ok() ? *resumed : 0;
  }

  static constexpr int base_position = 9;
  const std::string key = "the key";
  std::vector<uint32_t> tokens;
  std::string file;
  std::string partial = file + ".part";
  std::string journal = partial + ".log";
  Bytes whole;
  std::vector<std::vector<ScoredToken>> answers;
};

TEST_F(CheckpointTest, GoesOnFromTheLastChunkAndEndsInTheSameFile) {
  const auto session = open();
  EXPECT_EQ(create(*session, base_position).resume(file, key).status().code(), StatusCode::kNotFound);
  begin(*session, 1);
  const auto other = open(1);
  // Somebody else is writing it.
  EXPECT_EQ(create(*other, base_position).resume(file, key).status().code(), StatusCode::kIo);
  fs::copy(partial, folder.path_of("p"));
  fs::copy(journal, folder.path_of("l"));
  for (const int n_tokens : {128, 256, 384}) {
    const auto first = open();
    fs::remove(partial);
    fs::remove(journal);
    begin(*first, n_tokens);
    first->close_sequence(SequenceId{1});
    EXPECT_EQ(resume_and_finish(*other), n_tokens);
  }
}

TEST_F(CheckpointTest, ACheckpointWritesOnlyWhatIsNew) {
  const auto session = open();
  Sequence& sequence = create(*session, base_position);
  ASSERT_TRUE(sequence.set_tokens(tokens).ok());
  std::vector<uintmax_t> sizes;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(sequence.prefill(128, {}).ok());
    ASSERT_TRUE(sequence.checkpoint(file, key).ok());
    sizes.push_back(fs::file_size(partial) + fs::file_size(journal));
    ASSERT_TRUE(sequence.checkpoint(file, key).ok());
    EXPECT_EQ(fs::file_size(partial) + fs::file_size(journal), sizes.back());
  }
  EXPECT_EQ(sizes[2] - sizes[1], sizes[1] - sizes[0]);
}

TEST_F(CheckpointTest, FilesTornAnywhereAreBelievedUpToTheLastWholeEntry) {
  {
    const auto session = open();
    begin(*session, 384);
  }
  const Bytes extents = read(partial);
  const Bytes entries = read(journal);
  const auto session = open(1);
  for (int round = 0; round < 60; ++round) {
    const bool cut_extents = round % 3 != 0;
    const bool cut_entries = round % 3 != 1;
    write(partial, extents, size_t(random.between(0, cut_extents ? int64_t(extents.size()) : 0)) +
                                (cut_extents ? 0 : extents.size()));
    write(journal, entries, size_t(random.between(0, cut_entries ? int64_t(entries.size()) : 0)) +
                                (cut_entries ? 0 : entries.size()));
    // Nor a first page: a process died when it began the file anew, and the journal is that of the old one.
    if (round % 20 == 0) write(partial, extents, 0);
    if (round % 20 == 1) write(partial, extents, size_t(random.between(0, 4095)));
    EXPECT_EQ(resume_and_finish(*session) % 128, 0);
  }
}

TEST_F(CheckpointTest, WhatIsDamagedOrOfAnotherKeyIsNeverTakenOver) {
  {
    const auto session = open();
    begin(*session, 384);
  }
  const Bytes extents = read(partial);
  const Bytes entries = read(journal);
  const auto session = open(1);
  const auto resume = [&](const std::string& other_key, int position) {
    return create(*session, position).resume(file, other_key).status().code();
  };
  EXPECT_EQ(resume("another", base_position), StatusCode::kInvalidArgument);
  EXPECT_EQ(resume(key, base_position + 1), StatusCode::kInvalidArgument);
  const auto exact = open(1, Precision::kF32);
  EXPECT_EQ(create(*exact, base_position).resume(file, key).status().code(), StatusCode::kInvalidArgument);

  for (int round = 0; round < 100; ++round) {
    Bytes changed = round % 2 == 0 ? extents : entries;
    const size_t at = size_t(random.between(0, int64_t(changed.size()) - 1));
    changed[at] ^= std::byte(1 << random.between(0, 7));
    write(partial, round % 2 == 0 ? changed : extents, changed.size() + extents.size());
    write(journal, round % 2 == 0 ? entries : changed, changed.size() + entries.size());
    const auto session = open(1);
    Sequence& sequence = create(*session, base_position);
    const Result<int> resumed = sequence.resume(file, key);
    if (!resumed.ok()) {
      EXPECT_NE(resumed.status().code(), StatusCode::kIo) << resumed.status().message();
      continue;
    }
    // A flipped bit of an entry ends the journal there; blocks that are taken over are whole.
    EXPECT_LT(*resumed, 384);
    EXPECT_EQ(sequence.set_tokens(tokens).value(), *resumed);
    ASSERT_TRUE(sequence.prefill(1000, {}).ok());
    EXPECT_TRUE(same_bits(forced_steps(sequence, {1, 2})[1], answers[1]));
  }
}

TEST_F(CheckpointTest, OtherTokensBeginTheFileAnew) {
  const auto session = open();
  Sequence& sequence = create(*session, base_position);
  std::vector<uint32_t> old = tokens;
  old[100] = (old[100] + 1) % 100;
  ASSERT_TRUE(sequence.set_tokens(old).ok());
  ASSERT_TRUE(sequence.prefill(256, {}).ok());
  EXPECT_EQ(sequence.checkpoint(file, key).value(), 256);
  ASSERT_TRUE(sequence.set_tokens(tokens).ok());
  ASSERT_TRUE(sequence.prefill(128, {}).ok());
  EXPECT_EQ(sequence.checkpoint(file, key).value(), sequence.n_computed() / 64 * 64);
  session->close_sequence(SequenceId{1});
  EXPECT_GT(resume_and_finish(*session), 0);
}

TEST_F(CheckpointTest, ADiskThatIsFullLeavesTheLastCheckpoint) {
  const auto session = open();
  begin(*session, 128);
  session->close_sequence(SequenceId{1});
  Sequence& sequence = create(*session, base_position);
  ASSERT_EQ(sequence.resume(file, key).value(), 128);
  ASSERT_TRUE(sequence.set_tokens(tokens).ok());
  ASSERT_TRUE(sequence.prefill(1000, {}).value().done);
  const uintmax_t good = fs::file_size(partial);

  // The next file that grows beyond this fails in the middle of a block.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limited = before;
  limited.rlim_cur = rlim_t(good + 5000);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  const Result<int> failed = sequence.checkpoint(file, key);
  const Result<int64_t> unsaved = sequence.save(folder.path_of("elsewhere"), key);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);

  EXPECT_FALSE(failed.ok());
  EXPECT_FALSE(unsaved.ok());
  EXPECT_EQ(fs::file_size(partial), good);
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().filename().string().find("elsewhere"), std::string::npos) << entry.path();
  }
  EXPECT_EQ(sequence.checkpoint(file, key).value(), 448);
  session->close_sequence(SequenceId{2});
  EXPECT_EQ(resume_and_finish(*session), 448);
}

TEST_F(CheckpointTest, FiftyProcessesKilledAtAnyMomentComeToTheSameEnd) {
  int n_resumed = 0;
  for (int round = 0; round < 50; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const auto session = open(2);
      Sequence& sequence = create(*session, base_position);
      (void)sequence.resume(file, key);
      if (!sequence.set_tokens(tokens).ok()) _exit(1);
      while (sequence.prefill(128, {}).ok() && sequence.checkpoint(file, key).ok() &&
             sequence.n_computed() < int(tokens.size())) {
      }
      // Again and again, so that there is always something to kill.
      for (;;) {
        if (!sequence.save(file, key).ok()) _exit(2);
        if (!sequence.set_tokens({}).ok() || !sequence.set_tokens(tokens).ok()) _exit(3);
        while (sequence.n_computed() < int(tokens.size())) {
          if (!sequence.prefill(128, {}).ok() || !sequence.checkpoint(file, key).ok()) _exit(4);
        }
      }
    }
    usleep(useconds_t(random.between(2'000, 60'000)));
    kill(child, SIGKILL);
    int state = 0;
    waitpid(child, &state, 0);
    EXPECT_TRUE(WIFSIGNALED(state)) << "exited with " << WEXITSTATUS(state);
    // Whole, or not there: never half.
    EXPECT_TRUE(!fs::exists(file) || read(file) == whole);
    if (round % 2 == 1) {
      const auto session = open(1);
      fs::remove(file);
      n_resumed += resume_and_finish(*session) > 0;
    }
  }
  EXPECT_GT(n_resumed, 0);
}

}  // namespace
}  // namespace nosa::test
