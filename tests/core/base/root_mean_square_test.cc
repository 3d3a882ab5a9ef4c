#include "core/base/root_mean_square.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace boss {
namespace {

TEST(RootMeanSquare, IsThatOfAllElements) {
  const at::Tensor a = at::arange(12, at::kFloat).view({3, 4});
  EXPECT_EQ(RootMeanSquare(a, a), 0);
  EXPECT_DOUBLE_EQ(RootMeanSquare(a + 0.5, a), 0.5);
  EXPECT_DOUBLE_EQ(RootMeanSquare(a.t(), at::zeros({4, 3})), std::sqrt(506.0 / 12));
  EXPECT_TRUE(std::isnan(RootMeanSquare(at::empty({0, 4}), at::empty({0, 4}))));
}

TEST(RootMeanSquare, IsTheSameInPieces) {
  at::manual_seed(1);
  const at::Tensor a = at::randn({3, 500'001}), b = at::randn({3, 500'001});
  const double whole = (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().sqrt().item<double>();
  EXPECT_NEAR(RootMeanSquare(a, b), whole, 1e-12);
}

}  // namespace
}  // namespace boss
