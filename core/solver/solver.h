// Solvers of the flow's ordinary differential equation dx/dt = u_t(x) from noise (t = 0) to data (t = 1).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/flow/schedule.h"
#include "core/flow/time_grid.h"
#include "core/flow/velocity_model.h"

namespace boss {

struct SolverOptions {
  SolverKind solver = SolverKind::kEuler;
  // Solver steps of euler, heun and multistep; rk45 chooses its own times in [0, 1].
  TimeGrid time_grid;
  // multistep only, one a step: no step uses more velocities than there are.
  std::vector<StepCoefficients> coefficients;
  // rk45 only: a step is accepted when the root mean square over all elements of error / (atol + rtol max(|x|, |x_new|)) is at most 1.
  double rtol = 1e-5;
  double atol = 1e-5;
};

// One batch on its way through the solver, one solver step a call, so that a caller decides what runs between steps.
//   euler: x += h v(x, t).
//   heun:  the explicit trapezoidal rule, two evaluations a step.
//   multistep: one evaluation a step, and those of the steps before (core/flow/multistep.h).
//   rk45:  Dormand and Prince (1980), adaptive, first-same-as-last; one step size for the whole batch. One attempt a
//   Step(), accepted or not.
// Not thread-safe. Keeps a reference to `model`.
class SolverRun {
 public:
  // x_0: [B, ...] on the model's device.
  SolverRun(const VelocityModel& model, at::Tensor x_0, Condition condition, SolverOptions options);

  bool done() const { return t_ >= 1.0; }
  // \pre !done(). \error from LibTorch, as GuardTorch maps it; INTERNAL if rk45's step size underflows.
  absl::Status Step();

  double t() const { return t_; }
  int steps_done() const { return steps_done_; }
  // Velocity evaluations per sample so far (guidance counts two a call).
  int64_t evaluations() const { return evaluations_; }
  // [B, ...], the state at t(). A Step() replaces it and never writes into it.
  const at::Tensor& x() const { return x_; }

 private:
  at::Tensor Evaluate(const at::Tensor& x, double t);
  void EulerStep();
  void HeunStep();
  void MultistepStep();
  absl::Status Rk45Step();

  const VelocityModel& model_;
  const Condition condition_;
  const SolverOptions options_;
  at::Tensor x_;
  double t_ = 0;
  int steps_done_ = 0;
  int64_t evaluations_ = 0;
  std::vector<at::Tensor> velocities_;  // multistep: the newest first, as many as any step uses
  double rk45_step_ = 0;      // next step size to try; 0 before the first
  at::Tensor rk45_velocity_;  // velocity at (x_, t_), kept from the last accepted step
};

// Runs to t = 1, each step through `executor`, in batches of at most `batch_size` samples. Returns x_1 [N, ...] on x_0's device. x_0 may lie on
// another device than the model.
absl::StatusOr<at::Tensor> Solve(const VelocityModel& model, const at::Tensor& x_0, const Condition& condition, const SolverOptions& options,
                                 int64_t batch_size, StepExecutor& executor);

}  // namespace boss
