// Our numbers against those of the reference implementation, within the tolerances of tests/golden/README.md.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/finetune/objectives.h"
#include "core/finetune/trainer.h"
#include "core/solver/record_trajectory.h"
#include "core/solver/solver.h"
#include "core/stepsize/bellman.h"
#include "core/stepsize/cost_matrix.h"
#include "tests/support/golden.h"

namespace boss {
namespace {

using testing::Golden;
using testing::LoadGolden;
using testing::RelativeError;

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenTest() : golden_(LoadGolden(GetParam())) {}

  at::Tensor SolveFromNoise(SolverKind solver, TimeGrid grid) {
    SolverOptions options;
    options.solver = solver;
    options.time_grid = std::move(grid);
    absl::StatusOr<at::Tensor> x_1 = Solve(*golden_.ema, golden_["noise"], {}, options, 8, executor_);
    EXPECT_TRUE(x_1.ok()) << x_1.status();
    return *x_1;
  }

  std::vector<double> GoldenCosts() {
    const at::Tensor cost = golden_["cost_matrix"].contiguous();
    return {cost.const_data_ptr<double>(), cost.const_data_ptr<double>() + cost.numel()};
  }

  std::vector<double> OwnCosts() {
    absl::StatusOr<Trajectory> trajectory = RecordTrajectory(*golden_.ema, golden_["noise"], {}, TimeGrid::Uniform(golden_.k_max()), executor_);
    EXPECT_TRUE(trajectory.ok()) << trajectory.status();
    TrajectoryGram gram(golden_.k_max(), /*has_pairs=*/false);
    EXPECT_TRUE(gram.Add(*trajectory).ok());
    absl::StatusOr<std::vector<double>> cost = CostMatrix(gram);
    EXPECT_TRUE(cost.ok()) << cost.status();
    return *cost;
  }

  Golden golden_;
  InlineExecutor executor_;
};

TEST_P(GoldenTest, VelocitiesOfBothSetsOfWeights) {
  const c10::NoGradGuard no_grad;
  const at::Tensor x = golden_["velocity.x"], t = golden_["velocity.t"];
  EXPECT_LT(RelativeError(golden_.raw->Velocity(x, t, {}), golden_["velocity.raw"]), 1e-5);
  EXPECT_LT(RelativeError(golden_.ema->Velocity(x, t, {}), golden_["velocity.ema"]), 1e-5);
  golden_.ema->PrepareForInference(at::kFloat);
  EXPECT_LT(RelativeError(golden_.ema->Velocity(x, t, {}), golden_["velocity.ema"]), 1e-5);
}

TEST_P(GoldenTest, EulerAndHeunOnUniformGrids) {
  for (int steps : {1, 2, 4, 8}) {
    const std::string suffix = "." + std::to_string(steps);
    EXPECT_LT(RelativeError(SolveFromNoise(SolverKind::kEuler, TimeGrid::Uniform(steps)), golden_["euler" + suffix]), 1e-4) << steps;
    EXPECT_LT(RelativeError(SolveFromNoise(SolverKind::kHeun, TimeGrid::Uniform(steps)), golden_["heun" + suffix]), 1e-4) << steps;
  }
}

TEST_P(GoldenTest, AdaptiveDormandPrince) {
  EXPECT_LT(RelativeError(SolveFromNoise(SolverKind::kRk45, TimeGrid()), golden_["rk45"]), 1e-3);
}

TEST_P(GoldenTest, FineTrajectory) {
  const at::Tensor noise = golden_["noise"].slice(0, 0, 2);
  absl::StatusOr<Trajectory> trajectory = RecordTrajectory(*golden_.ema, noise, {}, TimeGrid::Uniform(golden_.k_max()), executor_);
  ASSERT_TRUE(trajectory.ok()) << trajectory.status();
  EXPECT_LT(RelativeError(trajectory->states, golden_["trajectory.x"]), 1e-4);
  const at::Tensor times = golden_["trajectory.t"];
  ASSERT_EQ(times.numel(), golden_.k_max() + 1);
  for (int i = 0; i <= golden_.k_max(); ++i) EXPECT_NEAR(trajectory->time_grid[i], times[i].item<double>(), 1e-6);
}

TEST_P(GoldenTest, CostMatrix) {
  const std::vector<double> expected = GoldenCosts(), own = OwnCosts();
  const int points = golden_.k_max() + 1;
  double largest = 0;
  for (double c : expected) largest = std::max(largest, c);
  for (int i = 0; i < points; ++i) {
    for (int j = i + 2; j < points; ++j) {
      const double c = expected[i * points + j];
      EXPECT_NEAR(own[i * points + j], c, c * (c < 1e-6 * largest ? 1e-2 : 1e-3)) << i << ", " << j;
    }
    if (i + 1 < points) {
      EXPECT_LT(own[i * points + i + 1], 1e-9 * largest) << i;
    }
  }
}

TEST_P(GoldenTest, SchedulesFromTheStoredCosts) {
  absl::StatusOr<BellmanTable> table = BellmanTable::Solve(GoldenCosts(), golden_.k_max());
  ASSERT_TRUE(table.ok()) << table.status();
  for (int steps = 1; steps <= 20; ++steps) {
    EXPECT_EQ(table->Knots(steps), golden_.Knots(steps)) << steps;
    EXPECT_NEAR(table->TotalCost(steps), golden_.Cost(steps), 1e-9 * golden_.Cost(steps)) << steps;
  }
}

TEST_P(GoldenTest, SchedulesFromOurOwnCosts) {
  absl::StatusOr<ScheduleSet> set = OptimizeSchedules(OwnCosts(), TimeGrid::Uniform(golden_.k_max()), 8, 1.0);
  ASSERT_TRUE(set.ok()) << set.status();
  for (int steps = 1; steps <= 8; ++steps) EXPECT_EQ(set->schedules[steps - 1].knots, golden_.Knots(steps)) << steps;
}

TEST_P(GoldenTest, EulerOnBellmanSchedules) {
  for (int steps : {2, 4, 8}) {
    std::vector<double> times;
    for (int knot : golden_.Knots(steps)) times.push_back(static_cast<double>(knot) / golden_.k_max());
    absl::StatusOr<TimeGrid> grid = TimeGrid::Create(times);
    ASSERT_TRUE(grid.ok()) << grid.status();
    EXPECT_LT(RelativeError(SolveFromNoise(SolverKind::kEuler, *grid), golden_["bellman_euler." + std::to_string(steps)]), 1e-4) << steps;
  }
}

TEST_P(GoldenTest, SegmentPairsOfTheFourStepSchedule) {
  const at::Tensor stored_start = golden_["straighten.x0"];
  absl::StatusOr<SegmentPairs> pairs =
      DrawSegmentPairs(*golden_.ema, golden_["noise"], {}, TimeGrid::Uniform(golden_.k_max()), golden_.Knots(4), 8, executor_);
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  ASSERT_EQ(pairs->x_start.sizes(), stored_start.sizes());
  // The stored pairs go segment by segment or noise by noise; both orders hold the same set, so that sums over it agree.
  EXPECT_NEAR(pairs->x_start.square().sum().item<double>(), stored_start.square().sum().item<double>(),
              1e-4 * stored_start.square().sum().item<double>());
  EXPECT_NEAR(pairs->x_end.square().sum().item<double>(), golden_["straighten.x1"].square().sum().item<double>(),
              1e-4 * golden_["straighten.x1"].square().sum().item<double>());
  EXPECT_NEAR(pairs->t_end.sum().item<double>(), golden_["straighten.t1"].sum().item<double>(), 1e-4);
}

// All stored pairs in every batch, in their order.
class AllPairs final : public TrainingObjective {
 public:
  explicit AllPairs(SegmentPairs pairs) : pairs_(std::move(pairs)) {}
  at::Tensor Loss(const VelocityModel& model, at::Generator&) override { return StraighteningLoss(model, pairs_, 1.0).mean(); }
  int64_t batch_size() const override { return pairs_.size(); }

