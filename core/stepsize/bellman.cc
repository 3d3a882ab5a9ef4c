#include "core/stepsize/bellman.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace boss {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

BellmanTable::BellmanTable(int k_max)
    : k_max_(k_max), total_cost_(k_max + 1, kInfinity), next_(static_cast<size_t>(k_max + 1) * (k_max + 1), 0) {}

absl::StatusOr<BellmanTable> BellmanTable::Solve(absl::Span<const double> cost, int k_max) {
  if (k_max < 1) return absl::InvalidArgumentError(absl::StrFormat("k_max: got %d, expected at least 1", k_max));
  const size_t points = static_cast<size_t>(k_max) + 1;
  if (cost.size() != points * points) {
    return absl::InvalidArgumentError(absl::StrFormat("cost matrix: got %d entries, expected %d", cost.size(), points * points));
  }
  for (size_t i = 0; i < points; ++i) {
    for (size_t j = i + 1; j < points; ++j) {
      const double c = cost[i * points + j];
      if (!std::isfinite(c) || c < 0) {
        return absl::InvalidArgumentError(absl::StrFormat("cost[%d][%d]: got %g, expected a finite number of at least 0", i, j, c));
      }
    }
  }

  BellmanTable table(k_max);
  // value[i] = V_(k-1)(i): the least cost from i to the end in exactly k - 1 jumps, infinite where there are too few points left.
  std::vector<double> value(points, kInfinity), next_value(points, kInfinity);
  for (size_t i = 0; i + 1 < points; ++i) {
    value[i] = cost[i * points + k_max];
    table.next_[points + i] = k_max;
  }
  table.total_cost_[1] = value[0];
  for (int k = 2; k <= k_max; ++k) {
    // From i, k jumps need k points after it, and the first jump must leave k - 1.
    const int last_start = k_max - k;
    for (int i = 0; i <= last_start; ++i) {
      const double* row = cost.data() + i * points;
      double best = kInfinity;
      int argmin = i + 1;
      for (int j = i + 1; j <= k_max - (k - 1); ++j) {
        const double total = row[j] + value[j];
        if (total < best) {
          best = total;
          argmin = j;
        }
      }
      next_value[i] = best;
      table.next_[k * points + i] = argmin;
    }
    for (size_t i = last_start + 1; i < points; ++i) next_value[i] = kInfinity;
    value.swap(next_value);
    table.total_cost_[k] = value[0];
  }
  return table;
}

std::vector<int> BellmanTable::Knots(int steps) const {
  std::vector<int> knots{0};
  for (int k = steps; k >= 1; --k) knots.push_back(next_[static_cast<size_t>(k) * (k_max_ + 1) + knots.back()]);
  return knots;
}

}  // namespace boss
