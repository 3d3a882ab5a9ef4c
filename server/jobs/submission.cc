#include "server/jobs/submission.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/nets/architecture.h"
#include "core/nets/factory.h"
#include "core/nets/torch_script_model.h"
#include "server/jobs/target_schedule.h"
#include "server/store/json_reader.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

constexpr size_t kMaxText = 63;
constexpr size_t kMaxLabels = 64;
constexpr int kMaxPriority = 100;
constexpr int kMaxCrashes = 1'000'000;

// Whether `path`, symbolic links resolved, is one of `folders` or lies in one.
bool LiesIn(const std::string& path, const std::vector<std::string>& folders) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  if (error) return false;
  for (const std::string& folder : folders) {
    const std::filesystem::path root = std::filesystem::weakly_canonical(folder, error);
    if (error) continue;
    const std::filesystem::path relative = resolved.lexically_relative(root);
    if (!relative.empty() && *relative.begin() != "..") return true;
  }
  return false;
}

absl::Status CheckDataset(absl::string_view field, absl::string_view source, const JobManagerOptions& options) {
  if (source == "fashion-mnist-train" || source == "fashion-mnist-test") return absl::OkStatus();
  std::vector<std::string> paths;
  if (absl::ConsumePrefix(&source, "png:")) {
    paths.emplace_back(source);
  } else if (absl::ConsumePrefix(&source, "idx:")) {
    paths = absl::StrSplit(source, absl::MaxSplits(',', 1));
  } else {
    return FieldError(
        field, "expected \"fashion-mnist-train\", \"fashion-mnist-test\", \"idx:IMAGES[,LABELS]\" or \"png:FOLDER\"");
  }
  for (const std::string& path : paths) {
    if (!LiesIn(path, options.dataset_folders)) {
      return WithField(
          absl::PermissionDeniedError(absl::StrCat(field, ": ", path, " lies in no folder that the operator allows")),
          field);
    }
    std::error_code error;
    if (!std::filesystem::exists(path, error))
      return WithField(absl::NotFoundError(absl::StrCat(field, ": ", path, " does not exist")), field);
  }
  return absl::OkStatus();
}

class Resolver {
 public:
  Resolver(const ModelStore& store, const JobManagerOptions& options, Job& job)
      : store_(store), options_(options), job_(job) {}

  absl::Status operator()(TrainSpec& spec) {
    if (!spec.init_model.empty()) {
      BOSS_ASSIGN_OR_RETURN(const VersionKey start, AddInput("spec.init_model", spec.init_model));
      BOSS_RETURN_IF_ERROR(CheckTrainable("spec.init_model", start, /*with_adapter=*/false));
    } else {
      const absl::Status status =
          CreateModel(spec.architecture_json, /*seed=*/std::nullopt, options_.max_weights).status();
      if (!status.ok())
        return WithField(absl::Status(status.code(), absl::StrCat("spec.architecture_json: ", status.message())),
                         "spec.architecture_json");
    }
    return CheckDataset("spec.dataset", spec.dataset, options_);
  }

  absl::Status operator()(OptimizeStepsizesSpec& spec) { return AddInput("spec.model", spec.model).status(); }

  absl::Status operator()(DistillSpec& spec) {
    BOSS_ASSIGN_OR_RETURN(const VersionKey teacher, AddInput("spec.model", spec.model));
    BOSS_RETURN_IF_ERROR(CheckTrainable("spec.model", teacher, spec.lora.has_value()));
    if (spec.output_model.empty()) spec.output_model = teacher.name;
    if (!spec.schedule_set.empty()) {
      BOSS_ASSIGN_OR_RETURN(const auto stored, NamedSet("spec.schedule_set", teacher, spec.schedule_set));
      BOSS_RETURN_IF_ERROR(TargetSchedule(*stored, spec).status());
    }
    return spec.evaluation ? CheckEvaluation("spec.evaluation.", *spec.evaluation, teacher) : absl::OkStatus();
  }

