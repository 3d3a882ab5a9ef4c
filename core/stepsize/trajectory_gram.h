// Sums of products of recorded states and velocities: all that the costs of stage 1 need to know of the trajectories.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/flow/trajectory.h"

namespace boss {

// The Gram matrices <x_i, x_j>, <v_k, x_j> and <v_i, v_k>, summed over samples and elements in float64, batch by batch:
// costs next to the diagonal are smaller than the largest by up to 1e12. Memory: three (k_max + 1)^2 matrices. Not
// thread-safe.
class TrajectoryGram {
 public:
  // has_pairs: whether products of two different velocities are summed, which PairStepCosts needs; otherwise 0.
  TrajectoryGram(int k_max, bool has_pairs);

  // \error INVALID_ARGUMENT if the trajectory has another k_max or another time grid than the first one; what LibTorch
  // reports.
  absl::Status Add(const Trajectory& trajectory);

  int k_max() const { return k_max_; }
  bool has_pairs() const { return has_pairs_; }
  int64_t num_samples() const { return num_samples_; }

  // t_j - t_i, || x_j - x_i ||^2, <x_j - x_i, v_k> and <v_i, v_k>. \pre an Add was successful.
  double Duration(int i, int j) const { return times_[j] - times_[i]; }
  double SquaredChange(int i, int j) const {
    return state_state_[Index(i, i)] - 2 * state_state_[Index(i, j)] + state_state_[Index(j, j)];
  }
  double ChangeAlong(int i, int j, int k) const { return velocity_state_[Index(k, j)] - velocity_state_[Index(k, i)]; }
  double VelocityProduct(int i, int k) const { return velocity_velocity_[Index(i, k)]; }

  // What has been accumulated, by name: one that restores it goes on as this one would, bit for bit.
  using State = std::vector<std::pair<std::string, at::Tensor>>;
  State SaveState() const;
  // \error INVALID_ARGUMENT naming a tensor that is missing or of another shape or dtype; then nothing has changed.
  absl::Status RestoreState(const State& state);

 private:
  size_t Index(int row, int column) const { return static_cast<size_t>(row) * (k_max_ + 1) + column; }

  int k_max_;
  bool has_pairs_;
  int64_t num_samples_ = 0;
  std::vector<double> times_;  // empty before the first Add
  // Row-major [k_max + 1][k_max + 1]; the last velocity does not exist and is 0.
  std::vector<double> state_state_, velocity_state_, velocity_velocity_;
};

}  // namespace boss
