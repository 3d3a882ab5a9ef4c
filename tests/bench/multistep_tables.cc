#include "tests/bench/multistep_tables.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/flow/multistep.h"
#include "core/flow/noise.h"
#include "core/solver/record_trajectory.h"
#include "core/stepsize/step_costs.h"
#include "tests/bench/straightened.h"

namespace boss {
namespace {

constexpr int64_t kBatch = 32;
constexpr int64_t kNumbersOfNoises[] = {16, 32, 64, 128, 256};
constexpr int kFewSteps[] = {2, 4, 6, 8};
constexpr int kOrders[] = {2, 3, Study::kMostSteps};
constexpr int64_t kFitsOfRefinement[] = {16, 64};

// Fitted in sequence on the grid.
absl::StatusOr<Schedule> FitOn(const VelocityModel& model, const at::Tensor& states, const Condition& condition,
                               const TimeGrid& grid) {
  InlineExecutor executor;
  BOSS_ASSIGN_OR_RETURN(MultistepFit fit,
                        FitMultistep(model, states, condition, grid, {.batch_size = kBatch}, executor));
  return Schedule{.time_grid = grid,
                  .coefficients = std::move(fit.coefficients),
                  .fit_error = fit.fit_error,
                  .held_out_error = fit.held_out_error};
}

}  // namespace

absl::Status PrintMethods(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  const auto judge = [&](const TimeGrid& grid, const std::vector<StepCoefficients>& coefficients) {
    return study->TrajectoryError(study->model(), grid, coefficients);
  };
  std::printf(
      "| K | Euler, uniform | Euler, Bellman | Adams-Bashforth 2, uniform | pairs, fitted step by step | pairs, "
      "fitted in sequence | Bellman times, fitted in sequence | multistep / Euler, Bellman "
      "|\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    const size_t index = static_cast<size_t>(steps) - 1;
    const TimeGrid uniform = TimeGrid::Uniform(steps);
    const Schedule& bellman = stage1.euler.schedules[index];
    const std::vector<int>& knots = stage1.knots[index].back();
    BOSS_ASSIGN_OR_RETURN(const TimeGrid pair_grid, study->GridOf(knots));
    std::vector<StepCoefficients> local{FitFirstStep(stage1.gram, knots[0], knots[1]).coefficients};
    for (size_t k = 1; k < index + 1; ++k)
      local.push_back(FitPairStep(stage1.gram, knots[k - 1], knots[k], knots[k + 1]).coefficients);
    BOSS_ASSIGN_OR_RETURN(const double euler_uniform, judge(uniform, AdamsBashforth(uniform, 1)));
    BOSS_ASSIGN_OR_RETURN(const double euler_bellman, judge(bellman.time_grid, AdamsBashforth(bellman.time_grid, 1)));
    BOSS_ASSIGN_OR_RETURN(const double ab2, judge(uniform, AdamsBashforth(uniform, 2)));
    BOSS_ASSIGN_OR_RETURN(const double pairs_local, judge(pair_grid, local));
    const auto fit_and_judge = [&](const std::vector<int>& points, const TimeGrid& grid) -> absl::StatusOr<double> {
      BOSS_ASSIGN_OR_RETURN(const Schedule fitted, FitOn(study->model(), study->StatesAt(points, options.fit),
                                                         study->ConditionOf(0, options.fit), grid));
      return judge(grid, fitted.coefficients);
    };
    BOSS_ASSIGN_OR_RETURN(const double pairs_fitted, fit_and_judge(knots, pair_grid));
    BOSS_ASSIGN_OR_RETURN(const double bellman_fitted, fit_and_judge(bellman.knots, bellman.time_grid));
    BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep best, study->Optimize(stage1, steps));
    BOSS_ASSIGN_OR_RETURN(const double chosen, judge(best.schedule.time_grid, best.schedule.coefficients));
    std::printf("| %d | %.4f | %.4f | %.4f | %.4f | %.4f | %.4f | %.2f |\n", steps, euler_uniform, euler_bellman, ab2,
                pairs_local, pairs_fitted, bellman_fitted, chosen / euler_bellman);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status PrintNumbersOfNoises(StudyOptions options) {
  options.fit = kNumbersOfNoises[std::size(kNumbersOfNoises) - 1];
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  std::printf("| N |");
  for (const int steps : kFewSteps) std::printf(" K = %d: judged | held out | Euler, Bellman |", steps);
  std::printf("\n| --- |");
  for (size_t i = 0; i < 3 * std::size(kFewSteps); ++i) std::printf(" --- |");
  std::printf("\n");
  for (const int64_t fit : kNumbersOfNoises) {
    BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(fit));
    std::printf("| %ld |", static_cast<long>(fit));
    for (const int steps : kFewSteps) {
      BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep best, study->Optimize(stage1, steps));
      const TimeGrid& bellman = stage1.euler.schedules[static_cast<size_t>(steps) - 1].time_grid;
      BOSS_ASSIGN_OR_RETURN(const double error, study->TrajectoryError(study->model(), best.schedule.time_grid,
                                                                       best.schedule.coefficients));
      BOSS_ASSIGN_OR_RETURN(const double euler,
                            study->TrajectoryError(study->model(), bellman, AdamsBashforth(bellman, 1)));
      std::printf(" %.4f | %.4f | %.4f |", error, best.schedule.held_out_error, euler);
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return absl::OkStatus();
}

absl::Status PrintOrders(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  std::printf("| K | 2 velocities | 3 | all |\n| --- | --- | --- | --- |\n");
  for (int steps = 2; steps <= Study::kMostSteps; ++steps) {
    std::printf("| %d |", steps);
    for (const int order : kOrders) {
      BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep best, study->Optimize(stage1, steps, order));
      BOSS_ASSIGN_OR_RETURN(const double error, study->TrajectoryError(study->model(), best.schedule.time_grid,
                                                                       best.schedule.coefficients));
      std::printf(" %.4f (%d) |", error, MostVelocities(best.schedule.coefficients));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return absl::OkStatus();
}

absl::Status PrintRefinement(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  std::printf("| K | fits | evaluations | held out | judged | points |\n| --- | --- | --- | --- | --- | --- |\n");
  for (const int steps : kFewSteps) {
    BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep start, study->Optimize(stage1, steps));
    const auto print = [&](int64_t fits, const OptimizedMultistep& result) -> absl::Status {
      const Schedule& schedule = result.schedule;
      BOSS_ASSIGN_OR_RETURN(const double error,
                            study->TrajectoryError(study->model(), schedule.time_grid, schedule.coefficients));
      std::printf("| %d | %ld | %ld | %.4f | %.4f | %s |\n", steps, static_cast<long>(fits),
                  static_cast<long>(result.evaluations), schedule.held_out_error, error,
                  absl::StrJoin(schedule.knots, " ").c_str());
      std::fflush(stdout);
      return absl::OkStatus();
    };
    BOSS_RETURN_IF_ERROR(print(0, start));
    for (const int64_t fits : kFitsOfRefinement) {
      BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep refined, study->Refine(stage1, start, fits * steps * options.fit));
      BOSS_RETURN_IF_ERROR(print(fits, refined));
    }
  }
  return absl::OkStatus();
}

absl::Status PrintStraightened(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  Straightening straightening(*study, stage1.euler);
  std::printf(
      "| K | straightened, Euler | fitted to the teacher, noises held out of the pairs | fitted to the teacher, "
      "the search's noises | fitted to its own fine states |\n| --- | --- | --- | --- | --- |\n");
  for (const int steps : kFewSteps) {
    BOSS_ASSIGN_OR_RETURN(const VelocityModel* const model, straightening.Model(steps));
    const Schedule& bellman = stage1.euler.schedules[static_cast<size_t>(steps) - 1];
    const TimeGrid& grid = bellman.time_grid;
    BOSS_ASSIGN_OR_RETURN(const double euler, study->TrajectoryError(*model, grid, AdamsBashforth(grid, 1)));
    const auto fit_and_judge = [&](const at::Tensor& states, const Condition& condition) -> absl::StatusOr<double> {
      BOSS_ASSIGN_OR_RETURN(const Schedule fitted, FitOn(*model, states, condition, grid));
      return study->TrajectoryError(*model, grid, fitted.coefficients);
    };
    BOSS_ASSIGN_OR_RETURN(const at::Tensor held_out_states, straightening.HeldOutStates(steps));
    BOSS_ASSIGN_OR_RETURN(const double held_out, fit_and_judge(held_out_states, straightening.HeldOutCondition()));
    const at::Tensor teacher_states = study->StatesAt(bellman.knots, options.fit);
    const Condition condition = study->ConditionOf(0, options.fit);
    BOSS_ASSIGN_OR_RETURN(const double search, fit_and_judge(teacher_states, condition));
    InlineExecutor executor;
    BOSS_ASSIGN_OR_RETURN(const Trajectory own, RecordTrajectory(*model, teacher_states[0].contiguous(), condition,
                                                                 study->fine_grid(), executor));
    const at::Tensor rows = at::tensor(std::vector<int64_t>(bellman.knots.begin(), bellman.knots.end()), at::kLong);
    BOSS_ASSIGN_OR_RETURN(const double itself, fit_and_judge(own.states.index_select(0, rows), condition));
    std::printf("| %d | %.4f | %.4f | %.4f | %.4f |\n", steps, euler, held_out, search, itself);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace boss
