// The cost of every step that uses one or two velocities, with the coefficients that fit it best, from recorded
// trajectories.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/multistep.h"
#include "core/flow/trajectory.h"

namespace boss {

// A step from the fine state x_i to x_j with the velocities v_i and v_p, p < i < j, is x_i + b v_i + c v_p. The scalars
// b and c that make the mean over samples of || x_i + b v_i + c v_p - x_j ||^2 least solve a 2 x 2 system of Gram
// entries of the recorded states and velocities, so that every (p, i, j) is fitted without another pass over the data,
// and without an evaluation. Towards Adams-Bashforth's coefficients it is regularised a little, since v_i and v_p may
// be all but the same.
//
// Float64 throughout. Memory: three (k_max + 1)^2 matrices. Not thread-safe.
class StepCosts {
 public:
  explicit StepCosts(int k_max);

  // \error INVALID_ARGUMENT if the trajectory has another k_max or another time grid than the first one; what LibTorch
  // reports.
  absl::Status Add(const Trajectory& trajectory);

  int64_t num_samples() const { return num_samples_; }

  // What has been accumulated, by names of its own: one that restores it goes on as this one would, bit for bit.
  using State = std::vector<std::pair<std::string, at::Tensor>>;
  State SaveState() const;
  // \error INVALID_ARGUMENT naming a tensor that is missing or of another shape or dtype; then nothing has changed.
  absl::Status RestoreState(const State& state);

  // A fitted step and its cost. \pre an Add was successful; 0 <= i < j <= k_max.
  struct Fit {
    StepCoefficients coefficients;
    double cost = 0;  // squared L2 per sample
  };
  Fit FitFirst(int i, int j) const;
  // \pre 0 <= p < i.
  Fit FitPair(int p, int i, int j) const;

  // For PairBellmanTable. \error FAILED_PRECONDITION before the first Add.
  absl::StatusOr<std::vector<double>> FirstCosts() const;
  absl::StatusOr<std::vector<double>> PairCosts() const;

 private:
  // <x_j - x_i, v_k>, || x_j - x_i ||^2 and <v_i, v_k>, summed over samples and elements.
  double Change(int i, int j, int k) const { return velocity_state_[Index(k, j)] - velocity_state_[Index(k, i)]; }
  double SquaredChange(int i, int j) const {
    return state_state_[Index(i, i)] - 2 * state_state_[Index(i, j)] + state_state_[Index(j, j)];
  }
  double Product(int i, int k) const { return velocity_velocity_[Index(i, k)]; }
  size_t Index(int row, int column) const { return static_cast<size_t>(row) * (k_max_ + 1) + column; }

  int k_max_;
  int64_t num_samples_ = 0;
  std::vector<double> times_;  // empty before the first Add
  // Row-major [k_max + 1][k_max + 1]; the last velocity does not exist and is 0.
  std::vector<double> state_state_, velocity_state_, velocity_velocity_;
};

}  // namespace boss
