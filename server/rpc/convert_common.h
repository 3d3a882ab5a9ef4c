// Values that several services share, between the protocol and the server's own types.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "boss/v1/models.pb.h"
#include "core/flow/schedule.h"
#include "server/store/manifest.h"

namespace boss::server {

// Unspecified is euler. \error UNIMPLEMENTED naming `field` for a solver that this server lacks; INVALID_ARGUMENT for
// an unknown value.
absl::StatusOr<SolverKind> SolverFromProto(v1::Solver solver, absl::string_view field);
v1::Solver ToProto(SolverKind solver);

// \pre `time` is finite.
google::protobuf::Timestamp ToProto(absl::Time time);
// Seconds are cut to the range of google.protobuf.Duration.
google::protobuf::Duration ToProto(absl::Duration duration);
// \error INVALID_ARGUMENT naming `field` for nanoseconds out of range.
absl::StatusOr<absl::Time> TimeFromProto(const google::protobuf::Timestamp& time, absl::string_view field);

// \error INVALID_ARGUMENT naming `field` for values outside of the type's range.
absl::StatusOr<absl::Duration> DurationFromProto(const google::protobuf::Duration& duration, absl::string_view field);

v1::Schedule ToProto(const Schedule& schedule);
// "uniform", "bellman", "explicit"; anything else is SCHEDULE_KIND_UNSPECIFIED.
v1::ScheduleKind ScheduleKindToProto(std::string_view name);
v1::EvaluationRow ToProto(const EvaluationRow& row);

// "jobs/ID", or "" for no job.
std::string JobName(std::string_view id);

}  // namespace boss::server
