#include "server/store/manifest.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"
#include "server/store/coefficients_json.h"
#include "server/store/json_reader.h"
#include "server/store/manifest_json.h"

namespace boss::server {
namespace {

constexpr int kFormat = 1;

Json NativeScheduleToJson(const NativeSchedule& native) {
  Json json = ScheduleToJson(native.schedule);
  json["kind"] = native.kind;
  json["guidance_scale"] = native.guidance_scale;
  json["k_max"] = native.k_max;
  if (native.num_samples > 0) json["num_samples"] = native.num_samples;
  if (native.num_held_out > 0) json["num_held_out"] = native.num_held_out;
  return json;
}

absl::StatusOr<NativeSchedule> NativeScheduleFromJson(const Json& json) {
  NativeSchedule native;
  JsonReader reader(json, "schedule");
  reader.Required("kind", native.kind);
  reader.Required("guidance_scale", native.guidance_scale);
  reader.Optional("k_max", native.k_max);
  reader.Optional("num_samples", native.num_samples);
  reader.Optional("num_held_out", native.num_held_out);
  BOSS_RETURN_IF_ERROR(reader.status());
  BOSS_ASSIGN_OR_RETURN(native.schedule, ScheduleFromJson(json, native.k_max));
  return native;
}

absl::StatusOr<AdapterInfo> AdapterFromJson(const Json& json) {
  AdapterInfo adapter;
  JsonReader reader(json, "adapter");
  reader.Required("base_name", adapter.base.name);
  reader.Required("base_version", adapter.base.version);
  reader.Required("rank", adapter.rank);
  reader.Required("alpha", adapter.alpha);
  BOSS_RETURN_IF_ERROR(reader.status());
  return adapter;
}

}  // namespace

std::string VersionKey::ToString() const { return absl::StrCat(name, "@", version); }

absl::StatusOr<Json> ParseJsonObject(absl::string_view what, absl::string_view text) {
  absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) return absl::DataLossError(absl::StrCat(what, ": ", json.status().message()));
  if (!json->is_object())
    return absl::DataLossError(absl::StrCat(what, ": got ", json->type_name(), ", expected an object"));
  return json;
}

std::string FormatGuidance(double guidance_scale) { return absl::StrFormat("%.6g", guidance_scale); }

absl::Status CheckKnots(const std::vector<int>& knots, int k_max) {
  if (knots.size() < 2 || knots.front() != 0 || knots.back() != k_max) {
    return absl::DataLossError(absl::StrCat("schedule.knots: expected a path from 0 to ", k_max));
  }
  for (size_t i = 1; i < knots.size(); ++i) {
    if (knots[i] <= knots[i - 1]) return absl::DataLossError("schedule.knots: expected increasing numbers");
  }
  return absl::OkStatus();
}

