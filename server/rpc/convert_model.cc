#include "server/rpc/convert_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"
#include "core/nets/presets.h"
#include "server/rpc/convert_common.h"
#include "server/store/schedule_choice.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

constexpr int kMaxImportedSteps = 1000;  // as many as a job's fine grid has

v1::ModelVersion::State StateToProto(const VersionView& view) {
  if (!view.info.ok()) return v1::ModelVersion::QUARANTINED;
  switch (view.status.state) {
    case ModelState::kUnloaded:
      return v1::ModelVersion::AVAILABLE;
    case ModelState::kLoading:
      return v1::ModelVersion::LOADING;
    case ModelState::kReady:
      return v1::ModelVersion::READY;
    case ModelState::kUnloading:
      return v1::ModelVersion::UNLOADING;
    case ModelState::kFailed:
      return v1::ModelVersion::FAILED;
  }
  return v1::ModelVersion::STATE_UNSPECIFIED;
}

// The store has checked that the architecture is one that a network can be built from, so what is missing here has its
// default.
void DescribeArchitecture(const std::string& architecture_json, v1::Model& proto) {
  proto.set_architecture_json(architecture_json);
  const absl::StatusOr<nlohmann::json> json = ParseJson(architecture_json);
  if (!json.ok() || !json->is_object()) return;
  const nlohmann::json none = nlohmann::json::object();
  const nlohmann::json model = json->value("model", none);
  if (model.contains("architecture") && model["architecture"].is_string())
    proto.set_architecture(model["architecture"].get<std::string>());
  const nlohmann::json time = json->value("time", none);
  const auto number = [&](const char* key, double otherwise) {
    return time.contains(key) && time[key].is_number() ? time[key].get<double>() : otherwise;
  };
  proto.mutable_time_map()->set_eps(number("eps", 0.0));
  proto.mutable_time_map()->set_scale(number("scale", 1.0));
}

void DescribeManifest(const Manifest& manifest, v1::ModelVersion& proto) {
  proto.set_parent(manifest.parent);
  proto.set_job(JobName(manifest.job_id));
  if (manifest.adapter) {
    v1::ModelVersion::Adapter& adapter = *proto.mutable_adapter();
    adapter.set_base(manifest.adapter->base.ToString());
    adapter.set_rank(static_cast<int>(manifest.adapter->rank));
    adapter.set_alpha(manifest.adapter->alpha);
  }
  const auto digest = manifest.sha256.find(WeightsFile(manifest));
  if (digest != manifest.sha256.end()) proto.set_weights_sha256(digest->second);
  for (const EvaluationRow& row : manifest.evaluation) *proto.add_evaluation() = ToProto(row);
  proto.set_description(manifest.description);
  proto.mutable_labels()->insert(manifest.labels.begin(), manifest.labels.end());
  *proto.mutable_create_time() = ToProto(manifest.create_time);
  if (!manifest.schedules.empty()) proto.set_straightened_steps(manifest.schedules.front().schedule.time_grid.steps());
}

}  // namespace

v1::ModelVersion ToProto(const VersionView& view) {
  v1::ModelVersion proto;
  proto.set_model(view.key.name);
  proto.set_version(absl::StrCat(view.key.version));
  proto.set_state(StateToProto(view));
  const absl::Status& error = view.info.ok() ? view.status.error : view.info.status();
  if (!error.ok()) proto.set_error_message(std::string(error.message()));
  proto.set_memory_bytes(view.status.memory_bytes);
  if (view.info.ok()) {
    proto.set_size_bytes(view.info->size_bytes);
    DescribeManifest(view.info->manifest, proto);
  }
  for (const auto& stored : view.schedule_sets) *proto.add_schedule_sets() = ToProto(view.key, *stored, {});
  return proto;
}

