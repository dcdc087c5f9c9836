#include "kv/memory_plan.h"

#include <gtest/gtest.h>

namespace nosa {
namespace {

/// Qwen2.5-Coder 0.5B: 24 layers, 2 KV heads of 64.
MemoryDemand demand(int64_t context_tokens) {
  MemoryDemand d;
  d.shape = {.n_layers = 24, .n_kv_heads = 2, .head_dim = 64, .dtype = DType::kF16};
  d.context_tokens = context_tokens;
  d.tail_tokens = 4096;
  d.segment_tokens = 8192;
  d.memory_bytes_max = int64_t(2) << 30;
  d.disk_bytes_max = int64_t(64) << 30;
  return d;
}

TEST(MemoryPlan, AMillionTokensFitTwoGigabytesOfMemory) {
  const Result<MemoryPlan> plan = plan_memory(demand(1 << 20));
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_LE(plan->memory_bytes(), int64_t(2) << 30);
  EXPECT_GE(plan->disk_bytes, int64_t(12) << 30);  // 12 KiB a token.
  EXPECT_GT(plan->resident_tokens, 0);
  EXPECT_LT(plan->resident_tokens, 1 << 20);
}

TEST(MemoryPlan, ASmallContextTakesNoMoreThanItNeeds) {
  const Result<MemoryPlan> plan = plan_memory(demand(16384));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->block_bytes, int64_t(16384 + 4096) * 12 * 1024);
  EXPECT_EQ(plan->resident_tokens, 16384 + 4096);
}

TEST(MemoryPlan, TooLittleMemorySaysWhatWouldFitAndThatFits) {
  MemoryDemand d = demand(1 << 20);
  d.memory_bytes_max = int64_t(64) << 20;
  const Result<MemoryPlan> refused = plan_memory(d);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.status().message().find("raise the memory budget"), std::string::npos);
  // The least that is said to fit does, and a byte of the smallest unit less does not.
  int64_t low = d.memory_bytes_max;
  int64_t high = int64_t(4) << 30;
  while (high - low > 1) {
    d.memory_bytes_max = (low + high) / 2;
    (plan_memory(d).ok() ? high : low) = d.memory_bytes_max;
  }
  d.memory_bytes_max = high;
  EXPECT_LE(plan_memory(d)->memory_bytes(), high);
  EXPECT_GE(plan_memory(d)->block_bytes, int64_t(129) * 2 * 16384);
}

TEST(MemoryPlan, TooLittleDiskIsSaid) {
  MemoryDemand d = demand(1 << 20);
  d.disk_bytes_max = int64_t(1) << 30;
  EXPECT_EQ(plan_memory(d).status().code(), StatusCode::kNoSpace);
}

TEST(MemoryPlan, TokenScoresCostFourBytesATokenAndHead) {
  const MemoryDemand d = demand(1 << 20);
  EXPECT_EQ(side_car_bytes(d.shape, 1 << 20, true) - side_car_bytes(d.shape, 1 << 20, false),
            int64_t(1 << 20) * 48 * 4);
}

TEST(MemoryPlan, AnEmptyContextIsFine) {
  const Result<MemoryPlan> plan = plan_memory(demand(0));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->disk_bytes, 0);
}

}  // namespace
}  // namespace nosa
