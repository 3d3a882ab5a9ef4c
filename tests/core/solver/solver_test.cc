#include "core/solver/solver.h"

#include <ATen/ATen.h>
#include <ATen/TensorIndexing.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/flow/multistep.h"
#include "core/solver/record_trajectory.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

SolverOptions Uniform(SolverKind solver, int steps) {
  SolverOptions options;
  options.solver = solver;
  options.time_grid = TimeGrid::Uniform(steps);
  return options;
}

double ErrorOnExponential(SolverKind solver, int steps) {
  InlineExecutor executor;
  const at::Tensor x_0 = at::ones({1, 2}, at::kDouble);
  const auto x_1 = Solve(testing::ExponentialFlow(1.0), x_0, {}, Uniform(solver, steps), 1, executor);
  EXPECT_TRUE(x_1.ok()) << x_1.status();
  return std::abs(x_1->index({0, 0}).item<double>() - std::exp(1.0));
}

TEST(SolverTest, EulerConvergesAtOrderOneAndHeunAtOrderTwo) {
  EXPECT_NEAR(std::log2(ErrorOnExponential(SolverKind::kEuler, 64) / ErrorOnExponential(SolverKind::kEuler, 128)), 1.0, 0.05);
  EXPECT_NEAR(std::log2(ErrorOnExponential(SolverKind::kHeun, 64) / ErrorOnExponential(SolverKind::kHeun, 128)), 2.0, 0.05);
}

TEST(SolverTest, EulerFollowsAnExplicitGrid) {
  InlineExecutor executor;
  SolverOptions options;
  options.time_grid = *TimeGrid::Create({0.0, 0.25, 1.0});
  const auto x_1 = Solve(testing::ExponentialFlow(1.0), at::ones({1, 2}), {}, options, 1, executor);
  ASSERT_TRUE(x_1.ok()) << x_1.status();
  EXPECT_NEAR(x_1->index({0, 0}).item<double>(), 1.25 * 1.75, 1e-6);
}

TEST(SolverTest, MultistepIsEulerBitForBitWithEulersCoefficients) {
  const testing::FunctionModel model(
      [](const at::Tensor& x, const at::Tensor& t, const Condition&) { return at::sin(3 * x) + t.unsqueeze(1); }, 5);
  const at::Tensor x_0 = at::randn({4, 5});
  InlineExecutor executor;
  SolverOptions options = Uniform(SolverKind::kEuler, 7);
  const auto euler = Solve(model, x_0, {}, options, 3, executor);
  options.solver = SolverKind::kMultistep;
  options.coefficients = AdamsBashforth(options.time_grid, 1);
  const auto multistep = Solve(model, x_0, {}, options, 3, executor);
  ASSERT_TRUE(euler.ok() && multistep.ok());
  EXPECT_TRUE(at::equal(*euler, *multistep));
}

TEST(SolverTest, MultistepUsesEarlierVelocitiesAndOneEvaluationAStep) {
  const testing::FunctionModel model = testing::ExponentialFlow(1.0);
  SolverOptions options;
  options.solver = SolverKind::kMultistep;
  options.time_grid = *TimeGrid::Create({0, 0.5, 0.75, 1});
  options.coefficients = {{1, {0.5}}, {2, {0.25, -1}}, {1, {1, 2, 4}}};
  SolverRun run(model, at::ones({1, 2}, at::kDouble), {}, options);
  while (!run.done()) ASSERT_TRUE(run.Step().ok());
  EXPECT_EQ(run.evaluations(), 3);
  EXPECT_EQ(run.steps_done(), 3);
  // 1; then 1.5; then 2 * 1.5 + 0.25 * 1.5 - 1 = 2.375; then 2.375 * 2 + 2 * 1.5 + 4 = 11.75.
  EXPECT_DOUBLE_EQ(run.x().index({0, 0}).item<double>(), 11.75);
}

TEST(SolverTest, MultistepWithAdamsBashforthConvergesAtItsOrder) {
  const auto error = [](int order, int steps) {
    InlineExecutor executor;
    SolverOptions options = Uniform(SolverKind::kMultistep, steps);
    options.coefficients = AdamsBashforth(options.time_grid, order);
    const auto x_1 = Solve(testing::ExponentialFlow(1.0), at::ones({1, 2}, at::kDouble), {}, options, 1, executor);
    return std::abs(x_1->index({0, 0}).item<double>() - std::exp(1.0));
  };
  EXPECT_NEAR(std::log2(error(2, 64) / error(2, 128)), 2.0, 0.1);
}

