#include "core/stepsize/optimize_multistep.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <vector>

#include "core/base/status_macros.h"
#include "core/solver/record_trajectory.h"
#include "core/solver/solver.h"
#include "core/stepsize/cost_matrix.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

constexpr int kFine = 24, kMost = 5;

testing::FunctionModel CurvedFlow() {
  return testing::FunctionModel(
      [](const at::Tensor& x, const at::Tensor& t, const Condition&) {
        return at::sin(x * at::tensor({1.0f, 2.0f, 3.0f}) + t.unsqueeze(1) * 4) + x * 0.3;
      },
      3);
}

// What a search has recorded of `count` noises.
struct Recorded {
  at::Tensor states;  // [kFine + 1, count, 3]
  TrajectoryGram gram{kFine, /*has_pairs=*/true};
  ScheduleSet euler;
};

absl::StatusOr<Recorded> Record(const VelocityModel& model, int64_t count, double shift = 0) {
  Recorded recorded;
  InlineExecutor executor;
  const TimeGrid fine_grid = TimeGrid::Uniform(kFine);
  BOSS_ASSIGN_OR_RETURN(const Trajectory trajectory,
                        RecordTrajectory(model, at::randn({count, 3}) + shift, {}, fine_grid, executor));
  BOSS_RETURN_IF_ERROR(recorded.gram.Add(trajectory));
  recorded.states = trajectory.states;
  BOSS_ASSIGN_OR_RETURN(std::vector<double> matrix, CostMatrix(recorded.gram));
  BOSS_ASSIGN_OR_RETURN(recorded.euler, OptimizeSchedules(std::move(matrix), fine_grid, static_cast<int>(count), 1));
  return recorded;
}

absl::StatusOr<OptimizedMultistep> Optimize(const VelocityModel& model, const Recorded& recorded,
                                            absl::Span<const std::vector<int>> candidates,
                                            const MultistepFitOptions& options = {}) {
  InlineExecutor executor;
  const auto states = [&](absl::Span<const int> points) -> absl::StatusOr<at::Tensor> {
    std::vector<at::Tensor> rows;
    for (const int point : points) rows.push_back(recorded.states[point]);
    return at::stack(rows);
  };
  return OptimizeMultistep(model, TimeGrid::Uniform(kFine), candidates, states, {}, options, executor);
}

double Error(const at::Tensor& got, const at::Tensor& expected) {
  return (got - expected).to(at::kDouble).square().mean().sqrt().item<double>();
}

TEST(OptimizeMultistep, IsBetterThanEulersScheduleOnNoisesThatItHasNotSeen) {
  at::manual_seed(1);
  const testing::FunctionModel model = CurvedFlow();
  const auto recorded = Record(model, 120), others = Record(model, 300);
  ASSERT_TRUE(recorded.ok() && others.ok());
  const auto knots = MultistepKnots(recorded->gram, recorded->euler, kMost);
  ASSERT_TRUE(knots.ok()) << knots.status();
  ASSERT_EQ(knots->size(), kMost);
  InlineExecutor executor;
  for (int steps = 1; steps <= kMost; ++steps) {
    const std::vector<std::vector<int>>& candidates = (*knots)[steps - 1];
    EXPECT_EQ(candidates.front(), recorded->euler.Find(steps)->knots);
    const auto best = Optimize(model, *recorded, candidates);
    ASSERT_TRUE(best.ok()) << best.status();
    const Schedule& schedule = best->schedule;
    EXPECT_EQ(schedule.solver, SolverKind::kMultistep);
    EXPECT_EQ(schedule.time_grid.steps(), steps);
    EXPECT_EQ(schedule.coefficients.size(), steps);
    // A fit of every noise, and up to two plain runs of the held-out quarter, for each candidate; and if a plain one
    // has won, a run of the others.
    EXPECT_LE(best->evaluations, 120 * steps * 15 / 4);
    EXPECT_GE(best->evaluations, 120 * steps * static_cast<int64_t>(candidates.size()));
    const auto error = [&](const SolverOptions& options) {
      return Error(*Solve(model, others->states[0], {}, options, 64, executor), others->states[kFine]);
    };
    const double euler = error({.time_grid = recorded->euler.Find(steps)->time_grid});
    const double multistep = error(
        {.solver = SolverKind::kMultistep, .time_grid = schedule.time_grid, .coefficients = schedule.coefficients});
    EXPECT_LT(multistep, (steps < 3 ? 1.0 : 0.6) * euler) << steps << " steps";
    EXPECT_NEAR(multistep, schedule.held_out_error, multistep) << steps << " steps";
  }
}

