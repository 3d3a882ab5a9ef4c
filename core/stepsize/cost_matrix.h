// The cost of every Euler jump on the fine grid, from recorded trajectories.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/schedule.h"
#include "core/flow/trajectory.h"

namespace boss {

// c[i][j] = mean over samples of || x_i + (t_j - t_i) v_i - x_j ||^2 for i < j (stage 1 of BOSS, arXiv 2312.16414), out
// of the Gram matrices x.x, x.v and v.v, accumulated in float64 batch by batch: entries next to the diagonal are
// smaller than the largest by up to 1e12. Memory: four (k_max + 1)^2 matrices. Not thread-safe.
class CostMatrixAccumulator {
 public:
  explicit CostMatrixAccumulator(int k_max);

  // \error INVALID_ARGUMENT if the trajectory has another k_max or another time grid than the first one; what LibTorch
  // reports.
  absl::Status Add(const Trajectory& trajectory);

  int64_t num_samples() const { return num_samples_; }
  // Row-major (k_max + 1)^2, upper triangular. \error FAILED_PRECONDITION before the first Add.
  absl::StatusOr<std::vector<double>> CostMatrix() const;

  // What has been accumulated, by name: an accumulator that restores it goes on as this one would, bit for bit.
  using State = std::vector<std::pair<std::string, at::Tensor>>;
  State SaveState() const;
  // \error INVALID_ARGUMENT naming a tensor that is missing or of another shape or dtype; then nothing has changed.
  absl::Status RestoreState(const State& state);

 private:
  int k_max_;
  int64_t num_samples_ = 0;
  std::vector<double> times_;     // empty before the first Add
  at::Tensor state_state_;        // [k_max + 1, k_max + 1] float64
  at::Tensor velocity_state_;     // [k_max, k_max + 1]
  at::Tensor velocity_velocity_;  // [k_max]
};

// Runs the recursion on a cost matrix over the times of `fine_grid` and names the schedule of every K. \error as
// BellmanTable::Solve.
absl::StatusOr<ScheduleSet> OptimizeSchedules(std::vector<double> cost_matrix, const TimeGrid& fine_grid,
                                              int num_samples, double guidance_scale);

}  // namespace boss
