#include "core/stepsize/cost_matrix.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/stepsize/bellman.h"
#include "core/stepsize/trajectory_chunks.h"

namespace boss {

CostMatrixAccumulator::CostMatrixAccumulator(int k_max)
    : k_max_(k_max),
      state_state_(at::zeros({k_max + 1, k_max + 1}, at::kDouble)),
      velocity_state_(at::zeros({k_max, k_max + 1}, at::kDouble)),
      velocity_velocity_(at::zeros({k_max}, at::kDouble)) {}

absl::Status CostMatrixAccumulator::Add(const Trajectory& trajectory) {
  BOSS_RETURN_IF_ERROR(CheckFineGrid(trajectory, k_max_, times_));
  return GuardTorch("cost matrix", [&]() -> absl::Status {
    const c10::NoGradGuard no_grad;
    ForEachChunk(trajectory, [&](const at::Tensor& x, const at::Tensor& v) {
      state_state_.addmm_(x, x.t());
      velocity_state_.addmm_(v, x.t());
      velocity_velocity_.add_(v.square().sum(1));
    });
    num_samples_ += trajectory.states.size(1);
    times_.assign(trajectory.time_grid.times().begin(), trajectory.time_grid.times().end());
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<double>> CostMatrixAccumulator::CostMatrix() const {
  if (num_samples_ == 0) return absl::FailedPreconditionError("cost matrix: no trajectory was added");
  const auto xx = state_state_.accessor<double, 2>();
  const auto vx = velocity_state_.accessor<double, 2>();
  const auto vv = velocity_velocity_.accessor<double, 1>();
  const int points = k_max_ + 1;
  std::vector<double> cost(static_cast<size_t>(points) * points, 0.0);
  for (int i = 0; i < k_max_; ++i) {
    for (int j = i + 1; j < points; ++j) {
      const double h = times_[j] - times_[i];
      const double squared = (xx[i][i] - 2 * xx[i][j] + xx[j][j]) + h * h * vv[i] + 2 * h * (vx[i][i] - vx[i][j]);
      // Rounding may leave a tiny negative number where the cost is zero.
      cost[static_cast<size_t>(i) * points + j] = std::max(squared, 0.0) / static_cast<double>(num_samples_);
    }
  }
  return cost;
}

CostMatrixAccumulator::State CostMatrixAccumulator::SaveState() const {
  return {{"num_samples", at::tensor({num_samples_}, at::kLong)},
          {"state_state", state_state_.clone()},
          {"times", at::tensor(times_, at::kDouble)},
          {"velocity_state", velocity_state_.clone()},
          {"velocity_velocity", velocity_velocity_.clone()}};
}

absl::Status CostMatrixAccumulator::RestoreState(const State& state) {
  const auto find = [&](const char* name, at::IntArrayRef shape, at::ScalarType type) -> absl::StatusOr<at::Tensor> {
    const auto found = std::find_if(state.begin(), state.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == state.end() || found->second.sizes() != shape || found->second.scalar_type() != type)
      return absl::InvalidArgumentError(
          absl::StrFormat("cost matrix state: %s is missing or does not fit k_max = %d", name, k_max_));
    return found->second.clone();
  };
  const int64_t intervals = k_max_, points = intervals + 1;
  BOSS_ASSIGN_OR_RETURN(const at::Tensor num_samples, find("num_samples", {1}, at::kLong));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor times, find("times", {points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(at::Tensor state_state, find("state_state", {points, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(at::Tensor velocity_state, find("velocity_state", {intervals, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(at::Tensor velocity_velocity, find("velocity_velocity", {intervals}, at::kDouble));
  num_samples_ = num_samples.item<int64_t>();
  times_.assign(times.const_data_ptr<double>(), times.const_data_ptr<double>() + points);
  state_state_ = std::move(state_state);
  velocity_state_ = std::move(velocity_state);
  velocity_velocity_ = std::move(velocity_velocity);
  return absl::OkStatus();
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
    std::vector<double> times;
    for (int knot : schedule.knots) times.push_back(fine_grid[knot]);
    BOSS_ASSIGN_OR_RETURN(schedule.time_grid, TimeGrid::Create(std::move(times)));
  }
  return set;
}

}  // namespace boss
