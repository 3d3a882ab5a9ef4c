#include "core/flow/multistep.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace boss {
namespace {

// The integral from 0 to h of the polynomial of degree n - 1 that is 1 at points[k] and 0 at the other points.
double LagrangeIntegral(absl::Span<const double> points, size_t k, double h) {
  // Its coefficients, by rising power.
  std::vector<double> polynomial{1.0};
  for (size_t other = 0; other < points.size(); ++other) {
    if (other == k) continue;
    const double scale = 1.0 / (points[k] - points[other]);
    std::vector<double> product(polynomial.size() + 1, 0.0);
    for (size_t power = 0; power < polynomial.size(); ++power) {
      product[power + 1] += polynomial[power] * scale;
      product[power] -= polynomial[power] * points[other] * scale;
    }
    polynomial = std::move(product);
  }
  double integral = 0, power_of_h = 1;
  for (size_t power = 0; power < polynomial.size(); ++power) {
    power_of_h *= h;
    integral += polynomial[power] * power_of_h / static_cast<double>(power + 1);
  }
  return integral;
}

}  // namespace

std::vector<StepCoefficients> AdamsBashforth(const TimeGrid& time_grid, int order) {
  std::vector<StepCoefficients> steps;
  for (int i = 0; i < time_grid.steps(); ++i) {
    std::vector<double> points;  // times of the velocities, from the step's start
    for (int k = 0; k <= std::min(i, order - 1); ++k) points.push_back(time_grid[i - k] - time_grid[i]);
    StepCoefficients& step = steps.emplace_back();
    for (size_t k = 0; k < points.size(); ++k)
      step.velocities.push_back(LagrangeIntegral(points, k, time_grid.StepSize(i)));
  }
  return steps;
}

int MostVelocities(absl::Span<const StepCoefficients> steps) {
  size_t most = 1;
  for (const StepCoefficients& step : steps) most = std::max(most, step.velocities.size());
  return static_cast<int>(most);
}

at::Tensor MultistepUpdate(const at::Tensor& x, absl::Span<const at::Tensor> velocities,
                           const StepCoefficients& coefficients) {
  at::Tensor sum = coefficients.state == 1 ? x : x * coefficients.state;
  for (size_t k = 0; k < coefficients.velocities.size(); ++k)
    sum = at::add(sum, velocities[k], coefficients.velocities[k]);
  return sum;
}

}  // namespace boss
