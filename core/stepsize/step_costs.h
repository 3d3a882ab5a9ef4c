// The cost of every step that uses one or two velocities, with the coefficients that fit it best, from recorded
// trajectories.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/step_coefficients.h"
#include "core/stepsize/trajectory_gram.h"

namespace boss {

// A step from the fine state x_i to x_j with the velocities v_i and v_p, p < i < j, is x_i + b v_i + c v_p. The scalars
// b and c that make the mean over samples of || x_i + b v_i + c v_p - x_j ||^2 least solve a 2 x 2 system of Gram
// entries, so that every (p, i, j) is fitted without another pass over the data, and without an evaluation. Towards
// Adams-Bashforth's coefficients it is regularised a little, since v_i and v_p may be all but the same.
struct FittedStep {
  StepCoefficients coefficients;
  double cost = 0;  // squared L2 per sample
};
// With b alone. \pre gram.num_samples() > 0, 0 <= i < j <= k_max.
FittedStep FitFirstStep(const TrajectoryGram& gram, int i, int j);
// \pre gram.num_samples() > 0, gram.has_pairs(), 0 <= p < i < j <= k_max.
FittedStep FitPairStep(const TrajectoryGram& gram, int p, int i, int j);

// Costs for PairBellmanTable. \error FAILED_PRECONDITION before the first Add, and for PairStepCosts without has_pairs.
absl::StatusOr<std::vector<double>> FirstStepCosts(const TrajectoryGram& gram);
absl::StatusOr<std::vector<double>> PairStepCosts(const TrajectoryGram& gram);

}  // namespace boss
