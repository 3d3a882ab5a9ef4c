#include "core/stepsize/optimize_multistep.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "core/base/root_mean_square.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/flow/multistep.h"
#include "core/stepsize/pair_bellman.h"
#include "core/stepsize/step_costs.h"

namespace boss {
namespace {

// Plain candidates go up to the order that serves few steps; higher ones belong to the fits' candidates.
constexpr int kMaxPlainOrder = 2;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Of a mean step's intervals, the share that a time is moved by at first.
constexpr int kFirstMoves = 4;

absl::StatusOr<double> RootMeanSquareError(const at::Tensor& samples, const at::Tensor& target) {
  return GuardTorch("multistep error", [&] { return RootMeanSquare(samples, target); });
}

// Root mean square error over the noises that were fitted to and those held out.
double PooledError(const MultistepFit& fit, int64_t count, int64_t split) {
  const double fitted = static_cast<double>(split), held_out = static_cast<double>(count - split);
  const double sum = fitted * fit.fit_error * fit.fit_error + held_out * fit.held_out_error * fit.held_out_error;
  return std::sqrt(sum / (fitted + held_out));
}

}  // namespace

absl::StatusOr<std::vector<std::vector<std::vector<int>>>> MultistepKnots(const TrajectoryGram& gram,
                                                                          const ScheduleSet& euler, int max_steps) {
  std::vector<std::vector<std::vector<int>>> knots;
  for (int steps = 1; steps <= max_steps; ++steps)
    knots.push_back({euler.schedules[static_cast<size_t>(steps) - 1].knots});
  if (euler.k_max > kMaxPairIntervals) return knots;
  BOSS_ASSIGN_OR_RETURN(const std::vector<double> first, FirstStepCosts(gram));
  BOSS_ASSIGN_OR_RETURN(const std::vector<double> pair, PairStepCosts(gram));
  BOSS_ASSIGN_OR_RETURN(const PairBellmanTable pairs, PairBellmanTable::Solve(first, pair, euler.k_max, max_steps));
  for (int steps = 1; steps <= max_steps; ++steps) {
    std::vector<std::vector<int>>& candidates = knots[static_cast<size_t>(steps) - 1];
    std::vector<int> of_pairs = pairs.Knots(steps);
    if (of_pairs != candidates.front()) candidates.push_back(std::move(of_pairs));
  }
  return knots;
}

absl::StatusOr<OptimizedMultistep> OptimizeMultistep(const VelocityModel& model, const TimeGrid& fine_grid,
                                                     absl::Span<const std::vector<int>> candidates, FineStatesAt states,
                                                     const Condition& condition, const MultistepFitOptions& options,
                                                     StepExecutor& executor) {
  OptimizedMultistep result;
  Schedule fitted;
  double least_error = kInfinity;  // of `fitted`, over all noises
  fitted.held_out_error = kInfinity;
  std::vector<Schedule> plain;  // those with a finite error on the held-out noises
  at::Tensor noise, target;     // of the fitted noises, the same for every candidate
  for (const std::vector<int>& knots : candidates) {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor fine, states(knots));
    BOSS_ASSIGN_OR_RETURN(const TimeGrid grid, fine_grid.At(knots));
    const Schedule base{.knots = knots, .time_grid = grid, .solver = SolverKind::kMultistep};
    const int64_t count = fine.size(1), split = FittedNoises(count, options);
    BOSS_ASSIGN_OR_RETURN(MultistepFit fit, FitMultistep(model, fine, condition, grid, options, executor));
    result.evaluations += count * grid.steps();
    if (const double error = PooledError(fit, count, split); error < least_error) {
      least_error = error;
      fitted = base;
      fitted.coefficients = std::move(fit.coefficients);
      fitted.fit_error = fit.fit_error;
      fitted.held_out_error = fit.held_out_error;
    }
    for (int order = 1; order <= std::min({kMaxPlainOrder, options.max_order, grid.steps()}); ++order) {
      std::vector<StepCoefficients> coefficients = AdamsBashforth(grid, order);
      BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                            SolveMultistep(model, fine[0].slice(0, split), condition.Slice(split, count), grid,
                                           coefficients, options.batch_size, executor));
      result.evaluations += (count - split) * grid.steps();
      BOSS_ASSIGN_OR_RETURN(const double error, RootMeanSquareError(samples, fine[grid.steps()].slice(0, split)));
      if (!std::isfinite(error)) continue;
      Schedule& schedule = plain.emplace_back(base);
      schedule.coefficients = std::move(coefficients);
      schedule.held_out_error = error;
    }
    // Copies: the states shall not outlive their candidate.
    if (!noise.defined()) {
      noise = fine[0].slice(0, 0, split).clone();
      target = fine[grid.steps()].slice(0, 0, split).clone();
    }
  }
  std::stable_sort(plain.begin(), plain.end(),
                   [](const Schedule& a, const Schedule& b) { return a.held_out_error < b.held_out_error; });
  for (Schedule& schedule : plain) {
    if (!(schedule.held_out_error < fitted.held_out_error)) break;
    const int64_t count = noise.size(0);
    BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                          SolveMultistep(model, noise, condition.Slice(0, count), schedule.time_grid,
                                         schedule.coefficients, options.batch_size, executor));
    result.evaluations += count * schedule.time_grid.steps();
    BOSS_ASSIGN_OR_RETURN(schedule.fit_error, RootMeanSquareError(samples, target));
    if (!std::isfinite(schedule.fit_error)) continue;
    fitted = std::move(schedule);
    break;
  }
  if (fitted.coefficients.empty())
    return absl::InternalError("multistep: the sampler diverged, no candidate has a finite error");
  result.schedule = std::move(fitted);
  return result;
}

