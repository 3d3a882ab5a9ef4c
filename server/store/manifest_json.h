// The parts of a manifest as JSON values, for other documents that hold them.
#pragma once

#include <vector>

#include "core/flow/schedule.h"
#include "server/store/json_reader.h"
#include "server/store/manifest.h"

namespace boss::server {

Json EvaluationRowToJson(const EvaluationRow& row);
absl::StatusOr<EvaluationRow> EvaluationRowFromJson(const Json& json);

// Whether they are a path through the fine grid: rising from 0 to k_max. \error DATA_LOSS.
absl::Status CheckKnots(const std::vector<int>& knots, int k_max);

// Whether a multistep schedule has coefficients for each step and finite errors. \error INVALID_ARGUMENT.
absl::Status CheckFitted(const Schedule& schedule);

// `k_max`: the fine grid that knots are checked against; 0 if there are none.
Json ScheduleToJson(const Schedule& schedule);
absl::StatusOr<Schedule> ScheduleFromJson(const Json& json, int k_max);

}  // namespace boss::server
