#include "server/rpc/convert_common.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"

namespace boss::server {
namespace {

// As google.protobuf.Duration states.
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
constexpr int kMaxNanos = 999'999'999;

}  // namespace

absl::StatusOr<SolverKind> SolverFromProto(v1::Solver solver, absl::string_view field) {
  switch (solver) {
    case v1::SOLVER_UNSPECIFIED:
    case v1::SOLVER_EULER:
      return SolverKind::kEuler;
    case v1::SOLVER_HEUN:
      return SolverKind::kHeun;
    case v1::SOLVER_RK45:
      return SolverKind::kRk45;
    case v1::SOLVER_MULTISTEP:
      return SolverKind::kMultistep;
    default:
      return FieldError(field, absl::StrCat("unknown solver ", static_cast<int>(solver)));
  }
}

v1::Solver ToProto(SolverKind solver) {
  switch (solver) {
    case SolverKind::kEuler:
      return v1::SOLVER_EULER;
    case SolverKind::kHeun:
      return v1::SOLVER_HEUN;
    case SolverKind::kRk45:
      return v1::SOLVER_RK45;
    case SolverKind::kMultistep:
      return v1::SOLVER_MULTISTEP;
  }
  return v1::SOLVER_UNSPECIFIED;
}

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp proto;
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto.set_seconds(seconds);
  proto.set_nanos(static_cast<int>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return proto;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  const absl::Duration limit = absl::Seconds(kMaxDurationSeconds);
  duration = std::clamp(duration, -limit, limit);
  google::protobuf::Duration proto;
  absl::Duration rest;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  proto.set_nanos(static_cast<int>(absl::ToInt64Nanoseconds(rest)));
  return proto;
}

absl::StatusOr<absl::Time> TimeFromProto(const google::protobuf::Timestamp& time, absl::string_view field) {
  if (time.nanos() < 0 || time.nanos() > kMaxNanos) {
    return FieldError(field, absl::StrCat("nanos must be in [0, 999999999], got ", time.nanos()));
  }
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

absl::StatusOr<absl::Duration> DurationFromProto(const google::protobuf::Duration& duration, absl::string_view field) {
  const bool one_sign =
      (duration.seconds() >= 0 && duration.nanos() >= 0) || (duration.seconds() <= 0 && duration.nanos() <= 0);
  if (!one_sign || std::abs(duration.nanos()) > kMaxNanos || duration.seconds() > kMaxDurationSeconds ||
      duration.seconds() < -kMaxDurationSeconds) {
    return FieldError(field, absl::StrCat("is no duration: ", duration.seconds(), " s and ", duration.nanos(), " ns"));
  }
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

v1::Schedule ToProto(const Schedule& schedule) {
  v1::Schedule proto;
  proto.set_steps(schedule.time_grid.steps());
  proto.mutable_knots()->Add(schedule.knots.begin(), schedule.knots.end());
  const absl::Span<const double> times = schedule.time_grid.times();
  proto.mutable_time_grid()->Add(times.begin(), times.end());
  proto.set_total_cost(schedule.total_cost);
  if (schedule.solver != SolverKind::kMultistep) return proto;
  for (const StepCoefficients& step : schedule.coefficients) {
    v1::StepCoefficients& coefficients = *proto.add_coefficients();
    coefficients.set_state(step.state);
    coefficients.mutable_velocities()->Add(step.velocities.begin(), step.velocities.end());
  }
  proto.set_fit_error(schedule.fit_error);
  proto.set_held_out_error(schedule.held_out_error);
  return proto;
}

v1::ScheduleKind ScheduleKindToProto(std::string_view name) {
  if (name == "uniform") return v1::SCHEDULE_KIND_UNIFORM;
  if (name == "bellman") return v1::SCHEDULE_KIND_BELLMAN;
  if (name == "named") return v1::SCHEDULE_KIND_NAMED;
  if (name == "explicit") return v1::SCHEDULE_KIND_EXPLICIT;
  return v1::SCHEDULE_KIND_UNSPECIFIED;
}

v1::EvaluationRow ToProto(const EvaluationRow& row) {
  v1::EvaluationRow proto;
  proto.set_model(row.version);
  proto.set_steps(row.steps);
  proto.set_schedule(ScheduleKindToProto(row.schedule));
  proto.set_solver(ToProto(row.solver));
  proto.set_nfe(row.nfe);
  proto.set_trajectory_error(row.trajectory_error);
  if (row.straightness) proto.set_straightness(*row.straightness);
  if (row.frechet_distance) proto.set_frechet_distance(*row.frechet_distance);
  proto.set_samples_per_second(row.samples_per_second);
  proto.set_num_samples(row.num_samples);
  proto.set_guidance_scale(row.guidance_scale);
  proto.set_label(row.label);
  proto.set_feature_network(row.features);
  proto.set_baseline(row.baseline);
  proto.set_baseline_steps(row.baseline_steps);
  proto.set_schedule_set(row.schedule_set);
  return proto;
}

std::string JobName(std::string_view id) { return id.empty() ? "" : "jobs/" + std::string(id); }

}  // namespace boss::server