absl::Status CheckFitted(const Schedule& schedule) {
  BOSS_RETURN_IF_ERROR(CheckCoefficients(schedule));
  if (std::isfinite(schedule.fit_error) && std::isfinite(schedule.held_out_error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("schedule: got errors of %g and %g, expected finite ones",
                                                    schedule.fit_error, schedule.held_out_error));
}

Json ScheduleToJson(const Schedule& schedule) {
  Json json = {{"knots", schedule.knots},
               {"time_grid", std::vector<double>(schedule.time_grid.times().begin(), schedule.time_grid.times().end())},
               {"total_cost", schedule.total_cost},
               {"solver", std::string(SolverName(schedule.solver))}};
  if (schedule.solver == SolverKind::kMultistep) {
    json["coefficients"] = CoefficientsToJson(schedule.coefficients);
    json["fit_error"] = schedule.fit_error;
    json["held_out_error"] = schedule.held_out_error;
  }
  return json;
}

absl::StatusOr<Schedule> ScheduleFromJson(const Json& json, int k_max) {
  Schedule schedule;
  std::vector<double> times;
  JsonReader reader(json, "schedule");
  reader.Optional("knots", schedule.knots);
  reader.Required("time_grid", times);
  reader.Optional("total_cost", schedule.total_cost);
  reader.Name("solver", schedule.solver, ParseSolver);
  std::vector<std::vector<double>> coefficients;
  if (schedule.solver == SolverKind::kMultistep) {
    reader.Required("coefficients", coefficients);
    reader.Required("fit_error", schedule.fit_error);
    reader.Required("held_out_error", schedule.held_out_error);
  }
  BOSS_RETURN_IF_ERROR(reader.status());
  absl::StatusOr<TimeGrid> grid = TimeGrid::Create(std::move(times));
  if (!grid.ok()) return absl::DataLossError(absl::StrCat("schedule.time_grid: ", grid.status().message()));
  schedule.time_grid = *std::move(grid);
  if (!schedule.knots.empty()) {
    BOSS_RETURN_IF_ERROR(CheckKnots(schedule.knots, k_max));
    if (static_cast<int>(schedule.knots.size()) != schedule.time_grid.steps() + 1) {
      return absl::DataLossError("schedule: as many knots as times expected");
    }
  }
  if (schedule.solver == SolverKind::kMultistep) {
    BOSS_ASSIGN_OR_RETURN(schedule.coefficients, CoefficientsFromLists(coefficients));
    if (const absl::Status status = CheckCoefficients(schedule); !status.ok())
      return absl::DataLossError(status.message());
  }
  return schedule;
}

Json EvaluationRowToJson(const EvaluationRow& row) {
  Json json = {{"label", row.label},
               {"version", row.version},
               {"steps", row.steps},
               {"schedule", row.schedule},
               {"schedule_set", row.schedule_set},
               {"solver", std::string(SolverName(row.solver))},
               {"guidance_scale", row.guidance_scale},
               {"nfe", row.nfe},
               {"num_samples", row.num_samples},
               {"trajectory_error", row.trajectory_error},
               {"features", row.features},
               {"samples_per_second", row.samples_per_second},
               {"baseline", row.baseline},
               {"baseline_steps", row.baseline_steps}};
  PutOptional(json, "straightness", row.straightness);
  PutOptional(json, "frechet_distance", row.frechet_distance);
  return json;
}

absl::StatusOr<EvaluationRow> EvaluationRowFromJson(const Json& json) {
  EvaluationRow row;
  JsonReader reader(json, "evaluation");
  reader.Required("label", row.label);
  reader.Optional("version", row.version);
  reader.Required("steps", row.steps);
  reader.Optional("schedule", row.schedule);
  reader.Optional("schedule_set", row.schedule_set);
  reader.Name("solver", row.solver, ParseSolver);
  reader.Optional("guidance_scale", row.guidance_scale);
  reader.Optional("nfe", row.nfe);
  reader.Optional("num_samples", row.num_samples);
  // A distance that overflowed is null.
  row.trajectory_error = std::numeric_limits<double>::infinity();
  reader.Optional("trajectory_error", row.trajectory_error);
  reader.Optional("straightness", row.straightness);
  reader.Optional("frechet_distance", row.frechet_distance);
  reader.Optional("features", row.features);
  reader.Optional("samples_per_second", row.samples_per_second);
  reader.Optional("baseline", row.baseline);
  reader.Optional("baseline_steps", row.baseline_steps);
  BOSS_RETURN_IF_ERROR(reader.status());
  return row;
}

std::string ManifestToJson(const Manifest& manifest) {
  Json json = {{"format", kFormat},
               {"label_names", manifest.label_names},
               {"default_steps", manifest.default_steps},
               {"default_guidance_scale", manifest.default_guidance_scale},
               {"parent", manifest.parent},
               {"job_id", manifest.job_id},
               {"description", manifest.description},
               {"sha256", manifest.sha256}};
  // Only an object becomes part of the document: any other text has to come back as it is. It is one level deeper
  // there.
  absl::StatusOr<Json> architecture = ParseJson(manifest.architecture_json, kMaxJsonDepth - 1);
  json["architecture"] =
      architecture.ok() && architecture->is_object() ? *std::move(architecture) : Json(manifest.architecture_json);
  if (manifest.adapter) {
    json["adapter"] = {{"base_name", manifest.adapter->base.name},
                       {"base_version", manifest.adapter->base.version},
                       {"rank", manifest.adapter->rank},
                       {"alpha", manifest.adapter->alpha}};
  }
  if (!manifest.upload_id.empty()) json["upload_id"] = manifest.upload_id;
  if (!manifest.upload_digest.empty()) json["upload_digest"] = manifest.upload_digest;
  if (!manifest.labels.empty()) json["labels"] = manifest.labels;
  for (const NativeSchedule& schedule : manifest.schedules) json["schedules"].push_back(NativeScheduleToJson(schedule));
  for (const EvaluationRow& row : manifest.evaluation) json["evaluation"].push_back(EvaluationRowToJson(row));
  PutTime(json, "create_time", manifest.create_time);
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<Manifest> ManifestFromJson(absl::string_view text) {
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject("manifest", text));
  Manifest manifest;
  int format = 0;
  JsonReader reader(json, "manifest");
  reader.Required("format", format);
  BOSS_RETURN_IF_ERROR(reader.status());
  if (format > kFormat) {
    return absl::FailedPreconditionError(
        absl::StrFormat("manifest.format: got %d, this program reads up to %d", format, kFormat));
  }
  Json architecture;
  reader.Required("architecture", architecture);
  if (!architecture.is_object() && !architecture.is_string()) reader.Fail("manifest.architecture: expected an object");
  manifest.architecture_json = architecture.is_string() ? architecture.get<std::string>() : architecture.dump();
  reader.Optional("label_names", manifest.label_names);
  reader.Optional("default_steps", manifest.default_steps);
  reader.Optional("default_guidance_scale", manifest.default_guidance_scale);
  reader.Optional("parent", manifest.parent);
  reader.Optional("job_id", manifest.job_id);
  reader.Optional("upload_id", manifest.upload_id);
  reader.Optional("upload_digest", manifest.upload_digest);
  reader.Optional("labels", manifest.labels);
  reader.OptionalObject("adapter", manifest.adapter, AdapterFromJson);
  reader.Objects("schedules", manifest.schedules, NativeScheduleFromJson);
  reader.Objects("evaluation", manifest.evaluation, EvaluationRowFromJson);
  reader.Optional("description", manifest.description);
  reader.Time("create_time", manifest.create_time);
  reader.Optional("sha256", manifest.sha256);
  BOSS_RETURN_IF_ERROR(reader.status());
  return manifest;
}

void NameOwnRows(Manifest& manifest, const VersionKey& key) {
  for (EvaluationRow& row : manifest.evaluation) {
    if (row.version.empty()) row.version = key.ToString();
  }
}

}  // namespace boss::server