absl::StatusOr<OptimizedMultistep> RefineMultistep(const VelocityModel& model, const TimeGrid& fine_grid,
                                                   OptimizedMultistep start, FineStatesAt states,
                                                   const Condition& condition, const MultistepFitOptions& options,
                                                   int64_t max_evaluations, StepExecutor& executor) {
  OptimizedMultistep best = std::move(start);
  int64_t left = max_evaluations;
  int64_t cost = 0;  // of a fit; known once states have been read
  std::set<std::vector<int>> tried{best.schedule.knots};
  // Whether there was no budget for it.
  const auto try_knots = [&](const std::vector<int>& knots) -> absl::StatusOr<bool> {
    if (!tried.insert(knots).second) return false;
    if (cost > left) return true;
    BOSS_ASSIGN_OR_RETURN(const at::Tensor fine, states(knots));
    BOSS_ASSIGN_OR_RETURN(TimeGrid grid, fine_grid.At(knots));
    cost = fine.size(1) * grid.steps();
    if (cost > left) return true;
    left -= cost;
    best.evaluations += cost;
    BOSS_ASSIGN_OR_RETURN(MultistepFit fit, FitMultistep(model, fine, condition, grid, options, executor));
    if (fit.held_out_error < best.schedule.held_out_error && std::isfinite(fit.fit_error)) {
      best.schedule = {.knots = knots,
                       .time_grid = std::move(grid),
                       .solver = SolverKind::kMultistep,
                       .coefficients = std::move(fit.coefficients),
                       .fit_error = fit.fit_error,
                       .held_out_error = fit.held_out_error};
    }
    return false;
  };
  const int steps = best.schedule.time_grid.steps();
  int distance = std::max(1, fine_grid.steps() / (kFirstMoves * steps));
  while (distance >= 1) {
    const double before = best.schedule.held_out_error;
    for (int i = 1; i < steps; ++i) {
      for (const int move : {-distance, distance}) {
        std::vector<int> knots = best.schedule.knots;
        knots[i] += move;
        if (knots[i] <= knots[i - 1] || knots[i] >= knots[i + 1]) continue;
        BOSS_ASSIGN_OR_RETURN(const bool is_spent, try_knots(knots));
        if (is_spent) return best;
      }
    }
    if (!(best.schedule.held_out_error < before)) distance /= 2;
  }
  return best;
}

}  // namespace boss
