#include "core/stepsize/bellman.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/match.h"

namespace boss {
namespace {

std::vector<double> RandomCosts(int k_max, std::mt19937& random, bool ties) {
  std::vector<double> cost(static_cast<size_t>(k_max + 1) * (k_max + 1), std::numeric_limits<double>::quiet_NaN());
  std::uniform_real_distribution<double> uniform(0, 1);
  std::uniform_int_distribution<int> small(0, 2);
  for (int i = 0; i <= k_max; ++i) {
    for (int j = i + 1; j <= k_max; ++j) cost[i * (k_max + 1) + j] = ties ? small(random) : uniform(random);
  }
  return cost;
}

struct Path {
  double cost = std::numeric_limits<double>::infinity();
  std::vector<int> knots;
};

// Every path of exactly `steps` jumps from `i`, in lexicographic order, so that the first of the cheapest has the smallest points.
Path BruteForce(const std::vector<double>& cost, int k_max, int i, int steps) {
  if (steps == 1) return {cost[i * (k_max + 1) + k_max], {i, k_max}};
  Path best;
  for (int j = i + 1; j <= k_max - (steps - 1); ++j) {
    Path rest = BruteForce(cost, k_max, j, steps - 1);
    const double total = cost[i * (k_max + 1) + j] + rest.cost;
    if (total < best.cost) {
      best.cost = total;
      best.knots = {i};
      best.knots.insert(best.knots.end(), rest.knots.begin(), rest.knots.end());
    }
  }
  return best;
}

TEST(BellmanTest, EqualsBruteForceOnRandomMatrices) {
  std::mt19937 random(1);
  for (int k_max = 1; k_max <= 9; ++k_max) {
    for (int trial = 0; trial < 20; ++trial) {
      const std::vector<double> cost = RandomCosts(k_max, random, /*ties=*/trial % 2 == 1);
      const auto table = BellmanTable::Solve(cost, k_max);
      ASSERT_TRUE(table.ok()) << table.status();
      for (int steps = 1; steps <= k_max; ++steps) {
        const Path expected = BruteForce(cost, k_max, 0, steps);
        EXPECT_EQ(table->TotalCost(steps), expected.cost);
        EXPECT_EQ(table->Knots(steps), expected.knots) << "k_max " << k_max << ", steps " << steps;
      }
    }
  }
}

TEST(BellmanTest, PathsAreValidAndCostWhatTheySayOnALargeGrid) {
  constexpr int kMax = 1000;
  std::mt19937 random(2);
  const std::vector<double> cost = RandomCosts(kMax, random, /*ties=*/false);
  const auto table = BellmanTable::Solve(cost, kMax);
  ASSERT_TRUE(table.ok()) << table.status();
  for (int steps : {1, 2, 17, 500, 999, 1000}) {
    const std::vector<int> knots = table->Knots(steps);
    ASSERT_EQ(static_cast<int>(knots.size()), steps + 1);
    EXPECT_EQ(knots.front(), 0);
    EXPECT_EQ(knots.back(), kMax);
    double total = 0;
    for (int k = 0; k < steps; ++k) {
      ASSERT_LT(knots[k], knots[k + 1]);
      total += cost[static_cast<size_t>(knots[k]) * (kMax + 1) + knots[k + 1]];
    }
    EXPECT_NEAR(total, table->TotalCost(steps), 1e-9 * total);
  }
}

TEST(BellmanTest, RefusesBadInput) {
  EXPECT_EQ(BellmanTable::Solve(std::vector<double>{0.0}, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(BellmanTable::Solve(std::vector<double>(3), 1).status().message(), "expected 4"));
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0}) {
    const auto table = BellmanTable::Solve(std::vector<double>{0, 1, bad, 0, 0, 1, 0, 0, 0}, 2);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(table.status().message(), "cost[0][2]")) << table.status();
  }
}

}  // namespace
}  // namespace boss
