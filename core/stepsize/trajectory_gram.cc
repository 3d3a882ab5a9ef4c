#include "core/stepsize/trajectory_gram.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

// Of a float64 copy of some elements of all states: 4 MiB.
constexpr int64_t kChunkValues = int64_t{1} << 19;

}  // namespace

TrajectoryGram::TrajectoryGram(int k_max, bool has_pairs) : k_max_(k_max), has_pairs_(has_pairs) {
  const size_t size = static_cast<size_t>(k_max + 1) * (k_max + 1);
  for (std::vector<double>* sums : {&state_state_, &velocity_state_, &velocity_velocity_}) sums->assign(size, 0.0);
}

absl::Status TrajectoryGram::Add(const Trajectory& trajectory) {
  if (trajectory.time_grid.steps() != k_max_) {
    return absl::InvalidArgumentError(absl::StrFormat("trajectory: got %d fine intervals, expected k_max = %d",
                                                      trajectory.time_grid.steps(), k_max_));
  }
  if (!times_.empty() && absl::MakeConstSpan(times_) != trajectory.time_grid.times())
    return absl::InvalidArgumentError("trajectory: got another time grid than that of the first one");
  return GuardTorch("trajectory products", [&]() -> absl::Status {
    const c10::NoGradGuard no_grad;
    const int64_t points = k_max_ + 1;
    const auto view = [&](std::vector<double>& sums, int64_t rows, int64_t columns) {
      return at::from_blob(sums.data(), {points, points}, at::kDouble).slice(0, 0, rows).slice(1, 0, columns);
    };
    at::Tensor xx = view(state_state_, points, points), vx = view(velocity_state_, k_max_, points),
               vv = view(velocity_velocity_, k_max_, k_max_);
    const at::Tensor states = trajectory.states.reshape({points, -1});
    const at::Tensor velocities = trajectory.velocities.reshape({k_max_, -1});
    const int64_t chunk = std::max<int64_t>(1, kChunkValues / points);
    for (int64_t begin = 0; begin < states.size(1); begin += chunk) {
      const int64_t end = std::min(begin + chunk, states.size(1));
      // Without what the middle state has: differences are as they were, and what all states have in common cannot
      // cancel any more.
      const at::Tensor all = states.slice(1, begin, end).to(at::kDouble), x = all - all[k_max_ / 2];
      const at::Tensor v = velocities.slice(1, begin, end).to(at::kDouble);
      xx.addmm_(x, x.t());
      vx.addmm_(v, x.t());
      if (has_pairs_) {
        vv.addmm_(v, v.t());
      } else {
        vv.diagonal().add_(v.square().sum(1));
      }
    }
    num_samples_ += trajectory.states.size(1);
    times_.assign(trajectory.time_grid.times().begin(), trajectory.time_grid.times().end());
    return absl::OkStatus();
  });
}

TrajectoryGram::State TrajectoryGram::SaveState() const {
  const auto matrix = [&](const std::vector<double>& sums) {
    return at::tensor(sums, at::kDouble).view({k_max_ + 1, k_max_ + 1});
  };
  return {{"num_samples", at::tensor({num_samples_}, at::kLong)},
          {"state_state", matrix(state_state_)},
          {"times", at::tensor(times_, at::kDouble)},
          {"velocity_state", matrix(velocity_state_)},
          {"velocity_velocity", matrix(velocity_velocity_)}};
}

absl::Status TrajectoryGram::RestoreState(const State& state) {
  const auto find = [&](const char* name, at::IntArrayRef shape, at::ScalarType type) -> absl::StatusOr<at::Tensor> {
    const auto found = std::find_if(state.begin(), state.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == state.end() || found->second.sizes() != shape || found->second.scalar_type() != type)
      return absl::InvalidArgumentError(
          absl::StrFormat("trajectory products: %s is missing or does not fit k_max = %d", name, k_max_));
    return found->second.contiguous();
  };
  const int64_t points = k_max_ + 1;
  BOSS_ASSIGN_OR_RETURN(const at::Tensor num_samples, find("num_samples", {1}, at::kLong));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor times, find("times", {points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor state_state, find("state_state", {points, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor velocity_state, find("velocity_state", {points, points}, at::kDouble));
  BOSS_ASSIGN_OR_RETURN(const at::Tensor velocity_velocity, find("velocity_velocity", {points, points}, at::kDouble));
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

}  // namespace boss
