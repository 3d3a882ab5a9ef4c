#include "server/rpc/convert_job.h"

#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_common.h"
#include "server/rpc/convert_job_spec.h"
#include "server/rpc/filter.h"
#include "server/rpc/status.h"

namespace boss::server {
namespace {

v1::Job::State ToProto(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return v1::Job::QUEUED;
    case JobState::kRunning:
      return v1::Job::RUNNING;
    case JobState::kPausing:
      return v1::Job::PAUSING;
    case JobState::kPaused:
      return v1::Job::PAUSED;
    case JobState::kCancelling:
      return v1::Job::CANCELLING;
    case JobState::kSucceeded:
      return v1::Job::SUCCEEDED;
    case JobState::kFailed:
      return v1::Job::FAILED;
    case JobState::kCancelled:
      return v1::Job::CANCELLED;
  }
  return v1::Job::STATE_UNSPECIFIED;
}

v1::Job::Kind ToProto(JobKind kind) {
  switch (kind) {
    case JobKind::kTrain:
      return v1::Job::TRAIN;
    case JobKind::kOptimizeStepsizes:
      return v1::Job::OPTIMIZE_STEPSIZES;
    case JobKind::kDistill:
      return v1::Job::DISTILL;
    case JobKind::kEvaluate:
      return v1::Job::EVALUATE;
  }
  return v1::Job::KIND_UNSPECIFIED;
}

v1::JobStage ToProto(JobStage stage) {
  switch (stage) {
    case JobStage::kNone:
      return v1::JOB_STAGE_UNSPECIFIED;
    case JobStage::kPreparing:
      return v1::JOB_STAGE_PREPARING;
    case JobStage::kTrajectories:
      return v1::JOB_STAGE_TRAJECTORIES;
    case JobStage::kCostMatrix:
      return v1::JOB_STAGE_COST_MATRIX;
    case JobStage::kSchedule:
      return v1::JOB_STAGE_SCHEDULE;
    case JobStage::kPairs:
      return v1::JOB_STAGE_PAIRS;
    case JobStage::kStraightening:
      return v1::JOB_STAGE_STRAIGHTENING;
    case JobStage::kTraining:
      return v1::JOB_STAGE_TRAINING;
    case JobStage::kEvaluation:
      return v1::JOB_STAGE_EVALUATION;
    case JobStage::kPublishing:
      return v1::JOB_STAGE_PUBLISHING;
  }
  return v1::JOB_STAGE_UNSPECIFIED;
}

v1::JobProgress ToProto(const JobProgress& progress) {
  v1::JobProgress proto;
  proto.set_stage(ToProto(progress.stage));
  proto.set_step(progress.step);
  proto.set_total_steps(progress.total_steps);
  proto.set_fraction(progress.fraction);
  if (progress.time_left != absl::InfiniteDuration()) *proto.mutable_eta() = server::ToProto(progress.time_left);
  proto.set_train_step(progress.train_step);
  proto.set_samples_per_second(progress.samples_per_second);
  proto.set_stage_index(progress.stage_index);
  proto.set_stage_count(progress.stage_count);
  return proto;
}

v1::JobMetrics ToProto(const JobMetrics& metrics) {
  v1::JobMetrics proto;
  proto.set_train_step(metrics.train_step);
  proto.set_loss(metrics.loss);
  proto.set_gradient_norm(metrics.gradient_norm);
  proto.set_learning_rate(metrics.learning_rate);
  if (metrics.held_out_loss) proto.set_held_out_loss(*metrics.held_out_loss);
  proto.mutable_segment_held_out_loss()->Add(metrics.segment_held_out_loss.begin(),
                                             metrics.segment_held_out_loss.end());
  proto.set_samples_per_second(metrics.samples_per_second);
  return proto;
}

v1::LogMessage::Severity ToProto(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return v1::LogMessage::INFO;
    case Severity::kWarning:
      return v1::LogMessage::WARNING;
    case Severity::kError:
      return v1::LogMessage::ERROR;
  }
  return v1::LogMessage::SEVERITY_UNSPECIFIED;
}

v1::JobResult ToProto(const JobResult& result) {
  v1::JobResult proto;
  for (const EvaluationRow& row : result.evaluation) *proto.add_evaluation() = server::ToProto(row);
  proto.set_schedule_set(result.schedule_set);
  proto.set_schedule_model(result.schedule_version);
  if (result.schedule) *proto.mutable_schedule() = server::ToProto(*result.schedule);
  proto.set_velocity_evaluations(result.velocity_evaluations);
  return proto;
}

struct PayloadToProto {
  v1::JobEvent& proto;

  void operator()(const StateChange& change) {
    v1::StateChange& to = *proto.mutable_state_change();
    if (change.from) to.set_from(ToProto(*change.from));
    to.set_to(ToProto(change.to));
    to.set_reason(change.reason);
    if (!change.error.ok()) *to.mutable_error() = server::ToProto(change.error);
  }
  void operator()(const StageChange& change) {
    proto.mutable_stage_change()->set_from(ToProto(change.from));
    proto.mutable_stage_change()->set_to(ToProto(change.to));
  }
  void operator()(const JobProgress& progress) { *proto.mutable_progress() = ToProto(progress); }
  void operator()(const JobMetrics& metrics) { *proto.mutable_metrics() = ToProto(metrics); }
  void operator()(const JobMessage& message) {
    proto.mutable_message()->set_severity(ToProto(message.severity));
    proto.mutable_message()->set_text(message.text);
  }
  void operator()(const JobPreview& preview) {
    v1::PreviewGrid& to = *proto.mutable_preview();
    to.set_train_step(preview.train_step);
    to.set_png(preview.png);
    to.set_rows(preview.rows);
    to.set_columns(preview.columns);
  }
  void operator()(const EvaluationRow& row) { *proto.mutable_evaluation() = server::ToProto(row); }
};

