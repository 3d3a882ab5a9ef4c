// The best multistep schedule of each K: times from two searches, coefficients fitted on them, chosen by the error over
// all noises; plain coefficients where they are better on the noises that were held out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/step_executor.h"
#include "core/flow/schedule.h"
#include "core/flow/velocity_model.h"
#include "core/stepsize/fit_multistep.h"
#include "core/stepsize/trajectory_gram.h"

namespace boss {

// The costs of pairs take 8 k_max^3 bytes: finer grids have none.
constexpr int kMaxPairIntervals = 256;

// Candidates of the K + 1 visited points for K = 1 .. max_steps, at index K - 1: the knots of Euler's schedules, then,
// with at most kMaxPairIntervals, those of the recursion over pairs where they are others. `gram`: of the trajectories
// behind `euler`. \pre max_steps <= euler.k_max. \error as PairStepCosts and PairBellmanTable.
absl::StatusOr<std::vector<std::vector<std::vector<int>>>> MultistepKnots(const TrajectoryGram& gram,
                                                                          const ScheduleSet& euler, int max_steps);

// The fine states at some points of the fine grid: [points, N, ...] float32 or float64 on the CPU, the same noises
// on every call.
using FineStatesAt = absl::FunctionRef<absl::StatusOr<at::Tensor>(absl::Span<const int> points)>;

struct OptimizedMultistep {
  Schedule schedule;        // solver kMultistep, with coefficients and errors; its total_cost is 0
  int64_t evaluations = 0;  // velocity evaluations that it took, of single samples (without guidance)
};

// For each of `candidates`, points of `fine_grid` of the same number of steps: the coefficients that FitMultistep
// finds, and those of Adams and Bashforth of order 1, which is plain Euler, and of order 2. Of the fits it takes the
// one with the least error over all noises: a step has few coefficients, so that a fit is hardly better on its own
// noises, and the held-out ones alone are few to choose times by. Of the plain ones, the best on the held-out noises
// whose error is finite on the fitted ones, too; and of these two the better one there, so that on these noises it is
// never worse than Euler on any of the candidates, unless that diverges. Evaluations: K a noise and candidate, 2 K a
// held-out noise and candidate, and K a fitted noise for the plain one that wins and for those that diverge before it.
// `condition`: of the N noises. Memory: the states of one candidate, and about ten single states of the N noises.
// \error INTERNAL if the sampler diverges on every candidate; as FitMultistep and `states`.
absl::StatusOr<OptimizedMultistep> OptimizeMultistep(const VelocityModel& model, const TimeGrid& fine_grid,
                                                     absl::Span<const std::vector<int>> candidates, FineStatesAt states,
                                                     const Condition& condition, const MultistepFitOptions& options,
                                                     StepExecutor& executor);

// A coordinate search from `start`, of the true error: moves one inner time after the other to other points of the fine
// grid, far ones first, fits the coefficients again, and keeps what lowers the error on the held-out noises. Takes at
// most `max_evaluations` velocity evaluations of single samples, and adds those that it took. \error as
// OptimizeMultistep.
absl::StatusOr<OptimizedMultistep> RefineMultistep(const VelocityModel& model, const TimeGrid& fine_grid,
                                                   OptimizedMultistep start, FineStatesAt states,
                                                   const Condition& condition, const MultistepFitOptions& options,
                                                   int64_t max_evaluations, StepExecutor& executor);

}  // namespace boss
