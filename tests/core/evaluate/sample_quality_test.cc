#include "core/evaluate/sample_quality.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace boss {
namespace {

// Euler on a uniform grid.
Trajectory Record(const at::Tensor& noise, int steps,
                  const std::function<at::Tensor(const at::Tensor&, double)>& velocity) {
  Trajectory trajectory{.time_grid = TimeGrid::Uniform(steps)};
  std::vector<at::Tensor> states = {noise}, velocities;
  for (int i = 0; i < steps; ++i) {
    velocities.push_back(velocity(states.back(), trajectory.time_grid[i]));
    states.push_back(states.back() + trajectory.time_grid.StepSize(i) * velocities.back());
  }
  trajectory.states = at::stack(states);
  trajectory.velocities = at::stack(velocities);
  return trajectory;
}

at::Tensor Noise() { return at::arange(12, at::kFloat).view({3, 4}) / 10; }

TEST(TrajectoryErrorTest, IsTheRootMeanSquareOverAllElements) {
  const at::Tensor fine = Noise();
  EXPECT_EQ(TrajectoryError(fine, fine), 0);
  EXPECT_NEAR(TrajectoryError(fine + 0.5, fine), 0.5, 1e-6);
  at::Tensor one = fine.clone();
  one[1][2] += 2;
  EXPECT_NEAR(TrajectoryError(one, fine), std::sqrt(4.0 / 12), 1e-6);
}

TEST(StraightnessTest, IsZeroForAConstantVelocity) {
  const at::Tensor direction = at::tensor({1.0f, -2.0f, 0.5f, 3.0f});
  EXPECT_NEAR(Straightness(Record(Noise(), 20, [&](const at::Tensor& x, double) { return direction.expand_as(x); })), 0,
              1e-9);
}

// v = 3 t^2 c moves every sample by the mean of the velocities, so straightness is their variance times the dimension.
TEST(StraightnessTest, IsTheVarianceOfAVelocityThatOnlyChangesInTime) {
  constexpr int kSteps = 10;
  constexpr double kC = 1.5;
  double mean = 0, square = 0;
  for (int i = 0; i < kSteps; ++i) {
    const double velocity = 3 * kC * i * i / (kSteps * kSteps);
    mean += velocity / kSteps;
    square += velocity * velocity / kSteps;
  }
  const Trajectory trajectory =
      Record(Noise(), kSteps, [](const at::Tensor& x, double t) { return at::full_like(x, 3 * t * t * kC); });
  EXPECT_NEAR(Straightness(trajectory), 4 * (square - mean * mean), 1e-5);
}

// x_1 = x_0 (1 + h)^n, v_i = x_0 (1 + h)^i.
TEST(StraightnessTest, MatchesTheExponentialFlowInClosedForm) {
  constexpr int kSteps = 4;
  const double growth = 1 + 1.0 / kSteps;
  double factor = 0;
  for (int i = 0; i < kSteps; ++i) factor += std::pow(std::pow(growth, kSteps) - 1 - std::pow(growth, i), 2) / kSteps;
  const double mean_square_norm = Noise().to(at::kDouble).square().sum().item<double>() / 3;
  const Trajectory trajectory = Record(Noise(), kSteps, [](const at::Tensor& x, double) { return x; });
  EXPECT_NEAR(Straightness(trajectory), factor * mean_square_norm, 1e-5);
}

}  // namespace
}  // namespace boss
