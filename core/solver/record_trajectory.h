// Fine Euler runs, recorded for stage 1 and for straightening.
#pragma once

#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/flow/trajectory.h"
#include "core/flow/velocity_model.h"

namespace boss {

// Euler from `noise` [B, ...] over `fine_grid`, recording every state and velocity on the CPU: 2 B k_max + B states of memory for k_max intervals. Each
// evaluation goes through `executor`.
// \error what `executor` or LibTorch reports.
absl::StatusOr<Trajectory> RecordTrajectory(const VelocityModel& model, const at::Tensor& noise, const Condition& condition, TimeGrid fine_grid,
                                            StepExecutor& executor);

}  // namespace boss
