// A recorded fine Euler run.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/flow/time_grid.h"

namespace boss {

// Stage 1 of BOSS (Nguyen, Nguyen, Nguyen, ICLR 2024, arXiv 2312.16414) works on these.
struct Trajectory {
  TimeGrid time_grid;     // k_max intervals
  at::Tensor states;      // [k_max + 1, B, ...] float32 on the CPU; states[0] is the noise
  at::Tensor velocities;  // [k_max, B, ...] float32 on the CPU; velocities[i] is the velocity at states[i], time_grid[i]
};

}  // namespace boss
