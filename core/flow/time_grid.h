// The times at which a solver evaluates the velocity.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace boss {

// Increasing float64 times in [0, 1], first 0 (noise), last 1 (data); steps() + 1 of them. Immutable.
class TimeGrid {
 public:
  // The grid {0, 1} of a single step.
  TimeGrid() : times_{0.0, 1.0} {}

  // \error INVALID_ARGUMENT if `times` has fewer than two entries, does not start at 0 and end at 1, is not finite or not strictly increasing.
  static absl::StatusOr<TimeGrid> Create(std::vector<double> times);

  // times[i] = i / steps. \pre steps >= 1.
  static TimeGrid Uniform(int steps);

  // The coarser grid of the points `knots`: times[k] = (*this)[knots[k]]. \error INVALID_ARGUMENT if a knot is not in
  // [0, steps()]; as Create, so that the knots must rise from 0 to steps().
  absl::StatusOr<TimeGrid> At(absl::Span<const int> knots) const;

  int steps() const { return static_cast<int>(times_.size()) - 1; }
  double operator[](int i) const { return times_[i]; }
  double StepSize(int i) const { return times_[i + 1] - times_[i]; }
  absl::Span<const double> times() const { return times_; }

  friend bool operator==(const TimeGrid&, const TimeGrid&) = default;

 private:
  explicit TimeGrid(std::vector<double> times) : times_(std::move(times)) {}

  std::vector<double> times_;
};

}  // namespace boss
