// Optimal stepsizes for steps that use the velocity of the step before, too. Standard library only.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace boss {

// The recursion of stage 1 of BOSS over pairs of points, as the cost of a step from i to j depends on the point p
// before i:
//   V_1(p, i) = c[p][i][end], V_k(p, i) = min over j > i of c[p][i][j] + V_(k-1)(i, j),
// for every k up to a limit in one pass. Immutable.
class PairBellmanTable {
 public:
  // first_cost: [k_max + 1], of the first step, from 0 to j, j >= 1. pair_cost: row-major [k_max][k_max + 1][k_max +
  // 1], read for p < i < j only (k_max = 100: 8 MB). O(max_steps k_max^3) time, O(max_steps k_max^2) memory; ties go to
  // the smallest j. \error INVALID_ARGUMENT if k_max or max_steps < 1, a size is wrong, or a cost that is read is not
  // finite or is negative.
  static absl::StatusOr<PairBellmanTable> Solve(absl::Span<const double> first_cost, absl::Span<const double> pair_cost,
                                                int k_max, int max_steps);

  // At most k_max.
  int max_steps() const { return max_steps_; }
  // The least total cost of exactly `steps` steps from 0 to k_max. \pre 1 <= steps <= max_steps().
  double TotalCost(int steps) const { return total_cost_[steps]; }
  // The steps + 1 visited points of that path. \pre 1 <= steps <= max_steps().
  std::vector<int> Knots(int steps) const;

 private:
  PairBellmanTable(int k_max, int max_steps);
  int& Next(int steps, int p, int i) { return next_[(static_cast<size_t>(steps) * k_max_ + p) * (k_max_ + 1) + i]; }
  int Next(int steps, int p, int i) const {
    return next_[(static_cast<size_t>(steps) * k_max_ + p) * (k_max_ + 1) + i];
  }

  int k_max_, max_steps_;
  std::vector<double> total_cost_;  // [max_steps + 1]
  std::vector<int> first_;          // [max_steps + 1]: where the first step of a path goes
  std::vector<int> next_;           // [max_steps][k_max][k_max + 1]: the argmin with (steps, p, i) left
};

}  // namespace boss
