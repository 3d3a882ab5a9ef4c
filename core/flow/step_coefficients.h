// How a step of a linear multistep method combines what a sampler has. Standard library only.
#pragma once

#include <vector>

namespace boss {

// One step of a linear multistep method: x_new = state x + sum_k velocities[k] v_k, where v_0 is the velocity at x, v_1
// that of the step before, and so on. Euler's step is {1, {h}}. The same for all samples and elements.
struct StepCoefficients {
  double state = 1;
  std::vector<double> velocities;  // at least one, the newest first

  friend bool operator==(const StepCoefficients&, const StepCoefficients&) = default;
};

// Velocities that a step uses at most, its own included.
constexpr int kMaxMultistepOrder = 3;

}  // namespace boss
