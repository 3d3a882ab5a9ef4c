#include "core/evaluate/frechet.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace boss {
namespace {

at::Tensor Random(int64_t count, int64_t dimensions, uint64_t seed) {
  return at::randn({count, dimensions}, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kDouble));
}

// Features whose mean is exactly 0 and whose covariance is exactly the identity.
at::Tensor White(int64_t count, int64_t dimensions, uint64_t seed) {
  at::Tensor features = Random(count, dimensions, seed);
  features = features - features.mean(0);
  const at::Tensor covariance = features.t().mm(features) / (count - 1);
  return features.mm(at::linalg_inv(at::linalg_cholesky(covariance)).t());
}

FeatureStatistics Statistics(const at::Tensor& features) {
  FeatureStatistics statistics;
  const absl::Status status = statistics.Add(features);
  EXPECT_TRUE(status.ok()) << status;
  return statistics;
}

TEST(FeatureStatisticsTest, BatchesAddUpToMeanAndCovariance) {
  const at::Tensor features = Random(50, 4, 1) + 3;
  FeatureStatistics statistics;
  for (const at::Tensor& batch : features.split(7)) ASSERT_TRUE(statistics.Add(batch.to(at::kDouble)).ok());
  EXPECT_EQ(statistics.count(), 50);
  EXPECT_TRUE(at::allclose(statistics.Mean(), features.mean(0), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(statistics.Covariance(), at::cov(features.t()), 1e-10, 1e-10));
}

TEST(FeatureStatisticsTest, RefusesWhatIsNoFeature) {
  FeatureStatistics statistics = Statistics(Random(5, 4, 1));
  EXPECT_EQ(statistics.Add(Random(5, 3, 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(statistics.Add(at::zeros({4})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(statistics.Add(at::full({1, 4}, std::numeric_limits<double>::quiet_NaN())).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(statistics.count(), 5);
  EXPECT_TRUE(at::isfinite(statistics.Mean()).all().item<bool>());
}

TEST(FrechetTest, OfASetWithItselfIsZero) {
  const FeatureStatistics statistics = Statistics(Random(500, 16, 2));
  EXPECT_NEAR(FrechetDistance(statistics, statistics).value(), 0, 1e-9);
}

TEST(FrechetTest, ASingularCovarianceIsNoObstacle) {
  const FeatureStatistics few = Statistics(Random(4, 16, 3));
  EXPECT_NEAR(FrechetDistance(few, few).value(), 0, 1e-6);
  const FeatureStatistics constant = Statistics(at::full({5, 16}, 2.0, at::kDouble));
  const FeatureStatistics other = Statistics(at::full({5, 16}, 5.0, at::kDouble));
  EXPECT_NEAR(FrechetDistance(constant, other).value(), 16 * 9, 1e-9);
}

TEST(FrechetTest, AxisAlignedGaussiansMatchTheClosedForm) {
  const at::Tensor a = at::tensor({1.0, 4.0, 0.25}), b = at::tensor({9.0, 1.0, 0.25});
  const at::Tensor shift = at::tensor({1.0, -2.0, 0.5});
  const FeatureStatistics first = Statistics(White(100, 3, 4) * a.sqrt());
  const FeatureStatistics second = Statistics(White(70, 3, 5) * b.sqrt() + shift);
  const double expected = shift.square().sum().item<double>() + (a.sqrt() - b.sqrt()).square().sum().item<double>();
  EXPECT_NEAR(FrechetDistance(first, second).value(), expected, 1e-9);
  EXPECT_NEAR(FrechetDistance(second, first).value(), expected, 1e-9);
}

TEST(FrechetTest, CovariancesThatDoNotCommuteMatchTheClosedForm) {
  const at::Tensor a = at::tensor({2.0, 0.5, 0.5, 1.0}).view({2, 2}),
                   b = at::tensor({1.0, -0.6, -0.6, 3.0}).view({2, 2});
  const FeatureStatistics first = Statistics(White(100, 2, 6).mm(at::linalg_cholesky(a).t()));
  const FeatureStatistics second = Statistics(White(100, 2, 7).mm(at::linalg_cholesky(b).t()));
  // For 2 x 2 matrices, tr (AB)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2).
  const double trace = a.mm(b).trace().item<double>();
  const double determinant = at::linalg_det(a.mm(b)).item<double>();
  const double expected = 3.0 + 4.0 - 2 * std::sqrt(trace + 2 * std::sqrt(determinant));
  EXPECT_NEAR(FrechetDistance(first, second).value(), expected, 1e-9);
}

TEST(FrechetTest, NeedsTwoSamplesAndOneDimension) {
  const FeatureStatistics good = Statistics(Random(5, 3, 8));
  EXPECT_EQ(FrechetDistance(good, FeatureStatistics()).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FrechetDistance(Statistics(Random(1, 3, 8)), good).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FrechetDistance(good, Statistics(Random(5, 4, 8))).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace boss
