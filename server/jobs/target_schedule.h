// What a distillation straightens to if it is not Euler's own Bellman schedule.
#pragma once

#include "absl/status/statusor.h"
#include "core/flow/schedule.h"
#include "server/jobs/job_spec.h"
#include "server/store/schedule_set.h"

namespace boss::server {

// The schedule of spec.steps steps in the set that spec.schedule_set names, as Euler's steps take it: knots and times,
// with the cost that an Euler set has for them, without coefficients. \error INVALID_ARGUMENT if the set was not searched on the spec's fine grid for its
// guidance scale, or has no schedule of so many steps; the message begins with the field's name.
absl::StatusOr<Schedule> TargetSchedule(const StoredScheduleSet& stored, const DistillSpec& spec);

}  // namespace boss::server
