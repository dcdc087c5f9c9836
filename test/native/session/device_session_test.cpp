// Sessions whose network is on a GPU, as far as this can be told without one: the GPU is a stand-in that computes on the
// cores, so whatever is asked of it and copied to and fro must give the same bits as a session without it.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>

#include "fake_gpu.h"
#include "session_fixture.h"

namespace nosa::test {
namespace {

class FakeGpu {
 public:
  FakeGpu() : handle_(dlopen(NOSA_FAKE_GPU, RTLD_NOW | RTLD_LOCAL)) { EXPECT_NE(handle_, nullptr) << dlerror(); }
  ~FakeGpu() { dlclose(handle_); }

  void configure(const FakeGpuOptions& options) { reinterpret_cast<FakeGpuConfigure>(dlsym(handle_, "fake_gpu_configure"))(&options); }
  FakeGpuCounts counts() { return reinterpret_cast<FakeGpuGetCounts>(dlsym(handle_, "fake_gpu_counts"))(); }

 private:
  void* handle_;
};

/// The value, or the end of the test with the reason.
template <typename T>
T must(Result<T> result) {
  if (!result.ok()) std::fprintf(stderr, "%s\n", result.status().message().c_str());
  return *std::move(result);
}

/// The same sequence with and without the GPU.
struct Twin {
  SequenceId plain;
  SequenceId device;
  std::vector<int> attended;  // Blocks of each.
  std::vector<uint32_t> tokens;
  bool selects_anew = false;  // Since the last token was computed.
  bool was_scored = false;    // Since then, likewise.
};

class DeviceSession : public TinySession {
 protected:
  explicit DeviceSession() : TinySession(options()) {}

  static TinyOptions options() {
    TinyOptions options;
    options.head_dim = 32;
    return options;
  }

  void open_both(FakeGpuOptions fake = {}) {
    std::snprintf(fake.model, sizeof(fake.model), "%s", path.c_str());
    gpu.configure(fake);
    plain = open();
    ModelOptions model{path, 2};
    model.cuda_library = NOSA_FAKE_GPU;
    Result<std::unique_ptr<Session>> opened = Session::open(model);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    device = *std::move(opened);
    ASSERT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
    EXPECT_EQ(device->model().device(), "Fake GPU");
  }

  int pick(int from, int to) { return int(random.between(from, to)); }

  Sequence& of_plain(const Twin& twin) { return **plain->sequence(twin.plain); }
  Sequence& of_device(const Twin& twin) { return **device->sequence(twin.device); }

  Twin add(int base, const std::vector<const Twin*>& attended, int n_tokens, Policy policy) {
    Twin twin;
    std::vector<SequenceId> plain_ids, device_ids;
    for (const Twin* other : attended) {
      plain_ids.push_back(other->plain);
      device_ids.push_back(other->device);
      twin.attended.push_back(blocks_for(int(other->tokens.size())));
    }
    twin.plain = must(plain->create_sequence(base, plain_ids));
    twin.device = must(device->create_sequence(base, device_ids));
    twin.tokens = tiny.random_tokens(n_tokens, random);
    select(twin, policy);
    set(twin);
    finish(twin);
    return twin;
  }

  void set(const Twin& twin) {
    const Result<int> want = of_plain(twin).set_tokens(twin.tokens);
    const Result<int> got = of_device(twin).set_tokens(twin.tokens);
    ASSERT_TRUE(want.ok() && got.ok());
  }

  // Whatever is interrupted goes on.
  void finish(const Twin& twin) {
    ASSERT_TRUE(of_plain(twin).prefill(1 << 20, {}).ok());
    while (of_device(twin).n_computed() < int(twin.tokens.size())) {
      const std::atomic<uint64_t> raised{uint64_t(pick(0, 2))};
      const Result<PrefillOutcome> got = of_device(twin).prefill(pick(1, 500), StopFlag(raised, 2));
      ASSERT_TRUE(got.ok()) << got.status().message();
    }
  }

