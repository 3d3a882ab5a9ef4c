#include "core/stepsize/cost_matrix.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/solver/record_trajectory.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

Trajectory Record(const VelocityModel& model, const at::Tensor& noise, const TimeGrid& fine_grid) {
  InlineExecutor executor;
  absl::StatusOr<Trajectory> trajectory = RecordTrajectory(model, noise, {}, fine_grid, executor);
  EXPECT_TRUE(trajectory.ok()) << trajectory.status();
  return *std::move(trajectory);
}
Trajectory Record(const VelocityModel& model, const at::Tensor& noise, int k_max) {
  return Record(model, noise, TimeGrid::Uniform(k_max));
}

// Fine near the data: t_i = (i / k_max)^(1/3).
TimeGrid Uneven(int k_max) {
  std::vector<double> times;
  for (int i = 0; i <= k_max; ++i) times.push_back(std::cbrt(static_cast<double>(i) / k_max));
  return *TimeGrid::Create(times);
}

class CostMatrixOverTest : public ::testing::TestWithParam<TimeGrid> {};

TEST_P(CostMatrixOverTest, EqualsItsDefinition) {
  constexpr int kMax = 12;
  const testing::FunctionModel model(
      [](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (x * 3).sin() + t.unsqueeze(1); }, 5);
  const Trajectory trajectory = Record(model, at::randn({7, 5}), GetParam());
  TrajectoryGram gram(kMax, /*has_pairs=*/false);
  ASSERT_TRUE(gram.Add(trajectory).ok());
  const std::vector<double> cost = *CostMatrix(gram);
  const at::Tensor x = trajectory.states.to(at::kDouble), v = trajectory.velocities.to(at::kDouble);
  for (int i = 0; i <= kMax; ++i) {
    for (int j = 0; j <= kMax; ++j) {
      double expected = 0;
      if (i < j) {
        const double h = trajectory.time_grid[j] - trajectory.time_grid[i];
        expected = (x[i] + h * v[i] - x[j]).square().sum(1).mean().item<double>();
      }
      EXPECT_NEAR(cost[i * (kMax + 1) + j], expected, 1e-12 + 1e-9 * expected) << i << ", " << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, CostMatrixOverTest, ::testing::Values(TimeGrid::Uniform(12), Uneven(12)));

TEST(CostMatrixTest, AStraightFlowCostsNothing) {
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor&, const Condition&) { return at::ones_like(x); });
  TrajectoryGram gram(8, /*has_pairs=*/false);
  ASSERT_TRUE(gram.Add(Record(model, at::randn({4, 2}), 8)).ok());
  const std::vector<double> cost = *CostMatrix(gram);
  for (double c : cost) EXPECT_NEAR(c, 0, 1e-10);
}

TEST(CostMatrixTest, NeedsATrajectory) {
  EXPECT_EQ(CostMatrix(TrajectoryGram(8, /*has_pairs=*/false)).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(OptimizeSchedulesTest, NamesTheTimesOfEveryStepCount) {
  const testing::FunctionModel model = testing::CubicFlow(1.0);
  TrajectoryGram gram(20, /*has_pairs=*/false);
  ASSERT_TRUE(gram.Add(Record(model, at::randn({3, 2}), 20)).ok());
  const absl::StatusOr<ScheduleSet> set = OptimizeSchedules(*CostMatrix(gram), TimeGrid::Uniform(20), 3, 1.5);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->guidance_scale, 1.5);
  EXPECT_FALSE(set->fine_grid.has_value());
  ASSERT_EQ(set->schedules.size(), 20u);
  for (int steps = 1; steps <= 20; ++steps) {
    const Schedule& schedule = set->schedules[steps - 1];
    ASSERT_EQ(schedule.time_grid.steps(), steps);
    for (int k = 0; k <= steps; ++k) EXPECT_DOUBLE_EQ(schedule.time_grid[k], schedule.knots[k] / 20.0);
    if (steps > 1) {
      EXPECT_LE(schedule.total_cost, set->schedules[steps - 2].total_cost);
    }
  }
  // The velocity 3 t^2 changes most near the end: that is where the steps are short.
  const TimeGrid& grid = set->schedules[3].time_grid;
  EXPECT_GT(grid.StepSize(0), grid.StepSize(3));
}

TEST(OptimizeSchedulesTest, TakesItsTimesFromAnyFineGrid) {
  const testing::FunctionModel model = testing::CubicFlow(1.0);
  const TimeGrid fine_grid = Uneven(20);
  TrajectoryGram gram(20, /*has_pairs=*/false);
  ASSERT_TRUE(gram.Add(Record(model, at::randn({3, 2}), fine_grid)).ok());
  const absl::StatusOr<ScheduleSet> set = OptimizeSchedules(*CostMatrix(gram), fine_grid, 3, 1);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->FineGrid(), fine_grid);
  for (const Schedule& schedule : set->schedules) {
    for (int k = 0; k <= schedule.time_grid.steps(); ++k) {
      EXPECT_EQ(schedule.time_grid[k], fine_grid[schedule.knots[k]]);
    }
  }
  EXPECT_EQ(set->schedules.back().time_grid, fine_grid);
}

}  // namespace
}  // namespace boss