v1::Model ToProto(const ModelView& view, int default_steps) {
  v1::Model proto;
  proto.set_name(view.info.name);
  proto.set_display_name(view.info.name);
  proto.set_default_solver(v1::SOLVER_EULER);
  if (view.shape.ok()) {
    proto.set_parameter_count(view.shape->parameter_count);
    proto.mutable_sample_shape()->Add(view.shape->sample_shape.begin(), view.shape->sample_shape.end());
    proto.set_num_classes(view.shape->num_classes);
    proto.set_trainable(view.shape->trainable);
    for (const ConditioningSpec& spec : view.shape->conditioning) {
      v1::ConditioningTensor& tensor = *proto.add_conditioning();
      tensor.set_name(spec.name);
      tensor.set_dtype(spec.dtype == at::kLong ? v1::Tensor::DATA_TYPE_INT64 : v1::Tensor::DATA_TYPE_FLOAT32);
      tensor.mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
    }
    proto.mutable_decoded_shape()->Add(view.shape->decoded_shape.begin(), view.shape->decoded_shape.end());
  }
  for (const auto& [alias, version] : view.info.aliases) (*proto.mutable_aliases())[alias] = absl::StrCat(version);
  for (const VersionView& version : view.versions) *proto.add_versions() = ToProto(version);

  const auto newest =
      std::find_if(view.versions.begin(), view.versions.end(), [](const VersionView& v) { return v.info.ok(); });
  if (view.info.latest > 0) (*proto.mutable_aliases())["latest"] = absl::StrCat(view.info.latest);
  if (newest == view.versions.end()) return proto;
  const Manifest& manifest = newest->info->manifest;
  DescribeArchitecture(manifest.architecture_json, proto);
  proto.set_description(manifest.description);
  proto.mutable_labels()->insert(manifest.labels.begin(), manifest.labels.end());
  proto.mutable_label_names()->Add(manifest.label_names.begin(), manifest.label_names.end());
  proto.set_default_steps(manifest.default_steps > 0 ? manifest.default_steps : default_steps);
  if (PrefersMultistep(manifest, newest->schedule_sets, /*guidance_scale=*/1.0, proto.default_steps()))
    proto.set_default_solver(v1::SOLVER_MULTISTEP);
  *proto.mutable_update_time() = ToProto(manifest.create_time);
  const auto oldest =
      std::find_if(view.versions.rbegin(), view.versions.rend(), [](const VersionView& v) { return v.info.ok(); });
  *proto.mutable_create_time() = ToProto(oldest->info->manifest.create_time);
  return proto;
}

v1::ScheduleSet ToProto(const VersionKey& key, const StoredScheduleSet& stored, const ScheduleSetParts& parts) {
  v1::ScheduleSet proto;
  proto.set_name(stored.Name());
  proto.set_model(key.ToString());
  proto.set_kind(stored.set.searched() ? v1::SCHEDULE_KIND_BELLMAN : v1::SCHEDULE_KIND_EXPLICIT);
  proto.set_k_max(stored.set.k_max);
  if (stored.set.fine_grid) {
    const absl::Span<const double> times = stored.set.fine_grid->times();
    proto.mutable_fine_time_grid()->Add(times.begin(), times.end());
  }
  proto.set_num_samples(stored.set.num_samples);
  proto.set_num_held_out(stored.set.num_held_out);
  proto.set_multistep_refinement(stored.set.refinement);
  proto.set_guidance_scale(stored.set.guidance_scale);
  proto.set_solver(ToProto(stored.set.solver));
  proto.set_seed(stored.seed);
  if (parts.schedules) {
    for (const Schedule& schedule : stored.set.schedules) {
      if (parts.steps == 0 || schedule.time_grid.steps() == parts.steps) *proto.add_schedules() = ToProto(schedule);
    }
  }
  if (parts.cost_matrix) proto.mutable_cost_matrix()->Add(stored.set.cost_matrix.begin(), stored.set.cost_matrix.end());
  proto.set_job(JobName(stored.job_id));
  *proto.mutable_create_time() = ToProto(stored.create_time);
  return proto;
}

v1::ScheduleSet ToProto(const VersionInfo& version, const NativeSchedule& native, SolverKind solver) {
  Schedule schedule = native.schedule;
  schedule.solver = solver;
  v1::ScheduleSet proto;
  proto.set_model(version.key.ToString());
  proto.set_kind(ScheduleKindToProto(native.kind));
  proto.set_k_max(native.k_max);
  if (solver == SolverKind::kMultistep) {
    proto.set_num_samples(static_cast<int>(native.num_samples));
    proto.set_num_held_out(static_cast<int>(native.num_held_out));
  }
  proto.set_guidance_scale(native.guidance_scale);
  proto.set_solver(ToProto(solver));
  *proto.add_schedules() = ToProto(schedule);
  proto.set_job(JobName(version.manifest.job_id));
  *proto.mutable_create_time() = ToProto(version.manifest.create_time);
  return proto;
}

