#include "core/stepsize/pair_bellman.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace boss {
namespace {

struct Costs {
  int k_max;
  std::vector<double> first, pair;
  double& Pair(int p, int i, int j) { return pair[(static_cast<size_t>(p) * (k_max + 1) + i) * (k_max + 1) + j]; }
};

Costs RandomCosts(int k_max, int seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  const size_t points = static_cast<size_t>(k_max) + 1;
  Costs costs{k_max, std::vector<double>(points), std::vector<double>(k_max * points * points)};
  for (double& cost : costs.first) cost = uniform(random);
  for (double& cost : costs.pair) cost = uniform(random);
  return costs;
}

double PathCost(Costs& costs, const std::vector<int>& knots) {
  double total = costs.first[knots[1]];
  for (size_t k = 2; k < knots.size(); ++k) total += costs.Pair(knots[k - 2], knots[k - 1], knots[k]);
  return total;
}

TEST(PairBellman, AgreesWithEveryPathOnSmallGrids) {
  for (int seed = 0; seed < 5; ++seed) {
    Costs costs = RandomCosts(7, seed);
    const auto table = PairBellmanTable::Solve(costs.first, costs.pair, 7, 7);
    ASSERT_TRUE(table.ok()) << table.status();
    for (int steps = 1; steps <= 7; ++steps) {
      double least = std::numeric_limits<double>::infinity();
      std::vector<int> knots{0};
      const std::function<void()> extend = [&] {
        const int left = steps - static_cast<int>(knots.size()) + 1;
        if (left == 1) {
          knots.push_back(7);
          least = std::min(least, PathCost(costs, knots));
          knots.pop_back();
          return;
        }
        for (int j = knots.back() + 1; j <= 7 - (left - 1); ++j) {
          knots.push_back(j);
          extend();
          knots.pop_back();
        }
      };
      extend();
      EXPECT_NEAR(table->TotalCost(steps), least, 1e-12) << steps;
      const std::vector<int> path = table->Knots(steps);
      ASSERT_EQ(path.size(), static_cast<size_t>(steps) + 1);
      EXPECT_EQ(path.front(), 0);
      EXPECT_EQ(path.back(), 7);
      EXPECT_NEAR(PathCost(costs, path), least, 1e-12) << steps;
    }
  }
}

TEST(PairBellman, TiesGoToTheSmallestPoint) {
  const int k_max = 5;
  const size_t points = k_max + 1;
  const auto table = PairBellmanTable::Solve(std::vector<double>(points, 1.0),
                                             std::vector<double>(k_max * points * points, 1.0), k_max, 3);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->Knots(3), (std::vector<int>{0, 1, 2, 5}));
}

TEST(PairBellman, StepsAreBoundedByTheGrid) {
  Costs costs = RandomCosts(3, 1);
  const auto table = PairBellmanTable::Solve(costs.first, costs.pair, 3, 100);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->max_steps(), 3);
  EXPECT_EQ(table->Knots(3), (std::vector<int>{0, 1, 2, 3}));
}

TEST(PairBellman, RefusesWhatIsNoCost) {
  Costs costs = RandomCosts(4, 1);
  EXPECT_EQ(PairBellmanTable::Solve(costs.first, costs.pair, 5, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PairBellmanTable::Solve(costs.first, costs.pair, 0, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PairBellmanTable::Solve(costs.first, costs.pair, 4, 0).status().code(), absl::StatusCode::kInvalidArgument);
  Costs negative = costs;
  negative.Pair(1, 2, 3) = -1;
  EXPECT_EQ(PairBellmanTable::Solve(negative.first, negative.pair, 4, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
  Costs unbounded = costs;
  unbounded.first[2] = std::nan("");
  EXPECT_EQ(PairBellmanTable::Solve(unbounded.first, unbounded.pair, 4, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
  // What no path uses may be anything.
  Costs unused = costs;
  unused.Pair(2, 1, 3) = -1;
  EXPECT_TRUE(PairBellmanTable::Solve(unused.first, unused.pair, 4, 2).ok());
}

}  // namespace
}  // namespace boss
