// Values as people write them on a command line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boss/v1/models.pb.h"
#include "boss/v1/sampling.pb.h"

namespace boss::client {

// Each: \error INVALID_ARGUMENT saying what was got and what is expected.

// "auto", "bellman", "uniform", or times "0,0.25,0.6,1".
struct ScheduleArgument {
  boss::v1::ScheduleKind kind = boss::v1::SCHEDULE_KIND_UNSPECIFIED;
  std::vector<double> time_grid;
};
absl::StatusOr<ScheduleArgument> ParseSchedule(absl::string_view text);

absl::StatusOr<boss::v1::Solver> ParseSolver(absl::string_view text);
// "heun,multistep".
absl::StatusOr<std::vector<boss::v1::Solver>> ParseSolvers(absl::string_view text);

// "auto", "png", "uint8", "float32", "latents".
absl::StatusOr<boss::v1::OutputFormat> ParseOutputFormat(absl::string_view text);

// "3", "0,1,-1", "0-9", "0-3,7".
absl::StatusOr<std::vector<int64_t>> ParseIntegers(absl::string_view text);

// "KEY=VALUE"; the value may contain '='.
absl::StatusOr<std::pair<std::string, std::string>> ParseKeyValue(absl::string_view text);

}  // namespace boss::client
