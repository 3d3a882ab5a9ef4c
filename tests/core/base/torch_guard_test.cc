#include "core/base/torch_guard.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <new>
#include <stdexcept>

#include "absl/strings/match.h"

namespace boss {
namespace {

TEST(GuardTorchTest, PassesResultsThrough) {
  const absl::StatusOr<int> plain = GuardTorch("adding", [] { return 1 + 1; });
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(*plain, 2);
  EXPECT_EQ(GuardTorch("checking", [] { return absl::NotFoundError("no"); }), absl::NotFoundError("no"));
}

TEST(GuardTorchTest, OperatorErrorsAreInternalAndNameTheOperation) {
  const absl::StatusOr<at::Tensor> sum = GuardTorch("adding", [] { return at::ones({2}) + at::ones({3}); });
  EXPECT_EQ(sum.status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(absl::StartsWith(sum.status().message(), "adding: ")) << sum.status();
}

TEST(GuardTorchTest, ExhaustedMemoryIsResourceExhausted) {
  const absl::StatusOr<at::Tensor> huge = GuardTorch("allocating", [] { return at::empty({int64_t{1} << 55}, at::kByte); });
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted) << huge.status();
  const auto bad_alloc = GuardTorch("allocating", []() -> int { throw std::bad_alloc(); });
  EXPECT_EQ(bad_alloc.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(GuardTorchTest, OtherExceptionsAreInternal) {
  const auto result = GuardTorch("thinking", []() -> int { throw std::runtime_error("hm"); });
  EXPECT_EQ(result.status(), absl::InternalError("thinking: hm"));
}

}  // namespace
}  // namespace boss