  void select(const Twin& twin, Policy policy) {
    SelectionOptions options;
    options.policy = policy;
    options.budget = {8, 3, 1, 3};
    options.exact_keys = true;  // As where there is a GPU.
    for (size_t i = 0; i < twin.attended.size(); ++i) {
      const int n = twin.attended[i];
      if (pick(0, 2) != 0) continue;
      const int from = pick(0, n - 1);
      options.masked.push_back({int(i), from, pick(from, std::min(n, from + 3))});
    }
    if (!twin.attended.empty() && pick(0, 1) == 0) {
      const int i = pick(0, int(twin.attended.size()) - 1);
      const int at = pick(0, twin.attended[size_t(i)] - 1);
      options.pinned.push_back({i, at, at + 1});
    }
    ASSERT_TRUE(of_plain(twin).select(options).ok());
    ASSERT_TRUE(of_device(twin).select(options).ok());
  }

  DecodeRequest random_request(Twin& twin) {
    DecodeRequest request;
    request.n_steps = pick(1, 20);
    request.top = 5;
    // Whether a token's pass is still to come after score() depends on where its last pass ended.
    request.masses = !twin.was_scored && pick(0, 2) == 0;
    twin.was_scored = false;
    // The last token, computed before another selection was asked for, has nothing to tell any more.
    request.selections = !twin.selects_anew && pick(0, 2) == 0;
    twin.selects_anew = false;
    request.drafts = pick(0, 1) == 0;
    request.sampling.temperature = pick(0, 1) == 0 ? 0.0f : 0.8f;
    return request;
  }

  void decode(Twin& twin) {
    const DecodeRequest request = random_request(twin);
    compare(twin, must(of_plain(twin).decode(request, {})), of_device(twin).decode(request, {}));
  }

  // One command for several, against one for each.
  void decode_together(std::vector<Twin>& twins) {
    std::vector<Session::DecodeTask> tasks;
    std::vector<DecodeOutcome> want;
    const size_t n = size_t(pick(1, int(twins.size())));
    for (size_t i = 0; i < n; ++i) {
      tasks.push_back({twins[i].device, random_request(twins[i])});
      want.push_back(must(of_plain(twins[i]).decode(tasks[i].request, {})));
    }
    const std::vector<Result<DecodeOutcome>> got = device->decode_together(tasks, {});
    ASSERT_EQ(got.size(), n);
    for (size_t i = 0; i < n; ++i) compare(twins[i], want[i], got[i]);
  }

  void compare(Twin& twin, const DecodeOutcome& want, const Result<DecodeOutcome>& got) {
    ASSERT_TRUE(got.ok()) << got.status().message();
    ASSERT_EQ(want.steps.size(), got->steps.size());
    for (size_t i = 0; i < want.steps.size(); ++i) {
      EXPECT_EQ(want.steps[i].token, got->steps[i].token);
      EXPECT_TRUE(same_bits(want.steps[i].top, got->steps[i].top));
      EXPECT_EQ(want.steps[i].selections, got->steps[i].selections);
      twin.tokens.push_back(want.steps[i].token);
    }
    EXPECT_EQ(want.attended_blocks, got->attended_blocks);
    EXPECT_EQ(want.total_blocks, got->total_blocks);
    ASSERT_EQ(want.masses.size(), got->masses.size());
    for (const BlockMass& mass : want.masses) {
      const auto other = std::ranges::find_if(got->masses, [&](const BlockMass& m) { return m.sequence == mass.sequence && m.block == mass.block; });
      ASSERT_NE(other, got->masses.end());
      EXPECT_NEAR(mass.mass, other->mass, 1e-5);
    }
  }

  void score(Twin& twin) {
    twin.was_scored = true;
    const int from = pick(1, int(twin.tokens.size()));
    const ScoreOutcome want = must(of_plain(twin).score(from, {}));
    const Result<ScoreOutcome> got = of_device(twin).score(from, {});
    ASSERT_TRUE(got.ok()) << got.status().message();
    EXPECT_EQ(want.logprobs, got->logprobs);
  }

