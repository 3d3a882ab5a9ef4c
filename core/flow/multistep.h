// Solver steps that use the velocities that a sampler has paid for already.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/types/span.h"
#include "core/flow/step_coefficients.h"
#include "core/flow/time_grid.h"

namespace boss {

// Adams-Bashforth's coefficients of every step of `time_grid` (Bashforth and Adams, 1883; for steps of any size): the
// integral over the step of the polynomial through the last `order` velocities, of as many as there are in the first
// steps. \pre order >= 1.
std::vector<StepCoefficients> AdamsBashforth(const TimeGrid& time_grid, int order);

// How many velocities a step uses at most, its own included; 1 if there is no step.
int MostVelocities(absl::Span<const StepCoefficients> steps);

// x [B, ...] moved on by one step. `velocities`: like x, the newest first, at least as many as the coefficients name.
// With {1, {h}} the result is Euler's, bit for bit.
at::Tensor MultistepUpdate(const at::Tensor& x, absl::Span<const at::Tensor> velocities,
                           const StepCoefficients& coefficients);

}  // namespace boss
