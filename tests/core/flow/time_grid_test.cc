#include "core/flow/time_grid.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "absl/strings/match.h"
#include "core/flow/schedule.h"

namespace boss {
namespace {

TEST(TimeGridTest, UniformGridEndsExactlyAtOne) {
  for (int steps : {1, 3, 7, 100}) {
    const TimeGrid grid = TimeGrid::Uniform(steps);
    EXPECT_EQ(grid.steps(), steps);
    EXPECT_EQ(grid[0], 0.0);
    EXPECT_EQ(grid[steps], 1.0);
    double sum = 0;
    for (int i = 0; i < steps; ++i) sum += grid.StepSize(i);
    EXPECT_NEAR(sum, 1.0, 1e-12);
  }
}

TEST(TimeGridTest, AcceptsAnyIncreasingGrid) {
  const auto grid = TimeGrid::Create({0.0, 0.1, 0.75, 1.0});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->steps(), 3);
  EXPECT_DOUBLE_EQ(grid->StepSize(1), 0.65);
}

TEST(TimeGridTest, RefusesBadGridsAndSaysWhy) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  struct Case {
    std::vector<double> times;
    const char* expected;
  };
  for (const Case& c : std::vector<Case>{{{}, "at least 2"},
                                         {{0.0}, "at least 2"},
                                         {{0.1, 1.0}, "first time to be 0"},
                                         {{0.0, 0.9}, "last 1"},
                                         {{0.0, 0.5, 0.5, 1.0}, "times[2]"},
                                         {{0.0, 0.6, 0.5, 1.0}, "times[2]"},
                                         {{0.0, nan, 1.0}, "times[1]"},
                                         {{nan, 1.0}, "first time to be 0"}}) {
    const auto grid = TimeGrid::Create(c.times);
    EXPECT_EQ(grid.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(grid.status().message(), c.expected)) << grid.status();
  }
}

TEST(TimeGridTest, HasTheTimesAtKnots) {
  const TimeGrid grid = *TimeGrid::Create({0.0, 0.1, 0.3, 0.75, 1.0});
  const auto coarse = grid.At({0, 2, 3, 4});
  ASSERT_TRUE(coarse.ok()) << coarse.status();
  EXPECT_EQ(*coarse, *TimeGrid::Create({0.0, 0.3, 0.75, 1.0}));
  EXPECT_EQ(*grid.At({0, 4}), TimeGrid());
  EXPECT_EQ(*grid.At({0, 1, 2, 3, 4}), grid);
  for (const std::vector<int>& knots :
       std::vector<std::vector<int>>{{}, {0}, {0, 3}, {1, 4}, {0, 2, 2, 4}, {0, 3, 1, 4}, {0, 5}, {0, -1, 4}}) {
    EXPECT_EQ(grid.At(knots).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(absl::StrContains(grid.At({0, 5}).status().message(), "knot 5")) << grid.At({0, 5}).status();
}

TEST(SolverNameTest, NamesRoundTrip) {
  for (SolverKind solver : {SolverKind::kEuler, SolverKind::kHeun, SolverKind::kRk45}) EXPECT_EQ(ParseSolver(SolverName(solver)), solver);
  EXPECT_EQ(ParseSolver("midpoint"), std::nullopt);
}

}  // namespace
}  // namespace boss
