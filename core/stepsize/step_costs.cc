#include "core/stepsize/step_costs.h"

#include <algorithm>

namespace boss {
namespace {

// Of the velocities' squared norms: keeps the fit away from coefficients of opposite signs that are huge.
constexpr double kRidge = 1e-6;

}  // namespace

FittedStep FitFirstStep(const TrajectoryGram& gram, int i, int j) {
  const double h = gram.Duration(i, j), square = gram.VelocityProduct(i, i), change = gram.ChangeAlong(i, j, i);
  const double b = square > 0 ? (change + kRidge * square * h) / (square * (1 + kRidge)) : h;
  const double cost = gram.SquaredChange(i, j) - 2 * b * change + b * b * square;
  return {{1, {b}}, std::max(cost, 0.0) / static_cast<double>(gram.num_samples())};
}

FittedStep FitPairStep(const TrajectoryGram& gram, int p, int i, int j) {
  const double h = gram.Duration(i, j), before = gram.Duration(p, i);
  const double plain_c = -h * h / (2 * before), plain_b = h - plain_c;  // Adams and Bashforth's
  const double ii = gram.VelocityProduct(i, i), pp = gram.VelocityProduct(p, p), ip = gram.VelocityProduct(i, p);
  const double change_i = gram.ChangeAlong(i, j, i), change_p = gram.ChangeAlong(i, j, p);
  double b = plain_b, c = plain_c;
  const double determinant = ii * (1 + kRidge) * pp * (1 + kRidge) - ip * ip;
  if (determinant > 0) {
    const double right_i = change_i + kRidge * ii * plain_b, right_p = change_p + kRidge * pp * plain_c;
    b = (right_i * pp * (1 + kRidge) - right_p * ip) / determinant;
    c = (right_p * ii * (1 + kRidge) - right_i * ip) / determinant;
  }
  const double cost =
      gram.SquaredChange(i, j) - 2 * b * change_i - 2 * c * change_p + b * b * ii + 2 * b * c * ip + c * c * pp;
  return {{1, {b, c}}, std::max(cost, 0.0) / static_cast<double>(gram.num_samples())};
}

absl::StatusOr<std::vector<double>> FirstStepCosts(const TrajectoryGram& gram) {
  if (gram.num_samples() == 0) return absl::FailedPreconditionError("step costs: no trajectory was added");
  std::vector<double> costs(gram.k_max() + 1, 0.0);
  for (int j = 1; j <= gram.k_max(); ++j) costs[j] = FitFirstStep(gram, 0, j).cost;
  return costs;
}

absl::StatusOr<std::vector<double>> PairStepCosts(const TrajectoryGram& gram) {
  if (gram.num_samples() == 0 || !gram.has_pairs())
    return absl::FailedPreconditionError("step costs: no trajectory was added, or without products of pairs");
  const int k_max = gram.k_max();
  const size_t points = static_cast<size_t>(k_max) + 1;
  std::vector<double> costs(k_max * points * points, 0.0);
  for (int p = 0; p < k_max; ++p) {
    for (int i = p + 1; i < k_max; ++i) {
      for (int j = i + 1; j <= k_max; ++j) costs[(p * points + i) * points + j] = FitPairStep(gram, p, i, j).cost;
    }
  }
  return costs;
}

}  // namespace boss