TEST(OptimizeMultistep, TakesPlainCoefficientsWhereTheFitIsWorseOnTheHeldOutNoises) {
  at::manual_seed(2);
  const testing::FunctionModel model = CurvedFlow();
  // Fitted to one noise, far from those that judge: the last three quarters.
  auto recorded = Record(model, 1, 30.0);
  const auto usual = Record(model, 3);
  ASSERT_TRUE(recorded.ok() && usual.ok());
  recorded->states = at::cat({recorded->states, usual->states}, 1);
  const std::vector<std::vector<int>> candidates = {{0, 6, 12, 18, 24}};
  const auto best = Optimize(model, *recorded, candidates, {.held_out_share = 0.75});
  ASSERT_TRUE(best.ok()) << best.status();
  const TimeGrid grid = TimeGrid::Uniform(4);
  InlineExecutor executor;
  double least = 1e9;
  for (const int order : {1, 2}) {
    const at::Tensor samples =
        *SolveMultistep(model, usual->states[0], {}, grid, AdamsBashforth(grid, order), 64, executor);
    least = std::min(least, Error(samples, usual->states[kFine]));
  }
  EXPECT_LE(best->schedule.held_out_error, least + 1e-9);
  // A fit of all 4 noises, two plain runs of the 3 that are held out, and one of the fitted one.
  EXPECT_EQ(best->evaluations, 4 * (4 + 2 * 3 + 1));
  // Whatever won was run from the fitted noise, too.
  const SolverOptions options{
      .solver = SolverKind::kMultistep, .time_grid = grid, .coefficients = best->schedule.coefficients};
  const at::Tensor fitted = *Solve(model, recorded->states[0].slice(0, 0, 1), {}, options, 64, executor);
  EXPECT_NEAR(best->schedule.fit_error, Error(fitted, recorded->states[kFine].slice(0, 0, 1)), 1e-5);
}

TEST(OptimizeMultistep, ChoosesBetweenTimesByTheErrorOverAllNoises) {
  const testing::FunctionModel model = CurvedFlow();
  const std::vector<std::vector<int>> candidates = {{0, 6, 12, 18, 24}, {0, 4, 10, 17, 24}};
  InlineExecutor executor;
  int others = 0;  // that the held-out noises alone would have chosen
  for (uint64_t seed = 0; seed < 30; ++seed) {
    at::manual_seed(seed);
    const auto recorded = Record(model, 12);
    ASSERT_TRUE(recorded.ok()) << recorded.status();
    std::vector<double> held_out, over_all;
    for (const std::vector<int>& knots : candidates) {
      std::vector<at::Tensor> states;
      for (const int knot : knots) states.push_back(recorded->states[knot]);
      const auto fit = FitMultistep(model, at::stack(states), {}, *TimeGrid::Uniform(kFine).At(knots), {}, executor);
      ASSERT_TRUE(fit.ok()) << fit.status();
      held_out.push_back(fit->held_out_error);
      over_all.push_back(9 * fit->fit_error * fit->fit_error + 3 * fit->held_out_error * fit->held_out_error);
    }
    const size_t expected = over_all[1] < over_all[0], by_held_out = held_out[1] < held_out[0];
    others += expected != by_held_out;
    const auto best = Optimize(model, *recorded, candidates);
    ASSERT_TRUE(best.ok()) << best.status();
    EXPECT_EQ(best->schedule.knots, candidates[expected]) << seed;
  }
  EXPECT_GT(others, 0);
}

