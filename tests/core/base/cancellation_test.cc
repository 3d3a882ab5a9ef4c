#include "core/base/cancellation.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace boss {
namespace {

TEST(CancellationTokenTest, IsOkUntilCancelled) {
  CancellationToken token;
  EXPECT_TRUE(token.Check().ok());
  token.Cancel(absl::CancelledError("by the client"));
  EXPECT_EQ(token.Check(), absl::CancelledError("by the client"));
}

TEST(CancellationTokenTest, KeepsTheFirstReason) {
  CancellationToken token;
  token.Cancel(absl::DeadlineExceededError("too late"));
  token.Cancel(absl::CancelledError("by the client"));
  EXPECT_EQ(token.Check().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(CancellationTokenTest, ManyThreadsAgreeOnOneReason) {
  CancellationToken token;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&token, i] { token.Cancel(absl::CancelledError(std::to_string(i))); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(token.Check().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(token.Check(), token.Check());
}

}  // namespace
}  // namespace boss
