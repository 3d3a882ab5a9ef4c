// Stage 1 of BOSS for a version: trajectories, cost matrix, schedules of every K.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/jobs/job_context.h"

namespace boss::server {

// Weight of the stage of trajectories in a plan; the cost matrix and the recursion cost next to nothing beside it.
double SearchWeight(const OptimizeStepsizesSpec& spec);
// That of the stage kSchedule: what multistep schedules take, if the spec asks for them.
double ScheduleWeight(const OptimizeStepsizesSpec& spec);

// Goes through the stages kTrajectories, kCostMatrix and kSchedule, and attaches the set to the version. The sums
// behind the costs are saved in the job's folder after each batch of trajectories, so that a run that goes on draws the
// missing ones only, with the same result. Then attaches the multistep set that the spec asks for, likewise
// (server/jobs/multistep_search.h). `spec.model` is not read. Returns Euler's set.
absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> SearchSchedules(JobContext& context,
                                                                         const VelocityModel& model,
                                                                         const VersionKey& key,
                                                                         const OptimizeStepsizesSpec& spec);

}  // namespace boss::server
