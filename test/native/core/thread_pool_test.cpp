#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "support/random.h"

namespace nosa {
namespace {

std::unique_ptr<ThreadPool> make_pool(int n_threads, int spin_us = 50) {
  auto pool = ThreadPool::create({.n_threads = n_threads, .spin_us = spin_us});
  CHECK(pool.ok());
  return *std::move(pool);
}

class EachThreadCount : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Some, EachThreadCount, testing::Values(1, 2, 3, 8));

TEST_P(EachThreadCount, EveryItemRunsOnceAndItsWritesAreSeen) {
  test::Random random;
  const auto pool = make_pool(GetParam());
  for (int round = 0; round < 300; ++round) {
    const int64_t n_items = random.between(0, 50);
    std::vector<int> runs(static_cast<size_t>(n_items), 0);  // Not atomic: the pool must order it.
    pool->parallel_for(n_items, [&](int64_t item, int) { ++runs[item]; });
    for (const int n : runs) ASSERT_EQ(n, 1);
  }
}

TEST_P(EachThreadCount, NoWorkerIsInTwoCallsAtOnce) {
  const auto pool = make_pool(GetParam());
  std::vector<std::atomic<int>> inside(static_cast<size_t>(GetParam()));
  std::atomic<int> clashes = 0;
  for (int round = 0; round < 200; ++round) {
    pool->parallel_for(16, [&](int64_t, int worker) {
      if (worker < 0 || worker >= GetParam() || inside[worker].fetch_add(1) != 0) ++clashes;
      inside[worker].fetch_sub(1);
    });
  }
  EXPECT_EQ(clashes, 0);
}

TEST_P(EachThreadCount, LoopsRightAfterOneAnotherStayApart) {
  // Two hundred short loops make a decode step: each must see the one before it complete.
  const auto pool = make_pool(GetParam());
  std::vector<int64_t> values(7, 0);
  for (int round = 0; round < 20000; ++round) {
    pool->parallel_for(
        7, [&](int64_t item, int) { values[item] += round % 2 == 0 ? item + 1 : -item; });
  }
  for (const int64_t value : values) EXPECT_EQ(value, 10000);
}

TEST_P(EachThreadCount, WorksWhenThreadsHaveGoneToSleep) {
  const auto pool = make_pool(GetParam(), 0);
  std::atomic<int64_t> sum = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool->parallel_for(100, [&](int64_t item, int) { sum += item; });
  }
  EXPECT_EQ(sum, 20 * 4950);
}

TEST(ThreadPool, SharesOutLongItems) {
  const auto pool = make_pool(2);
  std::atomic<int> started = 0;
  std::atomic<bool> together = false;
  pool->parallel_for(2, [&](int64_t, int) {
    ++started;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (started < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    if (started == 2) together = true;
  });
  EXPECT_TRUE(together);
}

TEST(ThreadPool, OneThreadRunsInOrderOnTheCaller) {
  const auto pool = make_pool(1);
  std::vector<int64_t> order;
  pool->parallel_for(5, [&](int64_t item, int worker) {
    EXPECT_EQ(worker, 0);
    order.push_back(item);
  });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

std::atomic<int> n_plain_calls = 0;
void plain_body(int64_t, int) { ++n_plain_calls; }

TEST(ThreadPool, TakesFunctionsAndConstAndTemporaryBodies) {
  const auto pool = make_pool(3);
  std::atomic<int> n = 0;
  const auto body = [&](int64_t, int) { ++n; };
  pool->parallel_for(10, body);
  pool->parallel_for(10, [&](int64_t, int) { ++n; });
  EXPECT_EQ(n, 20);
  pool->parallel_for(10, plain_body);
  EXPECT_EQ(n_plain_calls, 10);
}

TEST(ThreadPool, ComesAndGoesQuickly) {
  for (int round = 0; round < 50; ++round) {
    const auto pool = make_pool(4);
    if (round % 2 == 0) pool->parallel_for(3, [](int64_t, int) {});
  }
}

TEST(ThreadPool, RefusesImpossibleThreadCounts) {
  for (const int n_threads : {0, -1, ThreadPool::threads_max + 1}) {
    EXPECT_EQ(ThreadPool::create({.n_threads = n_threads}).status().code(),
              StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace nosa
