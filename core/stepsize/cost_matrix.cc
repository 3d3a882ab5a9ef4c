#include "core/stepsize/cost_matrix.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "core/stepsize/bellman.h"

namespace boss {

absl::StatusOr<std::vector<double>> CostMatrix(const TrajectoryGram& gram) {
  if (gram.num_samples() == 0) return absl::FailedPreconditionError("cost matrix: no trajectory was added");
  const int points = gram.k_max() + 1;
  std::vector<double> cost(static_cast<size_t>(points) * points, 0.0);
  for (int i = 0; i < gram.k_max(); ++i) {
    for (int j = i + 1; j < points; ++j) {
      const double h = gram.Duration(i, j);
      const double squared =
          gram.SquaredChange(i, j) + h * h * gram.VelocityProduct(i, i) - 2 * h * gram.ChangeAlong(i, j, i);
      // Rounding may leave a tiny negative number where the cost is zero.
      cost[static_cast<size_t>(i) * points + j] = std::max(squared, 0.0) / static_cast<double>(gram.num_samples());
    }
  }
  return cost;
}

absl::StatusOr<ScheduleSet> OptimizeSchedules(std::vector<double> cost_matrix, const TimeGrid& fine_grid,
                                              int num_samples, double guidance_scale) {
  const int k_max = fine_grid.steps();
  BOSS_ASSIGN_OR_RETURN(const BellmanTable table, BellmanTable::Solve(cost_matrix, k_max));
  ScheduleSet set;
  set.k_max = k_max;
  if (fine_grid != TimeGrid::Uniform(k_max)) set.fine_grid = fine_grid;
  set.num_samples = num_samples;
  set.guidance_scale = guidance_scale;
  set.cost_matrix = std::move(cost_matrix);
  for (int steps = 1; steps <= k_max; ++steps) {
    Schedule& schedule = set.schedules.emplace_back();
    schedule.knots = table.Knots(steps);
    schedule.total_cost = table.TotalCost(steps);
    BOSS_ASSIGN_OR_RETURN(schedule.time_grid, fine_grid.At(schedule.knots));
  }
  return set;
}

}  // namespace boss
