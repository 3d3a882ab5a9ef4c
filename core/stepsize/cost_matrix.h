// The cost of every Euler jump on the fine grid, from recorded trajectories.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/schedule.h"
#include "core/stepsize/trajectory_gram.h"

namespace boss {

// c[i][j] = mean over samples of || x_i + (t_j - t_i) v_i - x_j ||^2 for i < j (stage 1 of BOSS, arXiv 2312.16414).
// Row-major (k_max + 1)^2, upper triangular. \error FAILED_PRECONDITION before the first Add.
absl::StatusOr<std::vector<double>> CostMatrix(const TrajectoryGram& gram);

// Runs the recursion on a cost matrix over the times of `fine_grid` and names the schedule of every K. \error as
// BellmanTable::Solve.
absl::StatusOr<ScheduleSet> OptimizeSchedules(std::vector<double> cost_matrix, const TimeGrid& fine_grid,
                                              int num_samples, double guidance_scale);

}  // namespace boss
