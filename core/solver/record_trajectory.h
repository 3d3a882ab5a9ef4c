// Fine Euler runs, recorded for stage 1 and for straightening.
#pragma once

#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/flow/trajectory.h"
#include "core/flow/velocity_model.h"

namespace boss {

// Euler from `noise` [B, ...] over the uniform grid of `k_max` intervals, recording every state and velocity on the CPU: 2 B k_max + B states of
// memory. Each evaluation goes through `executor`.
// \error INVALID_ARGUMENT if k_max < 1; what `executor` or LibTorch reports.
absl::StatusOr<Trajectory> RecordTrajectory(const VelocityModel& model, const at::Tensor& noise, const Condition& condition, int k_max,
                                            StepExecutor& executor);

}  // namespace boss
