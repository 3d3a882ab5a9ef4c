#include "core/solver/record_trajectory.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <utility>
#include <vector>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss {

absl::StatusOr<Trajectory> RecordTrajectory(const VelocityModel& model, const at::Tensor& noise, const Condition& condition, TimeGrid fine_grid,
                                            StepExecutor& executor) {
  const int k_max = fine_grid.steps();
  Trajectory trajectory;
  trajectory.time_grid = std::move(fine_grid);
  const Condition on_device = condition.To(model.device());
  std::vector<int64_t> shape = noise.sizes().vec();
  shape.insert(shape.begin(), k_max + 1);
  at::Tensor x;
  BOSS_RETURN_IF_ERROR(GuardTorch("recording a trajectory", [&]() -> absl::Status {
    trajectory.states = at::empty(shape);
    shape[0] = k_max;
    trajectory.velocities = at::empty(shape);
    trajectory.states[0].copy_(noise);
    x = noise.to(model.device());
    return absl::OkStatus();
  }));
  for (int i = 0; i < k_max; ++i) {
    BOSS_RETURN_IF_ERROR(executor.Run([&] {
      return GuardTorch("recording a trajectory", [&]() -> absl::Status {
        const c10::NoGradGuard no_grad;
        const at::Tensor t = at::full({x.size(0)}, trajectory.time_grid[i], x.options());
        const at::Tensor velocity = GuidedVelocity(model, x, t, on_device);
        x = at::add(x, velocity, trajectory.time_grid.StepSize(i));
        trajectory.velocities[i].copy_(velocity);
        trajectory.states[i + 1].copy_(x);
        return absl::OkStatus();
      });
    }));
  }
  return trajectory;
}

}  // namespace boss
