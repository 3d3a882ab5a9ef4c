// A version's schedule sets as files: searched ones, and ones that came from elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "core/flow/schedule.h"

namespace boss::server {

struct StoredScheduleSet {
  ScheduleSet set;
  std::string client_name;  // see CheckScheduleSetName; empty: the server names a searched set
  uint64_t seed = 0;        // of the trajectories' noises
  std::string job_id;       // that made it; empty: imported
  absl::Time create_time = absl::UnixEpoch();

  // Unique within a version: client_name, or "bellman-euler-g<guidance>-k<k_max>", or "multistep-g<guidance>-k<k_max>",
  // followed by "-" and eight digits that tell fine grids apart if that is not the uniform one.
  std::string Name() const;
};

// Of a set that a client names: as CheckName, and no name that the server itself gives to a set or to a row of an
// evaluation. \error INVALID_ARGUMENT.
absl::Status CheckScheduleSetName(absl::string_view what, absl::string_view name);

// A searched set has every schedule up to k_max, and costs; one for multistep those up to a limit, each with its
// coefficients, and no costs. Another one has schedules of rising steps, no knots, no costs, and a client_name; it is
// not for multistep. num_held_out is of num_samples; it and refinement are 0 unless the set is for multistep. A
// client_name is none that the server gives to a set; to rows it may have come to give the name since. \error
// INVALID_ARGUMENT.
absl::Status CheckScheduleSet(const StoredScheduleSet& stored);

// For people: that a sampler with this solver and guidance scale is not what the set was made for. Empty if it is.
std::vector<std::string> Mismatches(const StoredScheduleSet& stored, SolverKind solver, double guidance_scale);

// For people: of how many steps the set has schedules, e.g. "in [1, 100] (k_max of the schedules)" or "one of 4, 8".
std::string StepsText(const ScheduleSet& set);

// JSON with the keys k_max, num_samples, guidance_scale, solver, seed, job_id, cost_matrix, schedules and create_time;
// besides "name" if a client chose it, "fine_times" if they are not uniform, "num_held_out" and "refinement" if not 0. A
// schedule consists of knots and total_cost, for multistep also of coefficients ([state, velocities...] a step),
// fit_error and held_out_error; or, in a set that was not searched (k_max is 0), of time_grid. Doubles survive exactly.
std::string ScheduleSetToJson(const StoredScheduleSet& stored);
// \error DATA_LOSS, also for what CheckScheduleSet refuses.
absl::StatusOr<StoredScheduleSet> ScheduleSetFromJson(absl::string_view json);

}  // namespace boss::server
