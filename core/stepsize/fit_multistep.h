// Coefficients for the steps of a sampler that runs on given times, fitted from the states that it is really in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/flow/multistep.h"
#include "core/flow/velocity_model.h"

namespace boss {

struct MultistepFitOptions {
  int max_order = kMaxMultistepOrder;  // velocities that a step may use, at least 1
  double held_out_share = 0.25;   // of the noises, in (0, 1): they choose among fits, and judge
  int64_t batch_size = 64;        // samples of one evaluation, at least 1
};

// Of `count` noises, at least 2, how many are fitted to: the first ones. The others are held out, at least one.
int64_t FittedNoises(int64_t count, const MultistepFitOptions& options);

struct MultistepFit {
  std::vector<StepCoefficients> coefficients;  // one a step
  // Root mean square error of the sample at t = 1 against the fine one, over the noises that were fitted and those held
  // out. Not finite where the sampler diverges.
  double fit_error = 0;
  double held_out_error = 0;
};

// Runs the sampler on `time_grid` from the noises fine_states[0] and fits each step in turn: from the states that it has really reached, and the
// velocities there, to the fine states at the step's end. So a step also corrects what the steps before it have left over, which costs of single
// steps do not know of. Evaluations: K a noise.
//
// A step's candidates are Adams-Bashforth's coefficients and least-squares fits of every order up to max_order, with the state's coefficient
// fixed to 1 or free, regularised towards Adams-Bashforth's by several strengths; the one that is best on the held-out noises is taken. All fits of
// a step come from two small Gram matrices in float64: of the noises that are fitted to, and of those held out.
//
// fine_states: [K + 1, N, ...] float32 or float64 on the CPU, N >= 2: the fine trajectory at the grid's times.
// `condition`: of the N noises.
// \error INVALID_ARGUMENT for shapes and options that do not fit; what `executor` or LibTorch reports.
absl::StatusOr<MultistepFit> FitMultistep(const VelocityModel& model, const at::Tensor& fine_states, const Condition& condition,
                                          const TimeGrid& time_grid, const MultistepFitOptions& options, StepExecutor& executor);

// The samples at t = 1 of a multistep sampler, like `noise`: [N, ...] float32 or float64 on the CPU, N >= 1. \pre one
// entry of `coefficients` a step, none of more velocities than there are. \error INVALID_ARGUMENT for a batch_size
// below 1; what `executor` or LibTorch reports.
absl::StatusOr<at::Tensor> SolveMultistep(const VelocityModel& model, const at::Tensor& noise, const Condition& condition,
                                          const TimeGrid& time_grid, absl::Span<const StepCoefficients> coefficients, int64_t batch_size,
                                          StepExecutor& executor);

}  // namespace boss
