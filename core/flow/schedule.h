// A path through a fine time grid: which of its points a few-step sampler visits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/flow/step_coefficients.h"
#include "core/flow/time_grid.h"

namespace boss {

enum class SolverKind { kEuler, kHeun, kRk45, kMultistep };

// "euler", "heun", "rk45", "multistep".
std::string_view SolverName(SolverKind solver);
std::optional<SolverKind> ParseSolver(std::string_view name);

// The schedule of exactly K = time_grid.steps() steps that minimises the summed cost over a fine grid of k_max
// intervals, or one from elsewhere. It belongs to one model version, one solver and one guidance scale.
struct Schedule {
  std::vector<int> knots;  // K + 1 indices into the fine grid: first 0, last k_max; empty for one from elsewhere
  TimeGrid time_grid;      // time_grid[i] = fine_grid[knots[i]]
  double total_cost = 0;   // sum of the cost matrix over the K jumps
  SolverKind solver = SolverKind::kEuler;
  // kMultistep only, K of them: how each step uses this velocity and those before it.
  std::vector<StepCoefficients> coefficients;
  // kMultistep only: root mean square error of the results against the fine sampler's from the same noises, over the
  // noises that the coefficients were fitted to, and over others, by which they were chosen.
  double fit_error = 0;
  double held_out_error = 0;
};

// Every schedule that one cost matrix yields: schedules[k - 1] has k steps, k = 1 .. k_max; for kMultistep up to a
// smaller limit, with no cost matrix. Or schedules from elsewhere, by rising steps: then k_max is 0 and there are no
// knots and no costs.
struct ScheduleSet {
  int k_max = 0;
  std::optional<TimeGrid> fine_grid;  // k_max intervals; absent: uniform
  int num_samples = 0;                // trajectories behind the cost matrix, or behind the fits for kMultistep
  int num_held_out = 0;               // kMultistep only: of these, the last ones, not fitted to; 0: not known
  int64_t refinement = 0;             // kMultistep only: evaluations that a search of single times had for each K
  double guidance_scale = 1.0;        // that the trajectories were drawn with
  SolverKind solver = SolverKind::kEuler;
  std::vector<double> cost_matrix;  // (k_max + 1)^2, row-major, upper triangular; squared L2 per sample
  std::vector<Schedule> schedules;

  bool searched() const { return k_max > 0; }
  // \pre searched().
  TimeGrid FineGrid() const { return fine_grid ? *fine_grid : TimeGrid::Uniform(k_max); }
  // The schedule of exactly `steps` steps; nullptr if there is none.
  const Schedule* Find(int steps) const {
    const auto found = std::find_if(schedules.begin(), schedules.end(),
                                    [&](const Schedule& s) { return s.time_grid.steps() == steps; });
    return found == schedules.end() ? nullptr : &*found;
  }
};

}  // namespace boss
