#include "core/flow/multistep.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace boss {
namespace {

TEST(AdamsBashforth, HasTheTextbookCoefficientsOnUniformSteps) {
  const std::vector<StepCoefficients> steps = AdamsBashforth(TimeGrid::Uniform(4), 3);
  const double h = 0.25;
  ASSERT_EQ(steps.size(), 4);
  EXPECT_EQ(steps[0], (StepCoefficients{1, {h}}));
  ASSERT_EQ(steps[1].velocities.size(), 2);
  EXPECT_NEAR(steps[1].velocities[0], 1.5 * h, 1e-15);
  EXPECT_NEAR(steps[1].velocities[1], -0.5 * h, 1e-15);
  ASSERT_EQ(steps[3].velocities.size(), 3);
  EXPECT_NEAR(steps[3].velocities[0], 23.0 / 12 * h, 1e-15);
  EXPECT_NEAR(steps[3].velocities[1], -16.0 / 12 * h, 1e-15);
  EXPECT_NEAR(steps[3].velocities[2], 5.0 / 12 * h, 1e-15);
}

TEST(AdamsBashforth, IsExactForPolynomialsOnUnevenSteps) {
  const TimeGrid grid = *TimeGrid::Create({0, 0.1, 0.35, 0.4, 1});
  for (int order = 1; order <= 3; ++order) {
    const std::vector<StepCoefficients> steps = AdamsBashforth(grid, order);
    for (int i = order - 1; i < grid.steps(); ++i) {
      for (int power = 0; power < order; ++power) {
        double got = 0;
        for (size_t k = 0; k < steps[i].velocities.size(); ++k) {
          got += steps[i].velocities[k] * std::pow(grid[i - static_cast<int>(k)], power);
        }
        const double expected = (std::pow(grid[i + 1], power + 1) - std::pow(grid[i], power + 1)) / (power + 1);
        EXPECT_NEAR(got, expected, 1e-14) << order << " " << i << " " << power;
      }
    }
  }
}

TEST(AdamsBashforth, OfOrderTwoConvergesAtOrderTwo) {
  // dx/dt = x cos(6 t), x(0) = 1.
  const auto error = [](int steps) {
    const TimeGrid grid = TimeGrid::Uniform(steps);
    double x = 1;
    std::vector<double> velocities;
    for (const StepCoefficients& step : AdamsBashforth(grid, 2)) {
      const int i = static_cast<int>(velocities.size());
      velocities.push_back(x * std::cos(6 * grid[i]));
      for (size_t k = 0; k < step.velocities.size(); ++k) x += step.velocities[k] * velocities[i - k];
    }
    return std::abs(x - std::exp(std::sin(6.0) / 6));
  };
  EXPECT_NEAR(std::log2(error(200) / error(400)), 2, 0.1);
  EXPECT_NEAR(std::log2(error(400) / error(800)), 2, 0.05);
}

TEST(MultistepUpdate, IsEulersBitForBitWithOneAndH) {
  const at::Tensor x = at::randn({3, 4}), v = at::randn({3, 4}), other = at::randn({3, 4});
  const std::vector<at::Tensor> velocities{v, other};
  EXPECT_TRUE(at::equal(MultistepUpdate(x, velocities, {1, {0.3}}), at::add(x, v, 0.3)));
}

TEST(MultistepUpdate, WeighsTheStateAndTheVelocitiesTheNewestFirst) {
  const at::Tensor x = at::full({2}, 10.0), v = at::full({2}, 100.0), before = at::full({2}, 1000.0);
  const std::vector<at::Tensor> velocities{v, before};
  EXPECT_TRUE(at::allclose(MultistepUpdate(x, velocities, {0.5, {2, -1}}), at::full({2}, 5.0 + 200 - 1000)));
}

}  // namespace
}  // namespace boss
