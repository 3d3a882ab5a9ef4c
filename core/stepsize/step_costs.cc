#include "core/stepsize/step_costs.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/stepsize/trajectory_chunks.h"

namespace boss {
namespace {

// Of the velocities' squared norms: keeps the fit away from coefficients of opposite signs that are huge.
constexpr double kRidge = 1e-6;

void AddTo(std::vector<double>& sums, const at::Tensor& matrix) {
  const auto rows = matrix.accessor<double, 2>();
  const int64_t points = matrix.size(0);
  for (int64_t i = 0; i < points; ++i) {
    for (int64_t j = 0; j < points; ++j) sums[i * points + j] += rows[i][j];
  }
}

}  // namespace

StepCosts::StepCosts(int k_max) : k_max_(k_max) {
  const size_t size = static_cast<size_t>(k_max + 1) * (k_max + 1);
  for (std::vector<double>* sums : {&state_state_, &velocity_state_, &velocity_velocity_}) sums->assign(size, 0.0);
}

absl::Status StepCosts::Add(const Trajectory& trajectory) {
  BOSS_RETURN_IF_ERROR(CheckFineGrid(trajectory, k_max_, times_));
  return GuardTorch("step costs", [&]() -> absl::Status {
    const c10::NoGradGuard no_grad;
    at::Tensor xx = at::zeros({k_max_ + 1, k_max_ + 1}, at::kDouble), vx = at::zeros_like(xx), vv = at::zeros_like(xx);
    ForEachChunk(trajectory, [&](const at::Tensor& x, const at::Tensor& v) {
      const at::Tensor padded = at::constant_pad_nd(v, {0, 0, 0, 1});
      xx.addmm_(x, x.t());
      vx.addmm_(padded, x.t());
      vv.addmm_(padded, padded.t());
    });
    AddTo(state_state_, xx);
    AddTo(velocity_state_, vx);
    AddTo(velocity_velocity_, vv);
    num_samples_ += trajectory.states.size(1);
    times_.assign(trajectory.time_grid.times().begin(), trajectory.time_grid.times().end());
    return absl::OkStatus();
  });
}

StepCosts::State StepCosts::SaveState() const {
  const auto matrix = [&](const std::vector<double>& sums) {
    return at::tensor(sums, at::kDouble).view({k_max_ + 1, k_max_ + 1});
  };
  return {{"step_costs.num_samples", at::tensor({num_samples_}, at::kLong)},
          {"step_costs.state_state", matrix(state_state_)},
          {"step_costs.times", at::tensor(times_, at::kDouble)},
          {"step_costs.velocity_state", matrix(velocity_state_)},
          {"step_costs.velocity_velocity", matrix(velocity_velocity_)}};
}

absl::Status StepCosts::RestoreState(const State& state) {
  const auto find = [&](const char* name, at::IntArrayRef shape, at::ScalarType type) -> absl::StatusOr<at::Tensor> {
    const auto found = std::find_if(state.begin(), state.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == state.end() || found->second.sizes() != shape || found->second.scalar_type() != type)
      return absl::InvalidArgumentError(
          absl::StrFormat("step costs: %s is missing or does not fit k_max = %d", name, k_max_));
    return found->second.contiguous();
  };
  const int64_t points = k_max_ + 1;
  BOSS_ASSIGN_OR_RETURN(const at::Tensor num_samples, find("step_costs.num_samples", {1}, at::kLong));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor times, find("step_costs.times", {points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor state_state, find("step_costs.state_state", {points, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor velocity_state,
                        find("step_costs.velocity_state", {points, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor velocity_velocity,
                        find("step_costs.velocity_velocity", {points, points}, at::kDouble));
  const auto values = [](const at::Tensor& tensor) {
    const double* const begin = tensor.const_data_ptr<double>();
    return std::vector<double>(begin, begin + tensor.numel());
  };
  num_samples_ = num_samples.item<int64_t>();
  times_ = values(times);
  state_state_ = values(state_state);
  velocity_state_ = values(velocity_state);
  velocity_velocity_ = values(velocity_velocity);
  return absl::OkStatus();
}

StepCosts::Fit StepCosts::FitFirst(int i, int j) const {
  const double h = times_[j] - times_[i], square = Product(i, i), change = Change(i, j, i);
  const double b = square > 0 ? (change + kRidge * square * h) / (square * (1 + kRidge)) : h;
  const double cost = SquaredChange(i, j) - 2 * b * change + b * b * square;
  return {{1, {b}}, std::max(cost, 0.0) / static_cast<double>(num_samples_)};
}

StepCosts::Fit StepCosts::FitPair(int p, int i, int j) const {
  const double h = times_[j] - times_[i], before = times_[i] - times_[p];
  const double plain_c = -h * h / (2 * before), plain_b = h - plain_c;  // Adams and Bashforth's
  const double ii = Product(i, i), pp = Product(p, p), ip = Product(i, p);
  const double change_i = Change(i, j, i), change_p = Change(i, j, p);
  double b = plain_b, c = plain_c;
  const double determinant = ii * (1 + kRidge) * pp * (1 + kRidge) - ip * ip;
  if (determinant > 0) {
    const double right_i = change_i + kRidge * ii * plain_b, right_p = change_p + kRidge * pp * plain_c;
    b = (right_i * pp * (1 + kRidge) - right_p * ip) / determinant;
    c = (right_p * ii * (1 + kRidge) - right_i * ip) / determinant;
  }
  const double cost =
      SquaredChange(i, j) - 2 * b * change_i - 2 * c * change_p + b * b * ii + 2 * b * c * ip + c * c * pp;
  return {{1, {b, c}}, std::max(cost, 0.0) / static_cast<double>(num_samples_)};
}

absl::StatusOr<std::vector<double>> StepCosts::FirstCosts() const {
  if (num_samples_ == 0) return absl::FailedPreconditionError("step costs: no trajectory was added");
  std::vector<double> costs(k_max_ + 1, 0.0);
  for (int j = 1; j <= k_max_; ++j) costs[j] = FitFirst(0, j).cost;
  return costs;
}

absl::StatusOr<std::vector<double>> StepCosts::PairCosts() const {
  if (num_samples_ == 0) return absl::FailedPreconditionError("step costs: no trajectory was added");
  const size_t points = static_cast<size_t>(k_max_) + 1;
  std::vector<double> costs(k_max_ * points * points, 0.0);
  for (int p = 0; p < k_max_; ++p) {
    for (int i = p + 1; i < k_max_; ++i) {
      for (int j = i + 1; j <= k_max_; ++j) costs[(p * points + i) * points + j] = FitPair(p, i, j).cost;
    }
  }
  return costs;
}

}  // namespace boss
