#include "core/stepsize/trajectory_gram.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/solver/record_trajectory.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

constexpr int kMax = 9, kSamples = 7;

class TrajectoryGramTest : public ::testing::TestWithParam<bool> {
 protected:
  TrajectoryGramTest() : trajectory_(Record(TimeGrid::Uniform(kMax))) { EXPECT_TRUE(gram_.Add(trajectory_).ok()); }

  static Trajectory Record(const TimeGrid& grid) {
    const testing::FunctionModel model(
        [](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (x * 3).sin() + t.unsqueeze(1); }, 5);
    InlineExecutor executor;
    auto trajectory = RecordTrajectory(model, at::randn({kSamples, 5}), {}, grid, executor);
    EXPECT_TRUE(trajectory.ok()) << trajectory.status();
    return *std::move(trajectory);
  }
  Trajectory Samples(int64_t begin, int64_t end) const {
    return {trajectory_.time_grid, trajectory_.states.slice(1, begin, end),
            trajectory_.velocities.slice(1, begin, end)};
  }

  // The same to within `tolerance`, relatively.
  static void ExpectSame(const TrajectoryGram& a, const TrajectoryGram& b, double tolerance) {
    EXPECT_EQ(a.num_samples(), b.num_samples());
    const TrajectoryGram::State state_a = a.SaveState(), state_b = b.SaveState();
    ASSERT_EQ(state_a.size(), state_b.size());
    for (size_t i = 0; i < state_a.size(); ++i) {
      EXPECT_TRUE(at::allclose(state_a[i].second, state_b[i].second, tolerance, tolerance)) << state_a[i].first;
    }
  }

  const Trajectory trajectory_;
  TrajectoryGram gram_{kMax, GetParam()};
};

TEST_P(TrajectoryGramTest, HasTheProductsOfTheirDefinition) {
  const at::Tensor x = trajectory_.states.to(at::kDouble), v = trajectory_.velocities.to(at::kDouble);
  const auto product = [](const at::Tensor& a, const at::Tensor& b) { return (a * b).sum().item<double>(); };
  for (int i = 0; i < kMax; ++i) {
    for (int j = i; j <= kMax; ++j) {
      EXPECT_EQ(gram_.Duration(i, j), trajectory_.time_grid[j] - trajectory_.time_grid[i]);
      EXPECT_NEAR(gram_.SquaredChange(i, j), product(x[j] - x[i], x[j] - x[i]), 1e-11);
      for (int k = 0; k < kMax; ++k) EXPECT_NEAR(gram_.ChangeAlong(i, j, k), product(x[j] - x[i], v[k]), 1e-11);
    }
    for (int k = 0; k < kMax; ++k) {
      const bool is_summed = gram_.has_pairs() || i == k;
      EXPECT_NEAR(gram_.VelocityProduct(i, k), is_summed ? product(v[i], v[k]) : 0, 1e-11);
    }
  }
}

TEST_P(TrajectoryGramTest, BatchesAddUpToTheWhole) {
  TrajectoryGram batches(kMax, GetParam());
  ASSERT_TRUE(batches.Add(Samples(0, 4)).ok());
  ASSERT_TRUE(batches.Add(Samples(4, kSamples)).ok());
  ExpectSame(batches, gram_, 1e-12);
}

TEST_P(TrajectoryGramTest, WhatGoesOnFromASavedStateIsTheSameBitForBit) {
  TrajectoryGram restored(kMax, GetParam());
  ASSERT_TRUE(restored.RestoreState(gram_.SaveState()).ok());
  ASSERT_TRUE(gram_.Add(Samples(1, 4)).ok());
  ASSERT_TRUE(restored.Add(Samples(1, 4)).ok());
  ExpectSame(restored, gram_, 0);
}

TEST_P(TrajectoryGramTest, AStateThatDoesNotFitChangesNothing) {
  TrajectoryGram other(kMax, GetParam());
  ASSERT_TRUE(other.Add(Samples(0, 4)).ok());
  const TrajectoryGram before = other;
  const TrajectoryGram::State state = gram_.SaveState();
  for (size_t i = 0; i < state.size(); ++i) {
    TrajectoryGram::State missing = state, of_floats = state, shorter = state;
    missing.erase(missing.begin() + static_cast<int64_t>(i));
    of_floats[i].second = state[i].second.to(at::kFloat);
    shorter[i].second = state[i].second.slice(0, 1);
    for (const TrajectoryGram::State& broken : {missing, of_floats, shorter}) {
      const absl::Status status = other.RestoreState(broken);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(std::string(status.message()).find(state[i].first), std::string::npos) << status;
    }
  }
  ExpectSame(other, before, 0);
  EXPECT_EQ(TrajectoryGram(kMax + 1, GetParam()).RestoreState(state).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(TrajectoryGramTest, RefusesAnotherGrid) {
  EXPECT_EQ(gram_.Add(Record(TimeGrid::Uniform(kMax + 1))).code(), absl::StatusCode::kInvalidArgument);
  // As many intervals, at other times.
  std::vector<double> times;
  for (int i = 0; i <= kMax; ++i) times.push_back(std::cbrt(static_cast<double>(i) / kMax));
  EXPECT_EQ(gram_.Add(Record(*TimeGrid::Create(times))).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gram_.num_samples(), kSamples);
  EXPECT_TRUE(gram_.Add(trajectory_).ok());
}

INSTANTIATE_TEST_SUITE_P(Pairs, TrajectoryGramTest, ::testing::Bool());

}  // namespace
}  // namespace boss