 private:
  SegmentPairs pairs_;
};

TEST_P(GoldenTest, StraighteningRun) {
  SegmentPairs pairs;
  pairs.x_start = golden_["straighten.x0"];
  pairs.x_end = golden_["straighten.x1"];
  pairs.t_start = golden_["straighten.t0"];
  pairs.t_end = golden_["straighten.t1"];
  AllPairs objective(pairs);

  const nlohmann::json& run = golden_.config["straighten"];
  TrainerOptions options;
  options.learning_rate = run["lr"];
  options.beta1 = run["beta1"];
  options.beta2 = run["beta2"];
  options.adam_epsilon = run["eps"];
  options.warmup_steps = run["warmup"];
  options.gradient_clip = run["grad_clip"];
  options.ema_rate = run["ema_rate"];
  Trainer trainer(golden_.raw->Clone(), options);
  const std::vector<double> losses = run["loss"];
  for (int64_t i = 0; i < run["iterations"].get<int64_t>(); ++i) {
    absl::StatusOr<TrainStepMetrics> metrics = trainer.Step(objective);
    ASSERT_TRUE(metrics.ok()) << metrics.status();
    if (i < 5) {
      EXPECT_NEAR(metrics->loss, losses[i], 1e-3 * losses[i]) << "iteration " << i;
    }
  }
  const c10::NoGradGuard no_grad;
  const at::Tensor x = golden_["velocity.x"], t = golden_["velocity.t"];
  EXPECT_LT(RelativeError(trainer.model().Velocity(x, t, {}), golden_["straighten.velocity_after.raw"]), 1e-3);
  EXPECT_LT(RelativeError(trainer.EmaModel()->Velocity(x, t, {}), golden_["straighten.velocity_after.ema"]), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Networks, GoldenTest, ::testing::Values("ddpmpp_tiny", "ncsnpp_tiny"), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace boss
