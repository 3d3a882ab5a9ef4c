#include "tests/bench/multistep_tables.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/root_mean_square.h"
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
    BOSS_ASSIGN_OR_RETURN(const TimeGrid pair_grid, study->fine_grid().At(knots));
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

absl::Status PrintPictures(const StudyOptions& options) {
  constexpr int kSteps = 4;
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  std::printf("| %d steps | pixels | neighbours | trajectory error |\n| --- | --- | --- | --- |\n", kSteps);
  const auto print = [&](const char* name, const at::Tensor& samples) {
    const at::Tensor left = samples.slice(-1, 0, -1), right = samples.slice(-1, 1);
    std::printf("| %s | %.3f | %.3f | %.4f |\n", name, samples.std().item<double>(), RootMeanSquare(left, right),
                RootMeanSquare(samples, study->fine_samples()));
  };
  const auto draw_and_print = [&](const char* name, const VelocityModel& model, const TimeGrid& grid,
                                  absl::Span<const StepCoefficients> coefficients) -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor samples, study->Samples(model, grid, coefficients));
    print(name, samples);
    return absl::OkStatus();
  };
  const TimeGrid uniform = TimeGrid::Uniform(kSteps);
  const TimeGrid& bellman = stage1.euler.schedules[kSteps - 1].time_grid;
  BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep best, study->Optimize(stage1, kSteps));
  Straightening straightening(*study, "bellman", EulerKnots(stage1));
  BOSS_ASSIGN_OR_RETURN(const VelocityModel* const straightened, straightening.Model(kSteps));
  print("fine samples", study->fine_samples());
  BOSS_RETURN_IF_ERROR(draw_and_print("uniform Euler", study->model(), uniform, AdamsBashforth(uniform, 1)));
  BOSS_RETURN_IF_ERROR(draw_and_print("Bellman Euler", study->model(), bellman, AdamsBashforth(bellman, 1)));
  BOSS_RETURN_IF_ERROR(
      draw_and_print("multistep", study->model(), best.schedule.time_grid, best.schedule.coefficients));
  return draw_and_print("straightened", *straightened, bellman, AdamsBashforth(bellman, 1));
}

absl::Status PrintStraightened(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Study> study, Study::Create(options));
  BOSS_RETURN_IF_ERROR(study->PrepareErrors());
  BOSS_ASSIGN_OR_RETURN(const Stage1 stage1, study->Search(options.fit));
  std::vector<std::vector<int>> multistep_knots = EulerKnots(stage1);
  for (const int steps : kFewSteps) {
    BOSS_ASSIGN_OR_RETURN(const OptimizedMultistep best, study->Optimize(stage1, steps));
    multistep_knots[static_cast<size_t>(steps) - 1] = best.schedule.knots;
  }
  Straightening bellman(*study, "bellman", EulerKnots(stage1));
  Straightening multistep(*study, "multistep", std::move(multistep_knots));

  // Euler's steps, and coefficients that were fitted to the noises held out of the pairs.
  const auto row = [&](Straightening& straightening, int steps) -> absl::StatusOr<std::string> {
    BOSS_ASSIGN_OR_RETURN(const VelocityModel* const model, straightening.Model(steps));
    BOSS_ASSIGN_OR_RETURN(const TimeGrid grid, study->fine_grid().At(straightening.knots(steps)));
    BOSS_ASSIGN_OR_RETURN(const double euler, study->TrajectoryError(*model, grid, AdamsBashforth(grid, 1)));
    BOSS_ASSIGN_OR_RETURN(const at::Tensor states, straightening.HeldOutStates(steps));
    BOSS_ASSIGN_OR_RETURN(const Schedule fitted, FitOn(*model, states, straightening.HeldOutCondition(), grid));
    BOSS_ASSIGN_OR_RETURN(const double error, study->TrajectoryError(*model, grid, fitted.coefficients));
    return absl::StrFormat("%.4f | %.4f | ", euler, error);
  };
  // Fitted to other states: the teacher's from the search's noises, and its own fine ones.
  const auto other_fits = [&](int steps) -> absl::StatusOr<std::string> {
    BOSS_ASSIGN_OR_RETURN(const VelocityModel* const model, bellman.Model(steps));
    const std::vector<int>& knots = bellman.knots(steps);
    BOSS_ASSIGN_OR_RETURN(const TimeGrid grid, study->fine_grid().At(knots));
    const at::Tensor teacher_states = study->StatesAt(knots, options.fit);
    const Condition condition = study->ConditionOf(0, options.fit);
    BOSS_ASSIGN_OR_RETURN(const Schedule search, FitOn(*model, teacher_states, condition, grid));
    BOSS_ASSIGN_OR_RETURN(const double search_error, study->TrajectoryError(*model, grid, search.coefficients));
    InlineExecutor executor;
    BOSS_ASSIGN_OR_RETURN(const Trajectory own, RecordTrajectory(*model, teacher_states[0].contiguous(), condition,
                                                                 study->fine_grid(), executor));
    const at::Tensor points = at::tensor(std::vector<int64_t>(knots.begin(), knots.end()), at::kLong);
    BOSS_ASSIGN_OR_RETURN(const Schedule itself, FitOn(*model, own.states.index_select(0, points), condition, grid));
    BOSS_ASSIGN_OR_RETURN(const double own_error, study->TrajectoryError(*model, grid, itself.coefficients));
    return absl::StrFormat("%.4f | %.4f | ", search_error, own_error);
  };
  std::printf(
      "| K | Bellman times, Euler | fitted, noises held out of the pairs | fitted, the search's noises | fitted to its "
      "own fine states | multistep's times, Euler | fitted, noises held out of the pairs |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n");
  constexpr int64_t kRows = std::size(kFewSteps);
  std::string cells[kRows][3];
  BOSS_RETURN_IF_ERROR(ParallelFor(options.threads, 3 * kRows, [&](int64_t i) -> absl::Status {
    const int steps = kFewSteps[i / 3];
    const int64_t part = i % 3;
    absl::StatusOr<std::string> text = part == 1 ? other_fits(steps) : row(part == 0 ? bellman : multistep, steps);
    BOSS_RETURN_IF_ERROR(text.status());
    cells[i / 3][part] = *std::move(text);
    return absl::OkStatus();
  }));
  for (int64_t i = 0; i < kRows; ++i)
    std::printf("| %d | %s%s%s\n", kFewSteps[i], cells[i][0].c_str(), cells[i][1].c_str(), cells[i][2].c_str());
  return absl::OkStatus();
}

}  // namespace boss