TEST(SolverTest, Rk45MeetsItsToleranceWithFewEvaluations) {
  SolverOptions options;
  options.solver = SolverKind::kRk45;
  options.rtol = options.atol = 1e-8;
  const testing::FunctionModel model = testing::ExponentialFlow(-3.0);
  SolverRun run(model, at::ones({2, 2}, at::kDouble), {}, options);
  while (!run.done()) ASSERT_TRUE(run.Step().ok());
  EXPECT_NEAR(run.x().index({1, 1}).item<double>(), std::exp(-3.0), 1e-7);
  EXPECT_EQ(run.t(), 1.0);
  EXPECT_LT(run.evaluations(), 200);
}

TEST(SolverTest, Rk45TakesTheLargestStepsWhereNothingHappens) {
  SolverOptions options;
  options.solver = SolverKind::kRk45;
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor&, const Condition&) { return at::zeros_like(x); });
  SolverRun run(model, at::ones({1, 2}), {}, options);
  while (!run.done()) ASSERT_TRUE(run.Step().ok());
  EXPECT_TRUE(at::equal(run.x(), at::ones({1, 2})));
  EXPECT_LT(run.steps_done(), 20);
}

TEST(SolverTest, Rk45ReportsAVelocityThatIsNotFinite) {
  SolverOptions options;
  options.solver = SolverKind::kRk45;
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor& t, const Condition&) { return x / (t.unsqueeze(1) * 0); });
  SolverRun run(model, at::ones({1, 2}), {}, options);
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok() && !run.done(); ++i) status = run.Step();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
}

TEST(SolverTest, CountsEvaluationsOfGuidance) {
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor&, const Condition&) { return x; }, 2, /*num_classes=*/3);
  Condition condition;
  condition.class_labels = at::zeros({1}, at::kLong);
  condition.guidance_scale = 2.0;
  SolverRun heun(model, at::ones({1, 2}), condition, Uniform(SolverKind::kHeun, 3));
  while (!heun.done()) ASSERT_TRUE(heun.Step().ok());
  EXPECT_EQ(heun.evaluations(), 3 * 2 * 2);
}

TEST(SolverTest, BatchesGiveTheSameAsOneBatch) {
  InlineExecutor executor;
  const at::Tensor x_0 = at::randn({7, 2});
  const testing::FunctionModel model = testing::CubicFlow(2.0);
  const SolverOptions options = Uniform(SolverKind::kEuler, 5);
  EXPECT_TRUE(at::equal(*Solve(model, x_0, {}, options, 7, executor), *Solve(model, x_0, {}, options, 3, executor)));
}

class StopAfter final : public StepExecutor {
 public:
  explicit StopAfter(int steps) : left_(steps) {}
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override {
    if (left_-- == 0) return absl::CancelledError("enough");
    return step();
  }

 private:
  int left_;
};

TEST(SolverTest, TheExecutorDecidesWhetherItGoesOn) {
  const testing::FunctionModel model = testing::ExponentialFlow(1.0);
  StopAfter three(3);
  EXPECT_EQ(Solve(model, at::ones({1, 2}), {}, Uniform(SolverKind::kEuler, 5), 1, three).status(), absl::CancelledError("enough"));
  StopAfter two(2);
  EXPECT_EQ(RecordTrajectory(model, at::ones({1, 2}), {}, TimeGrid::Uniform(5), two).status(), absl::CancelledError("enough"));
}

TEST(SolverTest, TorchErrorsBecomeStatus) {
  InlineExecutor executor;
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor&, const Condition&) { return at::ones({17, 3}); });
  EXPECT_EQ(Solve(model, at::ones({2, 2}), {}, Uniform(SolverKind::kEuler, 2), 2, executor).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Solve(model, at::ones({2, 2}), {}, Uniform(SolverKind::kEuler, 2), 0, executor).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RecordTrajectoryTest, StatesAndVelocitiesAreThoseOfFineEuler) {
  InlineExecutor executor;
  const at::Tensor x_0 = at::randn({3, 2});
  const testing::FunctionModel model = testing::ExponentialFlow(1.0);
  const auto trajectory = RecordTrajectory(model, x_0, {}, TimeGrid::Uniform(10), executor);
  ASSERT_TRUE(trajectory.ok()) << trajectory.status();
  EXPECT_TRUE(at::equal(trajectory->states[0], x_0));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(at::allclose(trajectory->states[i + 1], trajectory->states[i] + 0.1 * trajectory->velocities[i]));
  }
  EXPECT_TRUE(at::allclose(trajectory->states[10], *Solve(model, x_0, {}, Uniform(SolverKind::kEuler, 10), 3, executor)));

  const TimeGrid uneven = *TimeGrid::Create({0, 0.1, 0.5, 1});
  const auto coarse = RecordTrajectory(model, x_0, {}, uneven, executor);
  ASSERT_TRUE(coarse.ok()) << coarse.status();
  EXPECT_EQ(coarse->time_grid, uneven);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::allclose(coarse->states[i + 1], coarse->states[i] + uneven.StepSize(i) * coarse->velocities[i]));
  }
}

}  // namespace
}  // namespace boss