  void edit(Twin& twin) {
    twin.tokens.resize(size_t(pick(0, int(twin.tokens.size()))));
    const std::vector<uint32_t> more = tiny.random_tokens(pick(1, 300), random);
    twin.tokens.insert(twin.tokens.end(), more.begin(), more.end());
    set(twin);
    if (pick(0, 1) == 0) finish(twin);
  }

  // The two files are the same, and either goes on with it.
  void save(const Twin& twin) {
    const std::string a = folder.path_of("plain.kv");
    const std::string b = folder.path_of("device.kv");
    finish(twin);
    ASSERT_TRUE(of_plain(twin).save(a, "key").ok());
    ASSERT_TRUE(of_device(twin).save(b, "key").ok());
    std::ifstream first(a, std::ios::binary), second(b, std::ios::binary);
    const std::string x((std::istreambuf_iterator<char>(first)), {}), y((std::istreambuf_iterator<char>(second)), {});
    EXPECT_EQ(x, y);
  }

  void walk(int n_steps) {
    const Twin header = add(0, {}, pick(20, 150), Policy::kFull);
    std::vector<Twin> segments;
    for (int i = 0; i < 3; ++i) segments.push_back(add(int(header.tokens.size()), {&header}, pick(30, 700), Policy(pick(0, 2))));
    const auto new_tail = [&]() {
      std::vector<const Twin*> attended = {&header};
      for (const Twin& segment : segments) attended.push_back(&segment);
      return add(4096, attended, pick(1, 300), Policy(pick(0, 2)));
    };
    std::vector<Twin> tails = {new_tail(), new_tail()};
    for (int i = 0; i < n_steps && !HasFatalFailure() && !HasNonfatalFailure(); ++i) {
      Twin& twin = tails[size_t(pick(0, int(tails.size()) - 1))];
      switch (pick(0, 13)) {
        case 10:
        case 11:
        case 12: decode_together(tails); break;
        case 0:
          if (tails.size() >= 5) break;
          tails.push_back({must(plain->fork_sequence(twin.plain)), must(device->fork_sequence(twin.device)), twin.attended, twin.tokens, twin.selects_anew,
                           twin.was_scored});
          break;
        case 1: edit(twin); break;
        case 2:
          plain->close_sequence(twin.plain);
          device->close_sequence(twin.device);
          twin = tails.back();
          tails.pop_back();
          if (tails.size() < 2) tails.push_back(new_tail());
          break;
        case 3: score(twin); break;
        case 4: save(twin); break;
        case 5:
          select(twin, Policy(pick(0, 2)));
          twin.selects_anew = true;
          break;
        default: decode(twin); break;
      }
    }
    device->check_integrity();
  }