  absl::Status operator()(EvaluateSpec& spec) {
    BOSS_ASSIGN_OR_RETURN(const VersionKey model, AddInput("spec.model", spec.model));
    for (const std::string& other : spec.other_models)
      BOSS_RETURN_IF_ERROR(AddInput("spec.other_models", other).status());
    if (spec.baseline.empty()) {
      BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store_.GetVersion(model));
      // A parent that was deleted since cannot be the measure.
      const bool parent_exists = !info.manifest.parent.empty() && store_.Resolve(info.manifest.parent).ok();
      spec.baseline = parent_exists ? info.manifest.parent : model.ToString();
    }
    BOSS_RETURN_IF_ERROR(AddInput("spec.baseline", spec.baseline).status());
    return CheckEvaluation("spec.", spec, model);
  }

 private:
  absl::StatusOr<VersionKey> AddInput(absl::string_view field, const std::string& reference) {
    absl::StatusOr<VersionKey> key = store_.Resolve(reference);
    if (!key.ok())
      return WithField(absl::Status(key.status().code(), absl::StrCat(field, ": ", key.status().message())), field);
    BOSS_RETURN_IF_ERROR(store_.GetVersion(*key).status());
    job_.input_versions.push_back(key->ToString());
    return key;
  }

  // What a TorchScript module does not take is refused before hours are spent on it.
  absl::Status CheckTrainable(absl::string_view field, const VersionKey& key, bool with_adapter) {
    BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store_.GetVersion(key));
    if (!IsTorchScript(info.manifest.architecture_json)) return absl::OkStatus();
    BOSS_RETURN_IF_ERROR(store_.CheckTorchScriptAllowed(key.ToString()));
    BOSS_ASSIGN_OR_RETURN(const TorchScriptShape shape, DescribeTorchScript(info.manifest.architecture_json));
    if (!shape.trainable) {
      return WithField(absl::FailedPreconditionError(absl::StrCat(field, ": ", key.ToString(), " is not trainable")),
                       field);
    }
    if (!with_adapter) return absl::OkStatus();
    return UnservedField("spec.lora", "a TorchScript module takes no adapter, because its layers are its own");
  }

  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> NamedSet(absl::string_view field, const VersionKey& model,
                                                                    const std::string& name) {
    auto found = store_.FindScheduleSet(model, name);
    if (found.ok()) return found;
    const absl::Status& status = found.status();
    return WithField(absl::Status(status.code(), absl::StrCat(field, ": ", status.message())), field);
  }

  absl::Status CheckEvaluation(absl::string_view prefix, const EvaluateSpec& spec, const VersionKey& model) {
    for (const std::string& set : spec.schedules.sets)
      BOSS_RETURN_IF_ERROR(NamedSet(absl::StrCat(prefix, "schedule_sets"), model, set).status());
    if (spec.reference_dataset && !spec.reference_dataset->empty()) {
      BOSS_RETURN_IF_ERROR(CheckDataset(absl::StrCat(prefix, "reference_dataset"), *spec.reference_dataset, options_));
    }
    if (!spec.feature_network.empty() && !options_.feature_networks.contains(spec.feature_network)) {
      const std::string field = absl::StrCat(prefix, "feature_network");
      return WithField(
          absl::NotFoundError(absl::StrCat(field, ": the server has no feature network ", spec.feature_network)),
          field);
    }
    return absl::OkStatus();
  }

  const ModelStore& store_;
  const JobManagerOptions& options_;
  Job& job_;
};

}  // namespace

absl::Status ValidateSubmitOptions(const SubmitOptions& options, absl::Duration max_retention, absl::Time now) {
  if (options.request_id.size() > kMaxText)
    return FieldError("request_id", absl::StrFormat("expected at most %d characters", kMaxText));
  if (options.display_name.size() > kMaxText)
    return FieldError("options.display_name", absl::StrFormat("expected at most %d characters", kMaxText));
  if (options.labels.size() > kMaxLabels)
    return FieldError("options.labels", absl::StrFormat("expected at most %d", kMaxLabels));
  for (const auto& [key, value] : options.labels) {
    if (key.empty() || key.size() > kMaxText || value.size() > kMaxText) {
      return FieldError("options.labels", absl::StrFormat("expected keys of 1 to %d characters and values of up to %d",
                                                          kMaxText, kMaxText));
    }
  }
  if (options.priority < -kMaxPriority || options.priority > kMaxPriority) {
    return FieldError("options.priority",
                      absl::StrFormat("expected %d to %d, got %d", -kMaxPriority, kMaxPriority, options.priority));
  }
  if (options.retention && *options.retention < absl::ZeroDuration())
    return FieldError("options.retention", "expected a duration that is not negative");
  if (options.retention && *options.retention > max_retention) {
    return FieldError("options.retention",
                      absl::StrCat("expected at most ", absl::FormatDuration(max_retention), ", got ",
                                   absl::FormatDuration(*options.retention)));
  }
  if (options.max_crashes < 0 || options.max_crashes > kMaxCrashes) {
    return FieldError("options.max_crashes",
                      absl::StrFormat("expected 0 to %d, got %d", kMaxCrashes, options.max_crashes));
  }
  if (options.deadline <= now) return FieldError("options.deadline", "expected a time in the future");
  return absl::OkStatus();
}

std::string RequestHash(const JobSpec& spec, const SubmitOptions& options) {
  Json json = {{"kind", JobKindName(KindOf(spec))},    {"spec", JobSpecToJson(spec)},
               {"display_name", options.display_name}, {"labels", options.labels},
               {"priority", options.priority},         {"max_crashes", options.max_crashes}};
  PutTime(json, "deadline", options.deadline);
  if (options.retention) json["retention"] = absl::ToDoubleSeconds(*options.retention);
  return Sha256Hex(DumpJson(json));
}

absl::Status ResolveInputs(const ModelStore& store, const JobManagerOptions& options, Job& job) {
  return std::visit(Resolver(store, options, job), job.spec);
}

std::string OutputModel(const JobSpec& spec) {
  if (const auto* train = std::get_if<TrainSpec>(&spec)) return train->output_model;
  if (const auto* distill = std::get_if<DistillSpec>(&spec)) return distill->output_model;
  return "";
}

}  // namespace boss::server
