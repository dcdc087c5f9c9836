#include "core/status.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace nosa {
namespace {

TEST(Status, IsSuccessUnlessGivenACode) {
  EXPECT_TRUE(Status().ok());
  const Status status = Status::not_found("no such file");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no such file");
}

TEST(Status, EveryCodeHasItsOwnName) {
  std::vector<std::string> names;
  for (int code = 0; code <= static_cast<int>(StatusCode::kDisposed); ++code) {
    const std::string name = status_code_name(static_cast<StatusCode>(code));
    EXPECT_NE(name, "Unknown");
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 0) << name;
    names.push_back(name);
  }
}

TEST(Result, HoldsAValueOrAFailure) {
  Result<int> value = 3;
  EXPECT_TRUE(value.ok());
  EXPECT_TRUE(value.status().ok());
  EXPECT_EQ(*value, 3);
  const Result<int> failure = Status::io("disk");
  EXPECT_FALSE(failure.ok());
  EXPECT_EQ(failure.status().code(), StatusCode::kIo);
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(7);
  const std::unique_ptr<int> taken = *std::move(made);
  EXPECT_EQ(*taken, 7);
}

TEST(ResultDeathTest, TakingTheValueOfAFailureAborts) {
  Result<int> failure = Status::io("disk");
  EXPECT_DEATH((void)failure.value(), "CHECK failed");
}

TEST(ResultDeathTest, ASuccessIsNoFailure) {
  EXPECT_DEATH((void)Result<int>(Status()), "CHECK failed");
}

}  // namespace
}  // namespace nosa