template <typename Value>
absl::Status AppendEnum(const FilterTerm& term, std::optional<Value> value, std::vector<Value>& values) {
  if (!value) return FieldError("filter", absl::StrCat("unknown ", term.key, " \"", term.value, "\""));
  if (!values.empty()) return FieldError("filter", absl::StrCat(term.key, " may be given once"));
  values.push_back(*value);
  return absl::OkStatus();
}

}  // namespace

v1::Job ToProto(const Job& job) {
  v1::Job proto;
  proto.set_name(JobName(job.id));
  proto.set_kind(ToProto(job.kind()));
  proto.set_state(ToProto(job.state));
  proto.set_stage(ToProto(job.progress.stage));
  *proto.mutable_progress() = ToProto(job.progress);
  *proto.mutable_metrics() = ToProto(job.metrics);
  if (!job.error.ok()) *proto.mutable_error() = ToProto(job.error);
  proto.mutable_input_models()->Add(job.input_versions.begin(), job.input_versions.end());
  proto.set_output_model(job.output_version);
  JobSpecToProto(job.spec, proto);
  v1::JobOptions& options = *proto.mutable_options();
  options.set_display_name(job.display_name);
  options.mutable_labels()->insert(job.labels.begin(), job.labels.end());
  options.set_priority(job.priority);
  if (job.deadline != absl::InfiniteFuture()) *options.mutable_deadline() = ToProto(job.deadline);
  *proto.mutable_result() = ToProto(job.result);
  proto.set_request_id(job.request_id);
  const auto unless_unset = [](absl::Time time, auto setter) {
    if (time != absl::InfinitePast()) *setter() = ToProto(time);
  };
  unless_unset(job.create_time, [&] { return proto.mutable_create_time(); });
  unless_unset(job.start_time, [&] { return proto.mutable_start_time(); });
  unless_unset(job.end_time, [&] { return proto.mutable_end_time(); });
  unless_unset(job.update_time, [&] { return proto.mutable_update_time(); });
  if (job.retention != absl::InfiniteDuration()) *options.mutable_retention() = server::ToProto(job.retention);
  options.set_max_crashes(job.max_crashes);
  if (job.expire_time() != absl::InfiniteFuture()) *proto.mutable_expire_time() = ToProto(job.expire_time());
  proto.set_state_reason(job.state_reason);
  proto.set_starts(job.starts);
  proto.set_last_sequence(job.last_sequence);
  proto.set_owner(job.owner);
  return proto;
}

v1::JobEvent ToProto(const JobEvent& event) {
  v1::JobEvent proto;
  proto.set_sequence(event.sequence);
  *proto.mutable_time() = ToProto(event.time);
  std::visit(PayloadToProto{proto}, event.payload);
  return proto;
}

absl::StatusOr<std::string> JobIdFromName(const std::string& name) {
  absl::string_view id = name;
  if (!absl::ConsumePrefix(&id, "jobs/") || id.empty()) {
    return FieldError("name", absl::StrCat("must be \"jobs/ID\", got \"", name, "\""));
  }
  return std::string(id);
}

absl::StatusOr<JobPageRequest> JobPageRequestFromProto(const v1::ListJobsRequest& proto) {
  JobPageRequest page;
  if (proto.page_size() != 0) page.page_size = proto.page_size();
  page.page_token = proto.page_token();
  if (proto.order_by() == "create_time" || proto.order_by() == "create_time asc") {
    page.oldest_first = true;
  } else if (!proto.order_by().empty() && proto.order_by() != "create_time desc") {
    return FieldError("order_by",
                      absl::StrCat("must be \"create_time\" or \"create_time desc\", got \"", proto.order_by(), "\""));
  }
  BOSS_ASSIGN_OR_RETURN(const std::vector<FilterTerm> terms, ParseFilter(proto.filter()));
  for (const FilterTerm& term : terms) {
    absl::string_view label = term.key;
    if (term.key == "state") {
      BOSS_RETURN_IF_ERROR(AppendEnum(term, ParseJobState(term.value), page.filter.states));
    } else if (term.key == "kind") {
      BOSS_RETURN_IF_ERROR(AppendEnum(term, ParseJobKind(term.value), page.filter.kinds));
    } else if (term.key == "model") {
      page.filter.model = term.value;
    } else if (term.key == "owner") {
      page.filter.owner = term.value;
    } else if (absl::ConsumePrefix(&label, "labels.")) {
      page.filter.labels[std::string(label)] = term.value;
    } else {
      return FieldError("filter",
                        absl::StrCat("unknown field ", term.key, ": there are state, kind, model, owner and labels.KEY"));
    }
  }
  return page;
}

}  // namespace boss::server
