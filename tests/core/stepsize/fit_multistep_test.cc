#include "core/stepsize/fit_multistep.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/solver/record_trajectory.h"
#include "core/solver/solver.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

// States at the grid's times, out of a fine run of `substeps` for each interval.
at::Tensor FineStates(const VelocityModel& model, const at::Tensor& noise, const TimeGrid& grid, int substeps) {
  std::vector<double> times{0};
  for (int i = 0; i < grid.steps(); ++i) {
    for (int k = 1; k <= substeps; ++k)
      times.push_back(k == substeps ? grid[i + 1] : grid[i] + grid.StepSize(i) * k / substeps);
  }
  InlineExecutor executor;
  const auto trajectory = RecordTrajectory(model, noise, {}, *TimeGrid::Create(times), executor);
  EXPECT_TRUE(trajectory.ok()) << trajectory.status();
  std::vector<at::Tensor> states;
  for (int i = 0; i <= grid.steps(); ++i) states.push_back(trajectory->states[i * substeps]);
  return at::stack(states);
}

double Error(const at::Tensor& got, const at::Tensor& expected) {
  return (got - expected).to(at::kDouble).square().mean().sqrt().item<double>();
}

// Every dimension at a pace of its own, and curved in time.
testing::FunctionModel CurvedFlow() {
  return testing::FunctionModel(
      [](const at::Tensor& x, const at::Tensor& t, const Condition&) {
        return at::sin(x * at::tensor({1.0f, 2.0f, 3.0f}) + t.unsqueeze(1) * 4) + x * 0.3;
      },
      3);
}

