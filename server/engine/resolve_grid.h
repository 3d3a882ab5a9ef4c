// The times of a sampling request, and where they come from.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/step_coefficients.h"
#include "core/flow/time_grid.h"
#include "server/engine/model_registry.h"
#include "server/engine/sample_request.h"
#include "server/store/model_store.h"

namespace boss::server {

struct ResolvedGrid {
  TimeGrid time_grid;
  ScheduleSource schedule = ScheduleSource::kUniform;
  std::string schedule_set;
  std::vector<std::string> warnings;
  // Of a multistep schedule, which then is the one to take, if multistep is asked for or the model chooses.
  std::vector<StepCoefficients> coefficients;
};

// \pre CheckRequest(request, limits) is OK. `default_steps`: of a request and a version that name none. Reads schedules
// from `store`. \error INVALID_ARGUMENT with the field; FAILED_PRECONDITION with the reason SCHEDULE_MISSING, saying
// which job makes one; DATA_LOSS for corrupt schedules.
absl::StatusOr<ResolvedGrid> ResolveGrid(const SampleRequest& request, const LoadedModel& model,
                                         const ModelStore& store, int default_steps);

}  // namespace boss::server
