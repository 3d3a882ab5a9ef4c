#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/jobs/job.h"
#include "server/store/json_reader.h"
#include "server/store/manifest_json.h"

namespace boss::server {
namespace {

constexpr std::array<std::pair<JobStage, const char*>, 10> kStages = {{
    {JobStage::kNone, "none"},
    {JobStage::kPreparing, "preparing"},
    {JobStage::kTrajectories, "trajectories"},
    {JobStage::kCostMatrix, "cost matrix"},
    {JobStage::kSchedule, "schedule"},
    {JobStage::kPairs, "pairs"},
    {JobStage::kStraightening, "straightening"},
    {JobStage::kTraining, "training"},
    {JobStage::kEvaluation, "evaluation"},
    {JobStage::kPublishing, "publishing"},
}};

Json StatusToJson(const absl::Status& status) {
  return {{"code", static_cast<int>(status.code())}, {"message", std::string(status.message())}};
}

// Absent for OK.
void PutStatus(Json& json, const absl::Status& status) {
  if (!status.ok()) json["error"] = StatusToJson(status);
}

void ReadStatus(JsonReader& reader, absl::Status& status) {
  Json json;
  reader.Optional("error", json);
  if (json.is_null()) return;
  int code = 0;
  std::string message;
  JsonReader error(json, "error");
  error.Required("code", code);
  error.Optional("message", message);
  if (!error.status().ok()) return reader.Fail(std::string(error.status().message()));
  status = absl::Status(static_cast<absl::StatusCode>(code), message);
}

Json ProgressToJson(const JobProgress& progress) {
  Json json = {{"stage", JobStageName(progress.stage)}, {"stage_index", progress.stage_index},
               {"stage_count", progress.stage_count},   {"step", progress.step},
               {"total_steps", progress.total_steps},   {"fraction", progress.fraction},
               {"train_step", progress.train_step},     {"samples_per_second", progress.samples_per_second}};
  if (progress.time_left != absl::InfiniteDuration()) json["time_left"] = absl::ToDoubleSeconds(progress.time_left);
  return json;
}

absl::StatusOr<JobProgress> ProgressFromJson(const Json& json) {
  JobProgress progress;
  std::optional<double> seconds_left;
  JsonReader reader(json, "progress");
  reader.Name("stage", progress.stage, ParseJobStage);
  reader.Required("stage_index", progress.stage_index);
  reader.Required("stage_count", progress.stage_count);
  reader.Required("step", progress.step);
  reader.Required("total_steps", progress.total_steps);
  reader.Required("fraction", progress.fraction);
  reader.Required("train_step", progress.train_step);
  reader.Required("samples_per_second", progress.samples_per_second);
  reader.Optional("time_left", seconds_left);
  BOSS_RETURN_IF_ERROR(reader.status());
  if (seconds_left) progress.time_left = absl::Seconds(*seconds_left);
  return progress;
}

// JSON has null for a number that is not finite; here it is NaN again.
void ReadNumbers(JsonReader& reader, const char* key, std::vector<double>& values) {
  std::vector<Json> items;
  reader.Optional(key, items);
  for (const Json& item : items) {
    if (!item.is_null() && !item.is_number()) return reader.Fail(absl::StrCat(key, ": expected numbers"));
    values.push_back(item.is_null() ? std::numeric_limits<double>::quiet_NaN() : item.get<double>());
  }
}

Json MetricsToJson(const JobMetrics& metrics) {
  Json json = {{"train_step", metrics.train_step},
               {"loss", metrics.loss},
               {"gradient_norm", metrics.gradient_norm},
               {"learning_rate", metrics.learning_rate},
               {"segment_held_out_loss", metrics.segment_held_out_loss},
               {"samples_per_second", metrics.samples_per_second}};
  PutOptional(json, "held_out_loss", metrics.held_out_loss);
  return json;
}

absl::StatusOr<JobMetrics> MetricsFromJson(const Json& json) {
  JobMetrics metrics;
  JsonReader reader(json, "metrics");
  reader.Required("train_step", metrics.train_step);
  reader.Required("loss", metrics.loss);
  reader.Required("gradient_norm", metrics.gradient_norm);
  reader.Required("learning_rate", metrics.learning_rate);
  reader.Optional("held_out_loss", metrics.held_out_loss);
  ReadNumbers(reader, "segment_held_out_loss", metrics.segment_held_out_loss);
  reader.Required("samples_per_second", metrics.samples_per_second);
  BOSS_RETURN_IF_ERROR(reader.status());
  // It was measured with the others, and is not finite.
  const bool has_segments = !metrics.segment_held_out_loss.empty();
  if (has_segments && !metrics.held_out_loss) metrics.held_out_loss = std::numeric_limits<double>::quiet_NaN();
  return metrics;
}

Json ResultToJson(const JobResult& result) {
  Json json = {{"schedule_set", result.schedule_set},
               {"schedule_version", result.schedule_version},
               {"velocity_evaluations", result.velocity_evaluations}};
  for (const EvaluationRow& row : result.evaluation) json["evaluation"].push_back(EvaluationRowToJson(row));
  if (result.schedule) {
    json["schedule"] = ScheduleToJson(*result.schedule);
    json["schedule"]["k_max"] = result.schedule->knots.empty() ? 0 : result.schedule->knots.back();
  }
  return json;
}

absl::StatusOr<JobResult> ResultFromJson(const Json& json) {
  JobResult result;
  JsonReader reader(json, "result");
  reader.Optional("schedule_set", result.schedule_set);
  reader.Optional("schedule_version", result.schedule_version);
  reader.Optional("velocity_evaluations", result.velocity_evaluations);
  reader.Objects("evaluation", result.evaluation, EvaluationRowFromJson);
  reader.OptionalObject("schedule", result.schedule, [](const Json& schedule) {
    return ScheduleFromJson(schedule, schedule.is_object() ? schedule.value("k_max", 0) : 0);
  });
  BOSS_RETURN_IF_ERROR(reader.status());
  return result;
}

constexpr std::array<const char*, 3> kSeverities = {"info", "warning", "error"};

std::optional<Severity> ParseSeverity(absl::string_view name) {
  for (size_t i = 0; i < kSeverities.size(); ++i) {
    if (name == kSeverities[i]) return static_cast<Severity>(i);
  }
  return std::nullopt;
}

// One function for each payload: what kind it is and its JSON; a preview's picture travels beside it.
struct PayloadWriter {
  Json operator()(const StateChange& change) const {
    Json json = {{"type", "state"}, {"to", JobStateName(change.to)}, {"reason", change.reason}};
    if (change.from) json["from"] = JobStateName(*change.from);
    PutStatus(json, change.error);
    return json;
  }
  Json operator()(const StageChange& change) const {
    return {{"type", "stage"}, {"from", JobStageName(change.from)}, {"to", JobStageName(change.to)}};
  }
  Json operator()(const JobProgress& progress) const {
    return {{"type", "progress"}, {"progress", ProgressToJson(progress)}};
  }
  Json operator()(const JobMetrics& metrics) const {
    return {{"type", "metrics"}, {"metrics", MetricsToJson(metrics)}};
  }
  Json operator()(const JobMessage& message) const {
    return {
        {"type", "message"}, {"severity", kSeverities[static_cast<size_t>(message.severity)]}, {"text", message.text}};
  }
  Json operator()(const JobPreview& preview) const {
    return {
        {"type", "preview"}, {"train_step", preview.train_step}, {"rows", preview.rows}, {"columns", preview.columns}};
  }
  Json operator()(const EvaluationRow& row) const {
    return {{"type", "evaluation"}, {"row", EvaluationRowToJson(row)}};
  }
};

template <typename T>
JobEventPayload ReadPayload(JsonReader& reader, const char* key, absl::StatusOr<T> (*read)(const Json&)) {
  T value;
  reader.Object(key, value, read);
  return value;
}

JobEventPayload PayloadFromJson(const std::string& type, JsonReader& reader, const std::string& attachment) {
  if (type == "state") {
    StateChange change;
    if (reader.Has("from")) reader.Name("from", change.from.emplace(), ParseJobState);
    reader.Name("to", change.to, ParseJobState);
    reader.Optional("reason", change.reason);
    ReadStatus(reader, change.error);
    return change;
  }
  if (type == "stage") {
    StageChange change;
    reader.Name("from", change.from, ParseJobStage);
    reader.Name("to", change.to, ParseJobStage);
    return change;
  }
  if (type == "progress") return ReadPayload(reader, "progress", ProgressFromJson);
  if (type == "metrics") return ReadPayload(reader, "metrics", MetricsFromJson);
  if (type == "evaluation") return ReadPayload(reader, "row", EvaluationRowFromJson);
  if (type == "message") {
    JobMessage message;
    reader.Name("severity", message.severity, ParseSeverity);
    reader.Required("text", message.text);
    return message;
  }
  if (type == "preview") {
    JobPreview preview;
    reader.Required("train_step", preview.train_step);
    reader.Required("rows", preview.rows);
    reader.Required("columns", preview.columns);
    preview.png = attachment;
    return preview;
  }
  reader.Fail(absl::StrCat("event.type: unknown value \"", type, "\""));
  return JobMessage{};
}

}  // namespace

std::string JobStageName(JobStage stage) { return kStages[static_cast<size_t>(stage)].second; }

std::optional<JobStage> ParseJobStage(absl::string_view name) {
  for (const auto& [stage, known] : kStages) {
    if (known == name) return stage;
  }
  return std::nullopt;
}

std::string JobToJson(const Job& job) {
  Json json = {{"id", job.id},
               {"kind", JobKindName(job.kind())},
               {"spec", Json::parse(JobSpecToJson(job.spec))},
               {"state", JobStateName(job.state)},
               {"owner", job.owner},
               {"request_id", job.request_id},
               {"call_request_id", job.call.request_id},
               {"trace_id", job.call.trace_id},
               {"span_id", job.call.span_id},
               {"display_name", job.display_name},
               {"labels", job.labels},
               {"priority", job.priority},
               {"starts", job.starts},
               {"max_crashes", job.max_crashes},
               {"crashes", job.crashes},
               {"saved_fraction", job.saved_fraction},
               {"state_reason", job.state_reason},
               {"progress", ProgressToJson(job.progress)},
               {"metrics", MetricsToJson(job.metrics)},
               {"input_versions", job.input_versions},
               {"output_version", job.output_version},
               {"result", ResultToJson(job.result)}};
  if (job.retention != absl::InfiniteDuration()) json["retention"] = absl::ToDoubleSeconds(job.retention);
  PutTime(json, "not_before", job.not_before);
  PutTime(json, "deadline", job.deadline);
  PutTime(json, "create_time", job.create_time);
  PutTime(json, "start_time", job.start_time);
  PutTime(json, "end_time", job.end_time);
  PutTime(json, "update_time", job.update_time);
  PutStatus(json, job.error);
  return DumpJson(json);
}

absl::StatusOr<Job> JobFromJson(absl::string_view text) {
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject("job", text));
  Job job;
  JobKind kind = JobKind::kTrain;
  JsonReader reader(json, "job");
  reader.Required("id", job.id);
  reader.Name("kind", kind, ParseJobKind);
  reader.Object("spec", job.spec, [kind](const Json& spec) { return JobSpecFromJson(kind, spec.dump()); });
  reader.Name("state", job.state, ParseJobState);
  reader.Optional("owner", job.owner);
  reader.Optional("request_id", job.request_id);
  reader.Optional("call_request_id", job.call.request_id);
  reader.Optional("trace_id", job.call.trace_id);
  reader.Optional("span_id", job.call.span_id);
  reader.Optional("display_name", job.display_name);
  reader.Optional("labels", job.labels);
  reader.Optional("priority", job.priority);
  reader.Optional("starts", job.starts);
  reader.Optional("max_crashes", job.max_crashes);
  reader.Optional("crashes", job.crashes);
  reader.Optional("saved_fraction", job.saved_fraction);
  reader.Optional("state_reason", job.state_reason);
  std::optional<double> retention;
  reader.Optional("retention", retention);
  if (retention) job.retention = absl::Seconds(*retention);
  reader.Time("not_before", job.not_before);
  reader.Object("progress", job.progress, ProgressFromJson);
  reader.Object("metrics", job.metrics, MetricsFromJson);
  reader.Optional("input_versions", job.input_versions);
  reader.Optional("output_version", job.output_version);
  reader.Object("result", job.result, ResultFromJson);
  reader.Time("deadline", job.deadline);
  reader.Time("create_time", job.create_time);
  reader.Time("start_time", job.start_time);
  reader.Time("end_time", job.end_time);
  reader.Time("update_time", job.update_time);
  ReadStatus(reader, job.error);
  BOSS_RETURN_IF_ERROR(reader.status());
  return job;
}

EventRecord EventToRecord(const JobEvent& event) {
  Json json = std::visit(PayloadWriter(), event.payload);
  PutTime(json, "time", event.time);
  const auto* preview = std::get_if<JobPreview>(&event.payload);
  return {event.sequence, DumpJson(json), preview == nullptr ? std::string() : preview->png};
}

absl::StatusOr<JobEvent> EventFromRecord(const EventRecord& record) {
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject("event", record.document));
  JobEvent event;
  event.sequence = record.sequence;
  std::string type;
  JsonReader reader(json, "event");
  reader.Time("time", event.time);
  reader.Required("type", type);
  event.payload = PayloadFromJson(type, reader, record.attachment);
  BOSS_RETURN_IF_ERROR(reader.status());
  return event;
}

}  // namespace boss::server