TEST(RefineMultistep, LowersTheErrorOfBadTimesWithinItsBudget) {
  at::manual_seed(3);
  const testing::FunctionModel model = CurvedFlow();
  const auto recorded = Record(model, 40);
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  const auto states = [&](absl::Span<const int> points) -> absl::StatusOr<at::Tensor> {
    std::vector<at::Tensor> rows;
    for (const int point : points) rows.push_back(recorded->states[point]);
    return at::stack(rows);
  };
  const std::vector<std::vector<int>> candidates = {{0, 1, 2, 3, kFine}};
  const auto start = Optimize(model, *recorded, candidates);
  ASSERT_TRUE(start.ok()) << start.status();
  const auto refine = [&](int64_t budget) {
    InlineExecutor executor;
    return RefineMultistep(model, TimeGrid::Uniform(kFine), *start, states, {}, {}, budget, executor);
  };
  constexpr int64_t kFit = 40 * 4;  // evaluations
  const auto none = refine(kFit - 1);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->schedule.knots, candidates[0]);
  EXPECT_EQ(none->evaluations, start->evaluations);
  double least = start->schedule.held_out_error;
  for (const int fits : {4, 40}) {
    const auto refined = refine(fits * kFit);
    ASSERT_TRUE(refined.ok()) << refined.status();
    EXPECT_LE(refined->evaluations, start->evaluations + fits * kFit);
    EXPECT_LT(refined->schedule.held_out_error, least);
    least = refined->schedule.held_out_error;
    // What is stored is what was judged.
    const Schedule& schedule = refined->schedule;
    ASSERT_EQ(schedule.knots.size(), 5u);
    for (int i = 0; i <= 4; ++i) EXPECT_EQ(schedule.time_grid[i], TimeGrid::Uniform(kFine)[schedule.knots[i]]);
    InlineExecutor executor;
    const at::Tensor held_out = recorded->states.slice(1, 30);
    const at::Tensor samples =
        *SolveMultistep(model, held_out[0], {}, schedule.time_grid, schedule.coefficients, 64, executor);
    EXPECT_NEAR(Error(samples, held_out[kFine]), schedule.held_out_error, 1e-6);
  }
  EXPECT_LT(least, 0.75 * start->schedule.held_out_error);
}

TEST(OptimizeMultistep, IsAnErrorWhereEveryCandidateDiverges) {
  const auto recorded = Record(CurvedFlow(), 8);
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  const std::vector<std::vector<int>> candidates = {{0, 6, 12, kFine}, {0, 4, 10, kFine}};
  const testing::FunctionModel never(
      [](const at::Tensor& x, const at::Tensor&, const Condition&) {
        return at::full_like(x, std::numeric_limits<float>::quiet_NaN());
      },
      3);
  EXPECT_EQ(Optimize(never, *recorded, candidates).status().code(), absl::StatusCode::kInternal);
  // Held-out noises alone are no judges: an error of the fitted ones that is not finite is one, too.
  const testing::FunctionModel held_out_only(
      [&](const at::Tensor& x, const at::Tensor&, const Condition&) {
        return at::where(at::isin(x.select(1, 0), recorded->states[0].slice(0, 0, 6).select(1, 0)).unsqueeze(1),
                         at::full_like(x, std::numeric_limits<float>::infinity()), at::ones_like(x));
      },
      3);
  const auto best = Optimize(held_out_only, *recorded, candidates);
  EXPECT_EQ(best.status().code(), absl::StatusCode::kInternal) << best.status();
}

