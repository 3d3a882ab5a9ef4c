#include "core/stepsize/pair_bellman.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace boss {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool IsCost(double cost) { return std::isfinite(cost) && cost >= 0; }

}  // namespace

PairBellmanTable::PairBellmanTable(int k_max, int max_steps)
    : k_max_(k_max),
      max_steps_(max_steps),
      total_cost_(max_steps + 1, kInfinity),
      first_(max_steps + 1, k_max),
      next_(static_cast<size_t>(max_steps) * k_max * (k_max + 1), 0) {}

absl::StatusOr<PairBellmanTable> PairBellmanTable::Solve(absl::Span<const double> first_cost,
                                                         absl::Span<const double> pair_cost, int k_max, int max_steps) {
  if (k_max < 1) return absl::InvalidArgumentError(absl::StrFormat("k_max: got %d, expected at least 1", k_max));
  if (max_steps < 1)
    return absl::InvalidArgumentError(absl::StrFormat("max_steps: got %d, expected at least 1", max_steps));
  const size_t points = static_cast<size_t>(k_max) + 1;
  if (first_cost.size() != points || pair_cost.size() != static_cast<size_t>(k_max) * points * points) {
    return absl::InvalidArgumentError(absl::StrFormat("costs: got %d and %d entries, expected %d and %d",
                                                      first_cost.size(), pair_cost.size(), points,
                                                      k_max * points * points));
  }
  const auto cost = [&](int p, int i, int j) { return pair_cost[(p * points + i) * points + j]; };
  for (int j = 1; j <= k_max; ++j) {
    if (!IsCost(first_cost[j])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("first cost[%d]: got %g, expected a finite number of at least 0", j, first_cost[j]));
    }
  }
  for (int p = 0; p < k_max; ++p) {
    for (int i = p + 1; i < k_max; ++i) {
      for (int j = i + 1; j <= k_max; ++j) {
        if (!IsCost(cost(p, i, j))) {
          return absl::InvalidArgumentError(absl::StrFormat(
              "pair cost[%d][%d][%d]: got %g, expected a finite number of at least 0", p, i, j, cost(p, i, j)));
        }
      }
    }
  }

  PairBellmanTable table(k_max, std::min(max_steps, k_max));
  // value[p][i] = V_(k-1)(p, i), infinite where there are too few points left. V_0 is 0 at the end alone.
  std::vector<double> value(k_max * points, kInfinity), next_value(k_max * points, kInfinity);
  for (int p = 0; p < k_max; ++p) value[p * points + k_max] = 0;
  for (int k = 1; k <= table.max_steps_; ++k) {
    for (int j = 1; j <= k_max; ++j) {
      const double total = first_cost[j] + value[j];  // p = 0: the first point
      if (total < table.total_cost_[k]) {
        table.total_cost_[k] = total;
        table.first_[k] = j;
      }
    }
    if (k == table.max_steps_) break;
    std::fill(next_value.begin(), next_value.end(), kInfinity);
    for (int p = 0; p < k_max; ++p) {
      for (int i = p + 1; i <= k_max - k; ++i) {
        double best = kInfinity;
        int argmin = i + 1;
        for (int j = i + 1; j <= k_max - (k - 1); ++j) {
          const double total = cost(p, i, j) + value[i * points + j];
          if (total < best) {
            best = total;
            argmin = j;
          }
        }
        next_value[p * points + i] = best;
        table.Next(k, p, i) = argmin;
      }
    }
    value.swap(next_value);
  }
  return table;
}

std::vector<int> PairBellmanTable::Knots(int steps) const {
  std::vector<int> knots{0, first_[steps]};
  for (int left = steps - 1; left >= 1; --left) {
    const int p = knots[knots.size() - 2], i = knots.back();
    knots.push_back(Next(left, p, i));
  }
  return knots;
}

}  // namespace boss