  FakeGpu gpu;
  std::unique_ptr<Session> plain, device;
};

TEST_F(DeviceSession, HasTheSameBitsAsTheCores) {
  open_both();
  walk(120);
  EXPECT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
  EXPECT_GT(gpu.counts().n_advances, 50);
}

TEST_F(DeviceSession, SharesStepsAmongThoseThatSelectAlike) {
  open_both();
  const Twin header = add(0, {}, 100, Policy::kFull);
  std::vector<Twin> twins;
  for (int i = 0; i < 5; ++i) twins.push_back(add(4096, {&header}, pick(60, 300), i < 4 ? Policy::kNosa : Policy::kInfLlmV2));
  std::vector<Session::DecodeTask> tasks;
  for (Twin& twin : twins) {
    twin.tokens.push_back(7);
    set(twin);
    tasks.push_back({twin.device, draws(3)});
    tasks.back().request.masses = pick(0, 1) == 0;
  }
  const int n_before = gpu.counts().n_advances;
  const std::vector<Result<DecodeOutcome>> got = device->decode_together(tasks, {});
  // Three, the fourth and the fifth, three times.
  EXPECT_EQ(gpu.counts().n_advances - n_before, 9);
  EXPECT_EQ(gpu.counts().n_together, 3);
  for (size_t i = 0; i < twins.size(); ++i) {
    ASSERT_TRUE(got[i].ok());
    EXPECT_EQ(got[i]->n_shared, i < 3 ? 3 : 0);
    compare(twins[i], must(of_plain(twins[i]).decode(tasks[i].request, {})), got[i]);
  }
}

TEST_F(DeviceSession, ParksAllThatShareAStepWhenStopped) {
  open_both();
  std::vector<Twin> twins;
  std::vector<Session::DecodeTask> tasks;
  for (int i = 0; i < 3; ++i) {
    twins.push_back(add(0, {}, pick(60, 300), Policy::kNosa));
    tasks.push_back({twins.back().device, draws(6)});
  }
  const std::atomic<uint64_t> raised{1};
  for (const Result<DecodeOutcome>& outcome : device->decode_together(tasks, StopFlag(raised, 1))) {
    EXPECT_TRUE(outcome->interrupted);
    EXPECT_TRUE(outcome->steps.empty());
  }
  const std::vector<Result<DecodeOutcome>> got = device->decode_together(tasks, {});
  for (size_t i = 0; i < twins.size(); ++i) compare(twins[i], must(of_plain(twins[i]).decode(draws(6), {})), got[i]);
}

TEST_F(DeviceSession, MakesRoomWhereBlocksAreFew) {
  open_both({.n_pages = 70});
  walk(120);
  EXPECT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
}

TEST_F(DeviceSession, LeavesWhatNeverFitsToTheCores) {
  open_both({.n_pages = 5});
  walk(60);
  EXPECT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
}

TEST_F(DeviceSession, TakesMoreMemoryForLongerContexts) {
  open_both({.n_pages = 5, .n_pages_most = 400});
  walk(60);
  EXPECT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
  EXPECT_GT(gpu.counts().n_grown, 1);
  EXPECT_GT(gpu.counts().n_advances, 30);
  EXPECT_GT(device->model().gpu()->n_blocks_max(), 5);
}

TEST_F(DeviceSession, LeavesToTheCoresWhatItCannotGrowFor) {
  open_both({.n_pages = 5, .n_pages_most = 12});
  walk(60);
  EXPECT_NE(device->model().gpu(), nullptr) << device->model().gpu_problem();
  EXPECT_LE(device->model().gpu()->n_blocks_max(), 12);
}

TEST_F(DeviceSession, GoesOnWhenTheGpuFails) {
  for (int i = 0; i < 4; ++i) {
    open_both({.fails_after = pick(0, 20)});
    walk(60);
    EXPECT_EQ(device->model().gpu(), nullptr);
    EXPECT_EQ(device->memory().gpu_problem, "The GPU has fallen off the bus.");
    EXPECT_EQ(device->memory().device, plain->model().device());
    plain.reset();
    device.reset();
  }
}

TEST_F(DeviceSession, GoesOnFromFiles) {
  open_both();
  Twin twin = add(0, {}, 333, Policy::kNosa);
  save(twin);
  const int n_before = gpu.counts().n_blocks_put;
  for (const char* file : {"plain.kv", "device.kv"}) {
    Twin loaded = twin;
    loaded.plain = must(plain->create_sequence(0, {}));
    loaded.device = must(device->create_sequence(0, {}));
    ASSERT_TRUE(of_plain(loaded).load(folder.path_of(file), "key").ok());
    ASSERT_TRUE(of_device(loaded).load(folder.path_of(file), "key").ok());
    select(loaded, Policy::kNosa);
    loaded.tokens.push_back(1);
    set(loaded);
    decode(loaded);
  }
  EXPECT_EQ(gpu.counts().n_blocks_put, n_before + 2 * blocks_for(333));
}

}  // namespace
}  // namespace nosa::test