TEST(OptimizeMultistep, TakesTheBestPlainOneThatIsFiniteOnAllNoises) {
  // Samples move at a pace of 1, and at 1.1 in the middle, where Euler is off by 0.05. Those that are fitted to, at
  // 100, diverge where a sampler visits t = 1/4. Fits are led by way of states that are so large that float32 forgets
  // the noise.
  const testing::FunctionModel model(
      [](const at::Tensor& x, const at::Tensor& t, const Condition&) {
        const at::Tensor time = t.unsqueeze(1), pace = at::where(time == 0.5, at::full_like(x, 1.1), at::ones_like(x));
        return at::where((x > 50).logical_and(time == 0.25),
                         at::full_like(x, std::numeric_limits<float>::infinity()), pace);
      },
      3);
  Recorded recorded;
  recorded.states = at::full({kFine + 1, 8, 3}, 1e8);
  const at::Tensor held_out = at::tensor({-1.0f, 0.5f, 2.0f, 1.0f, -0.5f, 0.0f}).view({2, 3});
  recorded.states[0] = at::cat({at::full({6, 3}, 100.0), held_out});
  recorded.states[kFine] = recorded.states[0] + 1;
  const std::vector<std::vector<int>> candidates = {{0, 12, kFine}, {0, 6, kFine}};
  const auto best = Optimize(model, recorded, candidates);
  ASSERT_TRUE(best.ok()) << best.status();
  const Schedule& schedule = best->schedule;
  EXPECT_EQ(schedule.knots, candidates[0]);
  EXPECT_EQ(schedule.coefficients, AdamsBashforth(TimeGrid::Uniform(2), 1));
  EXPECT_NEAR(schedule.held_out_error, 0.05, 1e-5);
  EXPECT_NEAR(schedule.fit_error, 0.05, 1e-4);
  // Two fits of 8 noises, four plain runs of the 2 that are held out; and of the 6 others the two that are exact where
  // they do not diverge, and the one that won.
  EXPECT_EQ(best->evaluations, 2 * (2 * 8 + 4 * 2 + 3 * 6));
}

TEST(OptimizeMultistep, LetsGoOfTheStatesOfACandidate) {
  const testing::FunctionModel model = CurvedFlow();
  const auto recorded = Record(model, 12);
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  std::optional<c10::weak_intrusive_ptr<c10::StorageImpl>> before;
  int reads = 0;
  const auto states = [&](absl::Span<const int> points) -> absl::StatusOr<at::Tensor> {
    EXPECT_TRUE(!before || before->expired());
    ++reads;
    std::vector<at::Tensor> rows;
    for (const int point : points) rows.push_back(recorded->states[point]);
    const at::Tensor all = at::stack(rows);
    before = all.storage().getWeakStorageImpl();
    return all;
  };
  const std::vector<std::vector<int>> candidates = {{0, 6, 12, 18, 24}, {0, 4, 10, 17, 24}, {0, 3, 6, 9, 24}};
  InlineExecutor executor;
  const auto best = OptimizeMultistep(model, TimeGrid::Uniform(kFine), candidates, states, {}, {}, executor);
  ASSERT_TRUE(best.ok()) << best.status();
  EXPECT_EQ(reads, 3);
  EXPECT_TRUE(before->expired());
  // A refinement does not read what it has no budget for.
  const auto refined = RefineMultistep(model, TimeGrid::Uniform(kFine), *best, states, {}, {}, 2 * 12 * 4, executor);
  ASSERT_TRUE(refined.ok()) << refined.status();
  EXPECT_EQ(reads, 3 + 2);
}

TEST(OptimizeMultistep, VeryFineGridsHaveEulersKnotsAlone) {
  ScheduleSet euler;
  euler.k_max = 257;
  euler.schedules.resize(2);
  euler.schedules[0].knots = {0, 257};
  euler.schedules[1].knots = {0, 100, 257};
  const auto knots = MultistepKnots(TrajectoryGram(257, /*has_pairs=*/false), euler, 2);
  ASSERT_TRUE(knots.ok()) << knots.status();
  EXPECT_EQ((*knots)[0], std::vector<std::vector<int>>{euler.schedules[0].knots});
  EXPECT_EQ((*knots)[1], std::vector<std::vector<int>>{euler.schedules[1].knots});
}

TEST(OptimizeMultistep, ReportsWhatTheStatesReport) {
  const testing::FunctionModel model = CurvedFlow();
  InlineExecutor executor;
  const auto states = [](absl::Span<const int>) -> absl::StatusOr<at::Tensor> { return absl::DataLossError("gone"); };
  const std::vector<std::vector<int>> candidates = {{0, kFine}};
  const auto best = OptimizeMultistep(model, TimeGrid::Uniform(kFine), candidates, states, {}, {}, executor);
  EXPECT_EQ(best.status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace boss
