// How recorded trajectories go into sums of products.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/flow/trajectory.h"

namespace boss {

// \error INVALID_ARGUMENT if the trajectory has another k_max, or other times than `times`, unless these are empty.
absl::Status CheckFineGrid(const Trajectory& trajectory, int k_max, const std::vector<double>& times);

// Calls `use` with some elements of all samples at a time, in float64, so that copies take a few MB: x [k_max + 1,
// elements], the states without what the middle state has, and v [k_max, elements], the velocities. Differences of
// states are as they were, and what all states have in common cannot cancel any more. Throws what LibTorch throws.
void ForEachChunk(const Trajectory& trajectory, absl::FunctionRef<void(const at::Tensor& x, const at::Tensor& v)> use);

}  // namespace boss
