#include "session/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <thread>
#include <vector>

namespace nosa {
namespace {

using namespace std::chrono_literals;

TEST(Worker, CommandsRunOneAfterTheOtherInOrder) {
  Worker worker;
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(worker.post(make_command([&order, i](const StopFlag&) { order.push_back(i); })).ok());
  }
  std::promise<void> last;
  ASSERT_TRUE(worker.finish(make_command([&](const StopFlag&) { last.set_value(); })).ok());
  last.get_future().wait();
  worker.join();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[size_t(i)], i);
}

TEST(Worker, NothingIsTakenAfterTheLastCommand) {
  Worker worker;
  ASSERT_TRUE(worker.finish(make_command([](const StopFlag&) {})).ok());
  EXPECT_EQ(worker.post(make_command([](const StopFlag&) {})).code(), StatusCode::kDisposed);
  EXPECT_EQ(worker.finish(make_command([](const StopFlag&) {})).code(), StatusCode::kDisposed);
  worker.join();
}

TEST(Worker, AnInterruptReachesTheRunningCommandAndNoOther) {
  Worker worker;
  worker.interrupt();  // Nobody runs: nothing happens.
  std::promise<void> began;
  std::promise<bool> second;
  ASSERT_TRUE(worker.post(make_command([&](const StopFlag& stop) {
                      began.set_value();
                      while (!stop.raised()) std::this_thread::sleep_for(1ms);
                    })).ok());
  ASSERT_TRUE(worker.post(make_command([&](const StopFlag& stop) {
                      second.set_value(stop.raised());
                    })).ok());
  began.get_future().wait();
  worker.interrupt();
  EXPECT_FALSE(second.get_future().get());
}

TEST(Worker, AQueueHasAMaximum) {
  Worker worker;
  std::promise<void> release;
  auto released = release.get_future().share();
  std::promise<void> began;
  ASSERT_TRUE(worker.post(make_command([&, released](const StopFlag&) {
                      began.set_value();
                      released.wait();
                    })).ok());
  began.get_future().wait();
  for (size_t i = 0; i < Worker::queue_max; ++i) {
    ASSERT_TRUE(worker.post(make_command([](const StopFlag&) {})).ok());
  }
  EXPECT_EQ(worker.post(make_command([](const StopFlag&) {})).code(), StatusCode::kOutOfMemory);
  release.set_value();
}

TEST(Worker, AbandoningStopsWhatRunsAndDropsWhatWaits) {
  std::atomic<bool> second_ran{false};
  auto alive = std::make_shared<int>(0);
  std::weak_ptr<int> held = alive;
  {
    Worker worker;
    std::promise<void> began;
    ASSERT_TRUE(worker.post(make_command([&](const StopFlag& stop) {
                        began.set_value();
                        while (!stop.raised()) std::this_thread::sleep_for(1ms);
                      })).ok());
    ASSERT_TRUE(worker.post(make_command([&, alive = std::move(alive)](const StopFlag&) {
                        second_ran = true;
                      })).ok());
    began.get_future().wait();
    worker.abandon();
    EXPECT_EQ(worker.post(make_command([](const StopFlag&) {})).code(), StatusCode::kDisposed);
  }
  EXPECT_FALSE(second_ran);
  EXPECT_TRUE(held.expired());
}

}  // namespace
}  // namespace nosa
