// A path through a fine time grid: which of its points a few-step sampler visits.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/flow/time_grid.h"

namespace boss {

enum class SolverKind { kEuler, kHeun, kRk45 };

// "euler", "heun", "rk45".
std::string_view SolverName(SolverKind solver);
std::optional<SolverKind> ParseSolver(std::string_view name);

// The schedule of exactly K = time_grid.steps() steps that minimises the summed cost over a uniform fine grid of k_max intervals. It belongs
// to one model version, one solver and one guidance scale.
struct Schedule {
  std::vector<int> knots;  // K + 1 indices into the fine grid: first 0, last k_max
  TimeGrid time_grid;      // time_grid[i] = knots[i] / k_max
  double total_cost = 0;   // sum of the cost matrix over the K jumps
  SolverKind solver = SolverKind::kEuler;
};

// Every schedule that one cost matrix yields: schedules[k - 1] has k steps, k = 1 .. k_max.
struct ScheduleSet {
  int k_max = 0;
  int num_samples = 0;          // trajectories behind the cost matrix
  double guidance_scale = 1.0;  // that the trajectories were drawn with
  SolverKind solver = SolverKind::kEuler;
  std::vector<double> cost_matrix;  // (k_max + 1)^2, row-major, upper triangular; squared L2 per sample
  std::vector<Schedule> schedules;
};

}  // namespace boss
