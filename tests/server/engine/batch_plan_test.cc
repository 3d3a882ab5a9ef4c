#include "server/engine/batch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace boss::server {
namespace {

using ::testing::ElementsAre;

// 6 ms and 1.4 ms a row.
CostModel Affine() {
  CostModel cost;
  for (int64_t rows = 1; rows <= 64; ++rows) cost.Observe(rows, 0.006 + 0.0014 * static_cast<double>(rows));
  return cost;
}

TEST(CostModelTest, TellsRelativeCostBeforeAnythingRan) {
  const CostModel cost;
  EXPECT_GT(cost.Seconds(1), 0);
  EXPECT_GT(cost.Seconds(64), 2 * cost.Seconds(8));
}

TEST(CostModelTest, LearnsFromWhatRan) {
  const CostModel cost = Affine();
  for (const int64_t rows : {1, 3, 8, 20, 50, 64}) {
    const double expected = 0.006 + 0.0014 * static_cast<double>(rows);
    EXPECT_NEAR(cost.Seconds(rows), expected, 0.2 * expected) << rows;
  }
  EXPECT_GT(cost.Seconds(200), cost.Seconds(64));
}

TEST(CostModelTest, NeverFallsWithMoreRows) {
  CostModel cost;
  cost.Observe(1, 0.010);
  cost.Observe(8, 0.005);  // a disturbed machine
  cost.Observe(64, 0.050);
  for (int64_t rows = 1; rows < 100; ++rows) EXPECT_LE(cost.Seconds(rows), cost.Seconds(rows + 1)) << rows;
}

TEST(BatchPlanTest, OneRequestTakesWhatFits) {
  EXPECT_THAT(PlanBatch({{{.lanes = 100}}}, 64, Affine()), ElementsAre(64));
  EXPECT_THAT(PlanBatch({{{.lanes = 5}}}, 64, Affine()), ElementsAre(5));
  EXPECT_THAT(PlanBatch({{{.lanes = 100, .rows_per_lane = 2}}}, 64, Affine()), ElementsAre(32));
}

TEST(BatchPlanTest, ALargeRequestDoesNotSlowASmallOneBeyondHalf) {
  const CostModel cost = Affine();
  const std::vector<int64_t> planned = PlanBatch({{{.lanes = 10000}, {.lanes = 1}}}, 64, cost);
  EXPECT_EQ(planned[1], 1);
  EXPECT_GT(planned[0], 1);  // and is not stopped by it
  EXPECT_LE(cost.Seconds(planned[0] + planned[1]), 2 * cost.Seconds(1));
}

TEST(BatchPlanTest, ManySmallRequestsShareOneBatch) {
  const std::vector<BatchCandidate> candidates(32, {.lanes = 1});
  const std::vector<int64_t> planned = PlanBatch(candidates, 64, Affine());
  EXPECT_EQ(std::accumulate(planned.begin(), planned.end(), int64_t{0}), 32);
}

TEST(BatchPlanTest, LanesGoRoundAndLeftoversToThoseWithMore) {
  const std::vector<BatchCandidate> candidates = {{.lanes = 100}, {.lanes = 20}, {.lanes = 100}};
  EXPECT_THAT(PlanBatch(candidates, 64, Affine()), ElementsAre(22, 20, 22));
}

TEST(BatchPlanTest, WhoWaitedLongestGoesFirstWhereNotAllFit) {
  std::vector<BatchCandidate> candidates;
  for (int i = 0; i < 10; ++i) candidates.push_back({.lanes = 1, .last_turn = 10 - i});
  EXPECT_THAT(PlanBatch(candidates, 4, Affine()), ElementsAre(0, 0, 0, 0, 0, 0, 1, 1, 1, 1));
}

TEST(BatchPlanTest, HigherPrioritiesComeFirstAndLeaveTheRest) {
  const std::vector<BatchCandidate> candidates = {{.lanes = 30}, {.lanes = 20, .priority = 1}, {.lanes = 8}};
  EXPECT_THAT(PlanBatch(candidates, 32, Affine()), ElementsAre(6, 20, 6));
}

TEST(BatchPlanTest, GuidedLanesCountTwice) {
  const std::vector<int64_t> planned = PlanBatch({{{.lanes = 40, .rows_per_lane = 2}, {.lanes = 40}}}, 48, Affine());
  EXPECT_THAT(planned, ElementsAre(16, 16));
}

}  // namespace
}  // namespace boss::server
