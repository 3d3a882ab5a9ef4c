// Measures that need no data: how far a few-step sampler is from the fine one, and how straight a flow is.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/flow/trajectory.h"

namespace boss {

// Root mean square, over all elements, of the difference between K-step samples and fine samples from the same noises: both [N, ...].
double TrajectoryError(const at::Tensor& samples, const at::Tensor& fine_samples);

// The mean over fine steps and samples of || (x_1 - x_0) - v(x_t, t) ||^2 along a recorded trajectory (Liu et al., ICLR 2023): 0 for a straight flow.
double Straightness(const Trajectory& trajectory);

}  // namespace boss
