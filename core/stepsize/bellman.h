// Bellman-optimal stepsizes: stage 1 of BOSS (Nguyen, Nguyen, Nguyen, ICLR 2024, arXiv 2312.16414). Standard library only.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace boss {

// The result of the recursion V_1(i) = c[i][end], V_k(i) = min over j > i of c[i][j] + V_(k-1)(j), for every k in one pass. Immutable.
class BellmanTable {
 public:
  // `cost`: row-major (k_max + 1)^2, c[i][j] read for i < j only. O(k_max^3) time, O(k_max^2) memory; ties go to the smallest j.
  // \error INVALID_ARGUMENT if k_max < 1, the size is wrong, or a cost that is read is not finite or is negative.
  static absl::StatusOr<BellmanTable> Solve(absl::Span<const double> cost, int k_max);

  int k_max() const { return k_max_; }
  // The least total cost of exactly `steps` jumps from 0 to k_max. \pre 1 <= steps <= k_max.
  double TotalCost(int steps) const { return total_cost_[steps]; }
  // The steps + 1 visited points of that path: first 0, last k_max. \pre 1 <= steps <= k_max.
  std::vector<int> Knots(int steps) const;

 private:
  explicit BellmanTable(int k_max);

  int k_max_;
  std::vector<double> total_cost_;  // [k_max + 1], by steps
  std::vector<int> next_;           // [k_max + 1][k_max + 1]: the argmin at (steps, i)
};

}  // namespace boss