TEST(FitMultistep, ReproducesALinearFlowExactly) {
  // dx/dt = 2 x in float64: each step is x e^(2 h).
  const testing::FunctionModel model = testing::ExponentialFlow(2.0);
  const TimeGrid grid = *TimeGrid::Create({0, 0.2, 0.7, 1});
  const at::Tensor noise = at::randn({16, 2}, at::kDouble);
  std::vector<at::Tensor> states;
  for (int i = 0; i <= 3; ++i) states.push_back(noise * std::exp(2 * grid[i]));
  InlineExecutor executor;
  const auto fit = FitMultistep(model, at::stack(states), {}, grid, {}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_LT(fit->fit_error, 1e-10);
  EXPECT_LT(fit->held_out_error, 1e-10);
  const auto samples = SolveMultistep(model, noise, {}, grid, fit->coefficients, 5, executor);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_LT(Error(*samples, states.back()), 1e-10);
}

TEST(FitMultistep, ReproducesALinearFlowOfTwoRatesExactly) {
  // dx/dt = (-x, -3 x) in float64: a step takes both dimensions to e^-h and e^-3h with coefficients of the state and of
  // one velocity, which point in different directions.
  const at::Tensor rates = at::tensor({-1.0, -3.0}, at::kDouble);
  const testing::FunctionModel model(
      [&](const at::Tensor& x, const at::Tensor&, const Condition&) { return x * rates; });
  const TimeGrid grid = *TimeGrid::Create({0, 0.2, 0.7, 1});
  const at::Tensor noise = at::randn({16, 2}, at::kDouble);
  std::vector<at::Tensor> states;
  for (int i = 0; i <= 3; ++i) states.push_back(noise * at::exp(rates * grid[i]));
  InlineExecutor executor;
  for (const int order : {1, 3}) {
    const auto fit = FitMultistep(model, at::stack(states), {}, grid, {.max_order = order}, executor);
    ASSERT_TRUE(fit.ok()) << fit.status();
    EXPECT_LT(fit->fit_error, 1e-10);
    EXPECT_LT(fit->held_out_error, 1e-10);
    const auto samples = SolveMultistep(model, noise, {}, grid, fit->coefficients, 5, executor);
    ASSERT_TRUE(samples.ok()) << samples.status();
    EXPECT_LT(Error(*samples, states.back()), 1e-10);
  }
}

TEST(FitMultistep, IsBetterThanEulerAndAdamsBashforthOnNoisesThatItHasNotSeen) {
  const testing::FunctionModel model = CurvedFlow();
  const TimeGrid grid = TimeGrid::Uniform(5);
  InlineExecutor executor;
  const auto fit = FitMultistep(model, FineStates(model, at::randn({200, 3}), grid, 40), {}, grid, {}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  ASSERT_EQ(fit->coefficients.size(), 5);
  const at::Tensor noise = at::randn({500, 3}), fine = FineStates(model, noise, grid, 40)[5];
  const auto error = [&](const std::vector<StepCoefficients>& coefficients) {
    return Error(*SolveMultistep(model, noise, {}, grid, coefficients, 64, executor), fine);
  };
  const double fitted = error(fit->coefficients);
  EXPECT_LT(fitted, 0.8 * error(AdamsBashforth(grid, 1)));
  EXPECT_LT(fitted, error(AdamsBashforth(grid, 2)));
  EXPECT_NEAR(fitted, fit->held_out_error, fitted);
}

TEST(FitMultistep, FallsBackToPlainCoefficientsWhereAFitOnFewNoisesDoesNotHold) {
  // The noise that is fitted to grows; those that are held out move at a constant pace, where Euler's steps are exact.
  const testing::FunctionModel model(
      [](const at::Tensor& x, const at::Tensor&, const Condition&) { return at::where(x > 8, x, at::ones_like(x)); });
  const TimeGrid grid = TimeGrid::Uniform(4);
  const at::Tensor grows = at::full({1, 2}, 16, at::kDouble), moves = at::zeros({3, 2}, at::kDouble);
  std::vector<at::Tensor> states;
  for (int i = 0; i <= 4; ++i) states.push_back(at::cat({grows * std::exp(grid[i]), moves + grid[i]}));
  InlineExecutor executor;
  const auto fit = FitMultistep(model, at::stack(states), {}, grid, {.held_out_share = 0.75}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->coefficients, AdamsBashforth(grid, 1));
  EXPECT_EQ(fit->held_out_error, 0);
  EXPECT_GT(fit->fit_error, 1);
}

TEST(FitMultistep, SumsManyElementsInPieces) {
  // 300 of 400 noises of 4000 elements each are more than one piece.
  const testing::FunctionModel model = testing::ExponentialFlow(2.0);
  const TimeGrid grid = *TimeGrid::Create({0, 0.4, 1});
  const at::Tensor noise = at::randn({400, 4000}, at::kDouble);
  const at::Tensor states = at::stack({noise, noise * std::exp(0.8), noise * std::exp(2.0)});
  InlineExecutor executor;
  const auto fit = FitMultistep(model, states, {}, grid, {.max_order = 2}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_LT(fit->fit_error, 1e-10);
  EXPECT_LT(fit->held_out_error, 1e-10);
}

TEST(FitMultistep, HasEulersStepsWhereVelocitiesAreNotFinite) {
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor& t, const Condition&) {
    return x / at::where(t > 0.5, at::zeros_like(t), at::ones_like(t)).unsqueeze(1) - x;
  });
  const TimeGrid grid = *TimeGrid::Create({0, 0.6, 1});
  InlineExecutor executor;
  const auto fit = FitMultistep(model, at::randn({3, 8, 2}), {}, grid, {}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  ASSERT_EQ(fit->coefficients.size(), 2u);
  EXPECT_EQ(fit->coefficients[1], AdamsBashforth(grid, 1)[1]);
  EXPECT_FALSE(std::isfinite(fit->held_out_error));
}

TEST(FitMultistep, FitsTheGuidedVelocity) {
  // With a scale of 2, 2 v_label - v_none has the rates 3, 3 and 1, for which two coefficients suffice. v_label has the
  // rates 2, 1 and 1: no step of the state and its velocity makes e^3h, e^3h and e^h of them.
  const auto rates = [](double a, double b, double c) { return at::tensor({a, b, c}, at::kDouble); };
  const at::Tensor of_label = rates(2, 1, 1), of_none = rates(1, -1, 1), guided = rates(3, 3, 1);
  constexpr int64_t kClasses = 2;
  const testing::FunctionModel model(
      [&](const at::Tensor& x, const at::Tensor&, const Condition& condition) {
        const at::Tensor has_label = (condition.class_labels < kClasses).unsqueeze(1);
        return x * at::where(has_label, of_label, of_none);
      },
      3, kClasses);
  const TimeGrid grid = *TimeGrid::Create({0, 0.2, 0.7, 1});
  const at::Tensor noise = at::randn({16, 3}, at::kDouble);
  std::vector<at::Tensor> states;
  for (int i = 0; i <= 3; ++i) states.push_back(noise * at::exp(guided * grid[i]));
  Condition condition{.class_labels = at::arange(16, at::kLong).remainder(kClasses), .guidance_scale = 2};
  InlineExecutor executor;
  const auto fit = FitMultistep(model, at::stack(states), condition, grid, {.batch_size = 5}, executor);
  ASSERT_TRUE(fit.ok()) << fit.status();
  // Samples are about e^3, and the least pull towards the plain coefficients is 1e-12.
  EXPECT_LT(fit->fit_error, 1e-8);
  EXPECT_LT(fit->held_out_error, 1e-8);
  const auto samples = SolveMultistep(model, noise, condition, grid, fit->coefficients, 5, executor);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_LT(Error(*samples, states.back()), 1e-8);
  condition.guidance_scale = 1;
  EXPECT_GT(FitMultistep(model, at::stack(states), condition, grid, {}, executor)->fit_error, 0.1);
}

TEST(SolveMultistep, IsEulerBitForBitWithEulersCoefficients) {
  const testing::FunctionModel model = CurvedFlow();
  const TimeGrid grid = *TimeGrid::Create({0, 0.15, 0.4, 1});
  const at::Tensor noise = at::randn({7, 3});
  InlineExecutor executor;
  const auto multistep = SolveMultistep(model, noise, {}, grid, AdamsBashforth(grid, 1), 3, executor);
  const auto euler = Solve(model, noise, {}, {.solver = SolverKind::kEuler, .time_grid = grid}, 3, executor);
  ASSERT_TRUE(multistep.ok() && euler.ok());
  EXPECT_TRUE(at::equal(*multistep, *euler));
}

TEST(FitMultistep, RefusesShapesAndOptionsThatDoNotFit) {
  const testing::FunctionModel model = CurvedFlow();
  InlineExecutor executor;
  const auto code = [&](const at::Tensor& states, const MultistepFitOptions& options) {
    return FitMultistep(model, states, {}, TimeGrid::Uniform(3), options, executor).status().code();
  };
  EXPECT_EQ(code(at::randn({3, 8, 3}), {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(at::randn({4, 1, 3}), {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(at::randn({4}), {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(at::randn({4, 8, 3}), {.max_order = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(at::randn({4, 8, 3}), {.held_out_share = 1}), absl::StatusCode::kInvalidArgument);
  for (const int64_t batch_size : {0, -1}) {
    EXPECT_EQ(code(at::randn({4, 8, 3}), {.batch_size = batch_size}), absl::StatusCode::kInvalidArgument);
    const auto samples = SolveMultistep(model, at::randn({8, 3}), {}, TimeGrid::Uniform(3),
                                        AdamsBashforth(TimeGrid::Uniform(3), 1), batch_size, executor);
    EXPECT_EQ(samples.status().code(), absl::StatusCode::kInvalidArgument) << samples.status();
  }
}

}  // namespace
}  // namespace boss
