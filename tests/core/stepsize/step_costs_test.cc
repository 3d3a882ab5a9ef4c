#include "core/stepsize/step_costs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "core/solver/record_trajectory.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

constexpr int kMax = 9;

class StepCostsTest : public ::testing::Test {
 protected:
  StepCostsTest() {
    const testing::FunctionModel model(
        [](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (x * 3).sin() + t.unsqueeze(1); }, 5);
    InlineExecutor executor;
    auto trajectory = RecordTrajectory(model, at::randn({7, 5}), {}, TimeGrid::Uniform(kMax), executor);
    EXPECT_TRUE(trajectory.ok()) << trajectory.status();
    trajectory_ = *std::move(trajectory);
    EXPECT_TRUE(gram_.Add(trajectory_).ok());
    x_ = trajectory_.states.to(at::kDouble);
    v_ = trajectory_.velocities.to(at::kDouble);
  }

  double Cost(int p, int i, int j, double b, double c) const {
    return (x_[i] + b * v_[i] + c * v_[p] - x_[j]).square().sum(1).mean().item<double>();
  }

  Trajectory trajectory_;
  TrajectoryGram gram_{kMax, /*has_pairs=*/true};
  at::Tensor x_, v_;  // [k_max + 1, 7, 5], [k_max, 7, 5]
};

TEST_F(StepCostsTest, AFitHasTheCostThatItStates) {
  for (const auto& [p, i, j] : std::vector<std::tuple<int, int, int>>{{0, 1, 2}, {0, 3, 9}, {2, 3, 8}, {1, 7, 9}}) {
    const FittedStep fit = FitPairStep(gram_, p, i, j);
    ASSERT_EQ(fit.coefficients.velocities.size(), 2);
    EXPECT_NEAR(fit.cost, Cost(p, i, j, fit.coefficients.velocities[0], fit.coefficients.velocities[1]), 1e-10);
    EXPECT_EQ(fit.coefficients.state, 1);
  }
  const FittedStep first = FitFirstStep(gram_, 0, 4);
  EXPECT_NEAR(first.cost, Cost(0, 0, 4, first.coefficients.velocities[0], 0), 1e-10);
}

TEST_F(StepCostsTest, NoOtherCoefficientsAreBetter) {
  for (const auto& [p, i, j] : std::vector<std::tuple<int, int, int>>{{0, 3, 9}, {2, 5, 8}, {1, 7, 9}}) {
    const FittedStep fit = FitPairStep(gram_, p, i, j);
    const double b = fit.coefficients.velocities[0], c = fit.coefficients.velocities[1], least = fit.cost * (1 + 1e-3);
    for (const double change : {-0.05, 0.05}) {
      EXPECT_LE(fit.cost, Cost(p, i, j, b + change, c) + least * 1e-3);
      EXPECT_LE(fit.cost, Cost(p, i, j, b, c + change) + least * 1e-3);
    }
    // Nor are Euler's and Adams-Bashforth's.
    const double h = static_cast<double>(j - i) / kMax, before = static_cast<double>(i - p) / kMax;
    EXPECT_LE(fit.cost, Cost(p, i, j, h, 0) * (1 + 1e-6));
    EXPECT_LE(fit.cost, Cost(p, i, j, h + h * h / (2 * before), -h * h / (2 * before)) * (1 + 1e-6));
  }
}

TEST_F(StepCostsTest, TablesHoldTheFits) {
  const std::vector<double> first = *FirstStepCosts(gram_), pair = *PairStepCosts(gram_);
  ASSERT_EQ(first.size(), kMax + 1);
  ASSERT_EQ(pair.size(), kMax * (kMax + 1) * (kMax + 1));
  EXPECT_EQ(first[5], FitFirstStep(gram_, 0, 5).cost);
  EXPECT_EQ(pair[(2 * (kMax + 1) + 4) * (kMax + 1) + 7], FitPairStep(gram_, 2, 4, 7).cost);
}

TEST(StepCosts, VelocitiesThatAreTheSameAreNoDivisionByZero) {
  const testing::FunctionModel model(
      [](const at::Tensor& x, const at::Tensor&, const Condition&) { return at::ones_like(x); });
  InlineExecutor executor;
  const auto trajectory = RecordTrajectory(model, at::randn({3, 2}), {}, TimeGrid::Uniform(4), executor);
  TrajectoryGram gram(4, /*has_pairs=*/true);
  ASSERT_TRUE(gram.Add(*trajectory).ok());
  const FittedStep fit = FitPairStep(gram, 0, 1, 4);
  EXPECT_NEAR(fit.cost, 0, 1e-9);
  EXPECT_NEAR(fit.coefficients.velocities[0] + fit.coefficients.velocities[1], 0.75, 1e-6);
}

TEST_F(StepCostsTest, NeedTrajectoriesAndThoseOfPairsTheirProducts) {
  TrajectoryGram gram(kMax, /*has_pairs=*/false);
  EXPECT_EQ(FirstStepCosts(gram).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(PairStepCosts(TrajectoryGram(kMax, /*has_pairs=*/true)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(gram.Add(trajectory_).ok());
  EXPECT_EQ(PairStepCosts(gram).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NEAR((*FirstStepCosts(gram))[5], (*FirstStepCosts(gram_))[5], 1e-12);
}

}  // namespace
}  // namespace boss