absl::StatusOr<StoredScheduleSet> ScheduleSetFromProto(const v1::ImportScheduleRequest& proto) {
  StoredScheduleSet stored;
  ScheduleSet& set = stored.set;
  stored.client_name = proto.name();
  if (proto.name().empty()) return FieldError("name", "is required");
  if (const absl::Status status = CheckScheduleSetName("name", proto.name()); !status.ok())
    return WithField(status, "name");
  BOSS_ASSIGN_OR_RETURN(set.solver, SolverFromProto(proto.solver(), "solver"));
  if (set.solver == SolverKind::kRk45)
    return FieldError("solver", "rk45 chooses its own times, expected euler or heun");
  if (set.solver == SolverKind::kMultistep)
    return FieldError(
        "solver", "multistep needs fitted coefficients, which an OptimizeStepsizesJob makes, expected euler or heun");
  if (proto.has_guidance_scale()) set.guidance_scale = proto.guidance_scale();
  if (!std::isfinite(set.guidance_scale) || set.guidance_scale < 0)
    return FieldError("guidance_scale", absl::StrCat("must be finite and at least 0, got ", set.guidance_scale));
  if (proto.schedules().empty()) return FieldError("schedules", "is required");
  for (const v1::Schedule& from : proto.schedules()) {
    absl::StatusOr<TimeGrid> grid =
        TimeGrid::Create(std::vector<double>(from.time_grid().begin(), from.time_grid().end()));
    if (!grid.ok()) return FieldError("schedules", grid.status().message());
    if (from.steps() != 0 && from.steps() != grid->steps()) {
      return FieldError("schedules", absl::StrCat("steps must be 0 or agree with time_grid, got ", from.steps(),
                                                  " and ", grid->steps() + 1, " times"));
    }
    if (grid->steps() > kMaxImportedSteps) {
      return FieldError("schedules",
                        absl::StrCat("must have up to ", kMaxImportedSteps, " steps, got ", grid->steps()));
    }
    if (set.Find(grid->steps()) != nullptr)
      return FieldError("schedules", absl::StrCat("there may be one of each K, got two of ", grid->steps(), " steps"));
    Schedule& schedule = set.schedules.emplace_back();
    schedule.time_grid = *std::move(grid);
    schedule.solver = set.solver;
  }
  std::sort(set.schedules.begin(), set.schedules.end(),
            [](const Schedule& a, const Schedule& b) { return a.time_grid.steps() < b.time_grid.steps(); });
  return stored;
}

absl::StatusOr<ImportOptions> ImportOptionsFromProto(const v1::ImportStart& proto) {
  ImportOptions options;
  switch (proto.format()) {
    case v1::ImportStart::FORMAT_UNSPECIFIED:
      options.format = ImportFormat::kDetect;
      break;
    case v1::ImportStart::SAFETENSORS:
      options.format = ImportFormat::kSafetensors;
      break;
    case v1::ImportStart::TORCH_CHECKPOINT:
      options.format = ImportFormat::kTorchCheckpoint;
      break;
    case v1::ImportStart::TORCHSCRIPT:
      options.format = ImportFormat::kTorchScript;
      break;
    default:
      return FieldError("start.format", absl::StrCat("unknown value ", static_cast<int>(proto.format())));
  }
  options.name = proto.model();
  options.architecture_json = proto.architecture_json();
  if (options.architecture_json.empty() && !proto.preset().empty()) {
    absl::StatusOr<std::string> architecture = PresetArchitecture(proto.preset());
    if (!architecture.ok()) return FieldError("start.preset", architecture.status().message());
    options.architecture_json = *std::move(architecture);
  }
  options.total_bytes = proto.total_bytes();
  options.sha256 = proto.sha256();
  options.raw_weights = proto.raw_weights();
  options.alias = proto.alias();
  options.adapter_base = proto.adapter_base();
  options.label_names.assign(proto.label_names().begin(), proto.label_names().end());
  options.description = proto.description();
  options.labels = {proto.labels().begin(), proto.labels().end()};
  options.upload_id = proto.upload_id();
  options.validate_only = proto.validate_only();
  options.decoder_bytes = proto.decoder_bytes();
  return options;
}

}  // namespace boss::server
