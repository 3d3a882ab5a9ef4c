#include "core/flow/time_grid.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"

namespace boss {

absl::StatusOr<TimeGrid> TimeGrid::Create(std::vector<double> times) {
  if (times.size() < 2) {
    return absl::InvalidArgumentError(absl::StrFormat("time grid: got %d times, expected at least 2", times.size()));
  }
  if (times.front() != 0.0 || times.back() != 1.0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("time grid: got %g .. %g, expected the first time to be 0 and the last 1", times.front(), times.back()));
  }
  for (size_t i = 1; i < times.size(); ++i) {
    // Written so that a NaN fails too.
    if (!(times[i] > times[i - 1])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("time grid: times[%d] = %g after %g, expected strictly increasing times", i, times[i], times[i - 1]));
    }
  }
  return TimeGrid(std::move(times));
}

absl::StatusOr<TimeGrid> TimeGrid::At(absl::Span<const int> knots) const {
  std::vector<double> times;
  for (const int knot : knots) {
    if (knot < 0 || knot > steps()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("time grid: got knot %d, expected one of 0 .. %d", knot, steps()));
    }
    times.push_back(times_[knot]);
  }
  return Create(std::move(times));
}

TimeGrid TimeGrid::Uniform(int steps) {
  std::vector<double> times(steps + 1);
  for (int i = 0; i <= steps; ++i) times[i] = static_cast<double>(i) / steps;
  return TimeGrid(std::move(times));
}

}  // namespace boss
