#include "core/evaluate/sample_quality.h"

#include <ATen/ATen.h>

#include "core/base/root_mean_square.h"

namespace boss {

double TrajectoryError(const at::Tensor& samples, const at::Tensor& fine_samples) {
  return RootMeanSquare(samples, fine_samples);
}

double Straightness(const Trajectory& trajectory) {
  const int64_t steps = trajectory.velocities.size(0);
  const int64_t samples = trajectory.velocities.size(1);
  const at::Tensor displacement = (trajectory.states[-1] - trajectory.states[0]).to(at::kDouble);
  double sum = 0;
  // Step by step: a float64 copy of all velocities would double the trajectory's memory.
  for (int64_t i = 0; i < steps; ++i) sum += (displacement - trajectory.velocities[i]).square().sum().item<double>();
  return sum / static_cast<double>(steps * samples);
}

}  // namespace boss
