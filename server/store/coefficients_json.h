// The coefficients of a multistep schedule in the store's documents.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/schedule.h"
#include "server/store/json_reader.h"

namespace boss::server {

// Whether there are coefficients for each step, finite ones, of no more velocities than there are by then. \error
// INVALID_ARGUMENT.
absl::Status CheckCoefficients(const Schedule& schedule);

// A list a step: the state's coefficient, then the velocities', the newest first.
Json CoefficientsToJson(const std::vector<StepCoefficients>& steps);
// \error DATA_LOSS for a list that is too short.
absl::StatusOr<std::vector<StepCoefficients>> CoefficientsFromLists(const std::vector<std::vector<double>>& lists);

}  // namespace boss::server
