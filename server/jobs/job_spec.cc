#include "server/jobs/job_spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/store/model_store.h"

namespace boss::server {
namespace {

constexpr int kMaxKMax = 1000;
constexpr int64_t kMaxTrainSteps = 1'000'000'000;
constexpr int64_t kMaxSamples = 1'000'000;
constexpr int64_t kMaxBatch = 65536;
constexpr int64_t kMaxRefinement = 1'000'000'000;
constexpr double kMaxGuidance = 1000;
// What a job keeps in memory and in the journal.
constexpr size_t kMaxArchitecture = 64 << 10;
constexpr size_t kMaxPath = 8 << 10;
constexpr size_t kMaxDescription = 4 << 10;
constexpr size_t kMaxLabelNames = 1000;
constexpr size_t kMaxLabelName = 63;
constexpr size_t kMaxListed = 64;  // steps, models, schedule sets or time grids

constexpr std::array<std::pair<JobKind, const char*>, 4> kKinds = {{
    {JobKind::kTrain, "TRAIN"},
    {JobKind::kOptimizeStepsizes, "OPTIMIZE_STEPSIZES"},
    {JobKind::kDistill, "DISTILL"},
    {JobKind::kEvaluate, "EVALUATE"},
}};

absl::Status InRange(absl::string_view field, int64_t value, int64_t minimum, int64_t maximum) {
  if (value >= minimum && value <= maximum) return absl::OkStatus();
  return FieldError(absl::StrCat("spec.", field),
                    absl::StrFormat("expected %d to %d, got %d", minimum, maximum, value));
}

// [minimum, maximum]; NaN is never in range.
absl::Status NumberInRange(absl::string_view field, double value, double minimum, double maximum) {
  if (value >= minimum && value <= maximum) return absl::OkStatus();
  return FieldError(absl::StrCat("spec.", field),
                    absl::StrFormat("expected %g to %g, got %g", minimum, maximum, value));
}

absl::Status Present(absl::string_view field, absl::string_view value) {
  if (!value.empty()) return absl::OkStatus();
  return FieldError(absl::StrCat("spec.", field), "required");
}

absl::Status AtMost(absl::string_view field, size_t count, size_t maximum, absl::string_view unit) {
  if (count <= maximum) return absl::OkStatus();
  return FieldError(absl::StrCat("spec.", field),
                    absl::StrCat("expected at most ", maximum, " ", unit, ", got ", count));
}

absl::Status NameOrEmpty(absl::string_view field, absl::string_view name) {
  if (name.empty()) return absl::OkStatus();
  const absl::Status status = CheckName(absl::StrCat("spec.", field), name);
  return status.ok() ? status : WithField(status, absl::StrCat("spec.", field));
}

absl::Status AliasOrEmpty(absl::string_view field, absl::string_view alias) {
  if (alias.empty()) return absl::OkStatus();
  const absl::Status status = CheckAlias(absl::StrCat("spec.", field), alias);
  return status.ok() ? status : WithField(status, absl::StrCat("spec.", field));
}

// Absent, or k_max + 1 times from 0 to 1, which networks can tell apart: they get them as float32.
absl::Status FineGridFits(absl::string_view field, const std::vector<double>& times, int k_max) {
  if (times.empty()) return absl::OkStatus();
  const std::string path = absl::StrCat("spec.", field);
  if (times.size() != static_cast<size_t>(k_max) + 1) {
    return FieldError(path, absl::StrFormat("expected k_max + 1 = %d times, got %d", k_max + 1, times.size()));
  }
  const absl::Status status = TimeGrid::Create(times).status();
  if (!status.ok()) return FieldError(path, status.message());
  for (size_t i = 1; i < times.size(); ++i) {
    if (static_cast<float>(times[i]) > static_cast<float>(times[i - 1])) continue;
    return FieldError(path, absl::StrFormat("times[%d] and times[%d], %.17g and %.17g, are equal as float32", i - 1, i,
                                            times[i - 1], times[i]));
  }
  return absl::OkStatus();
}

absl::Status ValidateTraining(const TrainingSpec& spec) {
  const TrainerOptions& trainer = spec.trainer;
  BOSS_RETURN_IF_ERROR(InRange("training.train_steps", spec.train_steps, 1, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(InRange("training.batch_size", spec.batch_size, 1, kMaxBatch));
  BOSS_RETURN_IF_ERROR(InRange("training.checkpoint_interval", spec.checkpoint_interval, 1, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(InRange("training.metrics_interval", spec.metrics_interval, 1, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(InRange("training.preview_interval", spec.preview_interval, 0, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(InRange("training.preview_samples", spec.preview_samples, 1, 256));
  BOSS_RETURN_IF_ERROR(
      NumberInRange("training.learning_rate", trainer.learning_rate, std::numeric_limits<double>::min(), 1e3));
  BOSS_RETURN_IF_ERROR(InRange("training.warmup_steps", trainer.warmup_steps, 0, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(InRange("training.decay_steps", trainer.decay_steps, 0, kMaxTrainSteps));
  BOSS_RETURN_IF_ERROR(NumberInRange("training.gradient_clip", trainer.gradient_clip, 0.0, 1e12));
  BOSS_RETURN_IF_ERROR(InRange("training.accumulation_steps", trainer.accumulation_steps, 1, 4096));
  if (!(trainer.ema_rate >= 0 && trainer.ema_rate < 1)) {
    return FieldError("spec.training.ema_rate",
                      absl::StrFormat("expected a number in [0, 1), got %g", trainer.ema_rate));
  }
  return absl::OkStatus();
}

absl::Status Validate(const TrainSpec& spec) {
  BOSS_RETURN_IF_ERROR(Present("dataset", spec.dataset));
  BOSS_RETURN_IF_ERROR(AtMost("dataset", spec.dataset.size(), kMaxPath, "bytes"));
  BOSS_RETURN_IF_ERROR(AtMost("architecture_json", spec.architecture_json.size(), kMaxArchitecture, "bytes"));
  BOSS_RETURN_IF_ERROR(AtMost("description", spec.description.size(), kMaxDescription, "bytes"));
  BOSS_RETURN_IF_ERROR(AtMost("label_names", spec.label_names.size(), kMaxLabelNames, "names"));
  for (const std::string& name : spec.label_names)
    BOSS_RETURN_IF_ERROR(AtMost("label_names", name.size(), kMaxLabelName, "bytes in a name"));
  BOSS_RETURN_IF_ERROR(Present("output_model", spec.output_model));
  BOSS_RETURN_IF_ERROR(NameOrEmpty("output_model", spec.output_model));
  BOSS_RETURN_IF_ERROR(AliasOrEmpty("output_alias", spec.output_alias));
  if (spec.architecture_json.empty() == spec.init_model.empty()) {
    return FieldError("spec.architecture_json", "exactly one of architecture_json and init_model is expected");
  }
  BOSS_RETURN_IF_ERROR(ValidateTraining(spec.training));
  BOSS_RETURN_IF_ERROR(NumberInRange("label_dropout", spec.label_dropout, 0.0, 1.0));
  return InRange("default_steps", spec.default_steps, 0, kMaxKMax);
}

absl::Status Validate(const OptimizeStepsizesSpec& spec) {
  BOSS_RETURN_IF_ERROR(Present("model", spec.model));
  BOSS_RETURN_IF_ERROR(InRange("k_max", spec.k_max, 1, kMaxKMax));
  BOSS_RETURN_IF_ERROR(FineGridFits("fine_time_grid", spec.fine_time_grid, spec.k_max));
  if (!spec.schedule_set.empty()) {
    const absl::Status status = CheckScheduleSetName("spec.schedule_set", spec.schedule_set);
    if (!status.ok()) return WithField(status, "spec.schedule_set");
  }
  BOSS_RETURN_IF_ERROR(InRange("num_samples", spec.num_samples, 1, kMaxSamples));
  BOSS_RETURN_IF_ERROR(NumberInRange("guidance_scale", spec.guidance_scale, 0.0, kMaxGuidance));
  BOSS_RETURN_IF_ERROR(InRange("max_multistep_steps", spec.max_multistep_steps, 0, spec.k_max));
  if (spec.max_multistep_steps > 0) {
    if (spec.num_samples < 2) {
      return FieldError("spec.max_multistep_steps", "multistep schedules are fitted to at least 2 samples, expected 0");
    }
    if (!spec.schedule_set.empty()) {
      const absl::Status status = CheckScheduleSetName("spec.schedule_set", MultistepSetName(spec));
      if (!status.ok()) return WithField(status, "spec.schedule_set");
    }
  } else if (spec.multistep_refinement != 0) {
    return FieldError("spec.multistep_refinement", "there are no multistep schedules to refine, expected 0");
  }
  BOSS_RETURN_IF_ERROR(InRange("multistep_refinement", spec.multistep_refinement, 0, kMaxRefinement));
  return InRange("batch_size", spec.batch_size, 0, kMaxBatch);
}

// `prefix`: "" or "evaluation.".
absl::Status ValidateEvaluation(absl::string_view prefix, const EvaluateSpec& spec) {
  const auto field = [&](absl::string_view name) { return absl::StrCat(prefix, name); };
  BOSS_RETURN_IF_ERROR(AtMost(field("steps"), spec.steps.size(), kMaxListed, "numbers"));
  BOSS_RETURN_IF_ERROR(AtMost(field("other_models"), spec.other_models.size(), kMaxListed, "models"));
  BOSS_RETURN_IF_ERROR(AtMost(field("schedule_sets"), spec.schedules.sets.size(), kMaxListed, "sets"));
  BOSS_RETURN_IF_ERROR(AtMost(field("time_grids"), spec.schedules.time_grids.size(), kMaxListed, "grids"));
  if (spec.reference_dataset)
    BOSS_RETURN_IF_ERROR(AtMost(field("reference_dataset"), spec.reference_dataset->size(), kMaxPath, "bytes"));
  for (int steps : spec.steps) BOSS_RETURN_IF_ERROR(InRange(field("steps"), steps, 1, kMaxKMax));
  BOSS_RETURN_IF_ERROR(InRange(field("k_max"), spec.k_max, 1, kMaxKMax));
  BOSS_RETURN_IF_ERROR(FineGridFits(field("fine_time_grid"), spec.fine_time_grid, spec.k_max));
  BOSS_RETURN_IF_ERROR(InRange(field("num_samples"), spec.num_samples, 1, kMaxSamples));
  BOSS_RETURN_IF_ERROR(NumberInRange(field("guidance_scale"), spec.guidance_scale, 0.0, kMaxGuidance));
  BOSS_RETURN_IF_ERROR(InRange(field("batch_size"), spec.batch_size, 0, kMaxBatch));
  if (spec.solver == SolverKind::kRk45)
    return FieldError(absl::StrCat("spec.", field("solver")),
                      "rk45 chooses its own times: expected euler, heun or multistep");
  for (size_t i = 0; i < spec.other_solvers.size(); ++i) {
    const SolverKind solver = spec.other_solvers[i];
    const auto before = spec.other_solvers.begin() + static_cast<std::ptrdiff_t>(i);
    const bool is_known = solver == SolverKind::kHeun || solver == SolverKind::kMultistep;
    if (!is_known || solver == spec.solver || std::find(spec.other_solvers.begin(), before, solver) != before) {
      return FieldError(absl::StrCat("spec.", field("other_solvers")),
                        absl::StrCat("expected heun and multistep, each once and not as the solver, got ",
                                     std::string(SolverName(solver))));
    }
  }
  if (!spec.schedules.uniform && !spec.schedules.bellman && !spec.schedules.more()) {
    return FieldError(absl::StrCat("spec.", field("schedules")), "expected uniform, bellman, named sets or time grids");
  }
  const std::set<std::string> names(spec.schedules.sets.begin(), spec.schedules.sets.end());
  if (names.size() != spec.schedules.sets.size()) {
    return FieldError(absl::StrCat("spec.", field("schedule_sets")), "expected each set once");
  }
  for (const std::vector<double>& times : spec.schedules.time_grids) {
    BOSS_RETURN_IF_ERROR(InRange(field("time_grids.steps"), static_cast<int64_t>(times.size()) - 1, 1, kMaxKMax));
    const absl::Status status = TimeGrid::Create(times).status();
    if (!status.ok()) return FieldError(absl::StrCat("spec.", field("time_grids")), status.message());
  }
  return absl::OkStatus();
}

absl::Status Validate(const DistillSpec& spec) {
  if (spec.evaluation && spec.evaluation->solver == SolverKind::kMultistep)
    return FieldError("spec.evaluation.solver", "multistep is judged by an EvaluateJob, expected euler or heun");
  BOSS_RETURN_IF_ERROR(Present("model", spec.model));
  BOSS_RETURN_IF_ERROR(NameOrEmpty("output_model", spec.output_model));
  BOSS_RETURN_IF_ERROR(AliasOrEmpty("output_alias", spec.output_alias));
  BOSS_RETURN_IF_ERROR(AtMost("description", spec.description.size(), kMaxDescription, "bytes"));
  BOSS_RETURN_IF_ERROR(InRange("k_max", spec.k_max, 1, kMaxKMax));
  BOSS_RETURN_IF_ERROR(FineGridFits("fine_time_grid", spec.fine_time_grid, spec.k_max));
  BOSS_RETURN_IF_ERROR(InRange("steps", spec.steps, 1, spec.k_max));
  BOSS_RETURN_IF_ERROR(InRange("num_samples", spec.num_samples, 1, kMaxSamples));
  BOSS_RETURN_IF_ERROR(InRange("num_noises", spec.num_noises, 1, 100 * kMaxSamples));
  BOSS_RETURN_IF_ERROR(NumberInRange("held_out_share", spec.held_out_share, 0.0, 0.5));
  BOSS_RETURN_IF_ERROR(NumberInRange("guidance_scale", spec.guidance_scale, 0.0, kMaxGuidance));
  BOSS_RETURN_IF_ERROR(InRange("batch_size", spec.batch_size, 0, kMaxBatch));
  if (spec.fit_multistep && spec.method == DistillMethod::kReflow)
    return FieldError("spec.fit_multistep", "coefficients are fitted on the times of BOSS, expected false for reflow");
  if (spec.fit_multistep && spec.held_out_noises() < 2) {
    return FieldError("spec.fit_multistep", absl::StrCat("coefficients are fitted to at least 2 held-out noises, got ",
                                                         spec.held_out_noises(), " (num_noises times held_out_share)"));
  }
  if (!spec.schedule_set.empty() && spec.method == DistillMethod::kReflow)
    return FieldError("spec.schedule_set", "reflow has uniform times, expected none");
  if (!spec.schedule_set.empty() && spec.fresh_schedule)
    return FieldError("spec.fresh_schedule", "no schedule is searched where schedule_set names one, expected false");
  if (spec.lora) {
    BOSS_RETURN_IF_ERROR(InRange("lora.rank", spec.lora->rank, 1, 1024));
    BOSS_RETURN_IF_ERROR(NumberInRange("lora.alpha", spec.lora->alpha, std::numeric_limits<double>::min(), 1e6));
  }
  BOSS_RETURN_IF_ERROR(ValidateTraining(spec.training));
  return spec.evaluation ? ValidateEvaluation("evaluation.", *spec.evaluation) : absl::OkStatus();
}

absl::Status Validate(const EvaluateSpec& spec) {
  BOSS_RETURN_IF_ERROR(Present("model", spec.model));
  if (spec.steps.empty()) return FieldError("spec.steps", "required");
  return ValidateEvaluation("", spec);
}

}  // namespace

std::string JobKindName(JobKind kind) {
  for (const auto& [known, name] : kKinds) {
    if (known == kind) return name;
  }
  return "UNKNOWN";
}

std::optional<JobKind> ParseJobKind(absl::string_view name) {
  for (const auto& [kind, known] : kKinds) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

std::string MultistepSetName(const OptimizeStepsizesSpec& spec) {
  return spec.schedule_set.empty() ? "" : absl::StrCat(spec.schedule_set, "-multistep");
}

JobKind KindOf(const JobSpec& spec) { return kKinds[spec.index()].first; }

absl::Status ValidateSpec(const JobSpec& spec) {
  return std::visit([](const auto& kind_spec) { return Validate(kind_spec); }, spec);
}

}  // namespace boss::server
