#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/jobs/job_spec.h"
#include "server/store/json_reader.h"

namespace boss::server {
namespace {

Json TrainingToJson(const TrainingSpec& spec) {
  const TrainerOptions& trainer = spec.trainer;
  return {{"train_steps", spec.train_steps},
          {"batch_size", spec.batch_size},
          {"checkpoint_interval", spec.checkpoint_interval},
          {"metrics_interval", spec.metrics_interval},
          {"preview_interval", spec.preview_interval},
          {"preview_samples", spec.preview_samples},
          {"learning_rate", trainer.learning_rate},
          {"beta1", trainer.beta1},
          {"beta2", trainer.beta2},
          {"adam_epsilon", trainer.adam_epsilon},
          {"warmup_steps", trainer.warmup_steps},
          {"decay_steps", trainer.decay_steps},
          {"gradient_clip", trainer.gradient_clip},
          {"ema_rate", trainer.ema_rate},
          {"accumulation_steps", trainer.accumulation_steps}};
}

absl::StatusOr<TrainingSpec> TrainingFromJson(const Json& json) {
  TrainingSpec spec;
  TrainerOptions& trainer = spec.trainer;
  JsonReader reader(json, "training");
  reader.Required("train_steps", spec.train_steps);
  reader.Required("batch_size", spec.batch_size);
  reader.Required("checkpoint_interval", spec.checkpoint_interval);
  reader.Required("metrics_interval", spec.metrics_interval);
  reader.Required("preview_interval", spec.preview_interval);
  reader.Required("preview_samples", spec.preview_samples);
  reader.Required("learning_rate", trainer.learning_rate);
  reader.Required("beta1", trainer.beta1);
  reader.Required("beta2", trainer.beta2);
  reader.Required("adam_epsilon", trainer.adam_epsilon);
  reader.Required("warmup_steps", trainer.warmup_steps);
  reader.Required("decay_steps", trainer.decay_steps);
  reader.Required("gradient_clip", trainer.gradient_clip);
  reader.Required("ema_rate", trainer.ema_rate);
  reader.Required("accumulation_steps", trainer.accumulation_steps);
  BOSS_RETURN_IF_ERROR(reader.status());
  return spec;
}

Json ToJson(const TrainSpec& spec) {
  return {{"dataset", spec.dataset},
          {"architecture_json", spec.architecture_json},
          {"init_model", spec.init_model},
          {"output_model", spec.output_model},
          {"output_alias", spec.output_alias},
          {"training", TrainingToJson(spec.training)},
          {"label_dropout", spec.label_dropout},
          {"flip", spec.flip},
          {"description", spec.description},
          {"label_names", spec.label_names},
          {"seed", spec.seed},
          {"default_steps", spec.default_steps}};
}

absl::StatusOr<TrainSpec> TrainFromJson(const Json& json) {
  TrainSpec spec;
  JsonReader reader(json, "train");
  reader.Required("dataset", spec.dataset);
  reader.Required("architecture_json", spec.architecture_json);
  reader.Required("init_model", spec.init_model);
  reader.Required("output_model", spec.output_model);
  reader.Required("output_alias", spec.output_alias);
  reader.Object("training", spec.training, TrainingFromJson);
  reader.Required("label_dropout", spec.label_dropout);
  reader.Required("flip", spec.flip);
  reader.Required("description", spec.description);
  reader.Required("label_names", spec.label_names);
  reader.Required("seed", spec.seed);
  reader.Required("default_steps", spec.default_steps);
  BOSS_RETURN_IF_ERROR(reader.status());
  return spec;
}

Json ToJson(const OptimizeStepsizesSpec& spec) {
  return {{"model", spec.model},
          {"k_max", spec.k_max},
          {"fine_time_grid", spec.fine_time_grid},
          {"schedule_set", spec.schedule_set},
          {"num_samples", spec.num_samples},
          {"guidance_scale", spec.guidance_scale},
          {"seed", spec.seed},
          {"batch_size", spec.batch_size},
          {"unconditional", spec.unconditional},
          {"max_multistep_steps", spec.max_multistep_steps},
          {"multistep_refinement", spec.multistep_refinement}};
}

absl::StatusOr<OptimizeStepsizesSpec> OptimizeStepsizesFromJson(const Json& json) {
  OptimizeStepsizesSpec spec;
  JsonReader reader(json, "optimize_stepsizes");
  reader.Required("model", spec.model);
  reader.Required("k_max", spec.k_max);
  reader.Optional("fine_time_grid", spec.fine_time_grid);
  reader.Optional("schedule_set", spec.schedule_set);
  reader.Required("num_samples", spec.num_samples);
  reader.Required("guidance_scale", spec.guidance_scale);
  reader.Required("seed", spec.seed);
  reader.Required("batch_size", spec.batch_size);
  reader.Required("unconditional", spec.unconditional);
  reader.Optional("max_multistep_steps", spec.max_multistep_steps);
  reader.Optional("multistep_refinement", spec.multistep_refinement);
  BOSS_RETURN_IF_ERROR(reader.status());
  return spec;
}

Json ToJson(const EvaluateSpec& spec) {
  Json json = {{"model", spec.model},
               {"other_models", spec.other_models},
               {"baseline", spec.baseline},
               {"steps", spec.steps},
               {"uniform", spec.schedules.uniform},
               {"bellman", spec.schedules.bellman},
               {"require_bellman", spec.schedules.require_bellman},
               {"named", spec.schedules.named},
               {"schedule_sets", spec.schedules.sets},
               {"time_grids", spec.schedules.time_grids},
               {"solver", std::string(SolverName(spec.solver))},
               {"num_samples", spec.num_samples},
               {"batch_size", spec.batch_size},
               {"seed", spec.seed},
               {"guidance_scale", spec.guidance_scale},
               {"k_max", spec.k_max},
               {"fine_time_grid", spec.fine_time_grid},
               {"feature_network", spec.feature_network},
               {"unconditional", spec.unconditional},
               {"include_fine", spec.include_fine},
               {"measure_straightness", spec.measure_straightness}};
  PutOptional(json, "reference_dataset", spec.reference_dataset);
  for (const SolverKind solver : spec.other_solvers) json["other_solvers"].push_back(std::string(SolverName(solver)));
  return json;
}

absl::StatusOr<EvaluateSpec> EvaluateFromJson(const Json& json) {
  EvaluateSpec spec;
  JsonReader reader(json, "evaluate");
  reader.Required("model", spec.model);
  reader.Required("other_models", spec.other_models);
  reader.Required("baseline", spec.baseline);
  reader.Required("steps", spec.steps);
  reader.Required("uniform", spec.schedules.uniform);
  reader.Required("bellman", spec.schedules.bellman);
  reader.Required("require_bellman", spec.schedules.require_bellman);
  reader.Optional("named", spec.schedules.named);
  reader.Optional("schedule_sets", spec.schedules.sets);
  reader.Optional("time_grids", spec.schedules.time_grids);
  reader.Name("solver", spec.solver, ParseSolver);
  std::vector<std::string> other_solvers;
  reader.Optional("other_solvers", other_solvers);
  reader.Required("num_samples", spec.num_samples);
  reader.Required("batch_size", spec.batch_size);
  reader.Required("seed", spec.seed);
  reader.Required("guidance_scale", spec.guidance_scale);
  reader.Required("k_max", spec.k_max);
  reader.Optional("fine_time_grid", spec.fine_time_grid);
  reader.Optional("reference_dataset", spec.reference_dataset);
  reader.Required("feature_network", spec.feature_network);
  reader.Required("unconditional", spec.unconditional);
  reader.Required("include_fine", spec.include_fine);
  reader.Required("measure_straightness", spec.measure_straightness);
  BOSS_RETURN_IF_ERROR(reader.status());
  for (const std::string& name : other_solvers) {
    const std::optional<SolverKind> solver = ParseSolver(name);
    if (!solver) return absl::DataLossError(absl::StrCat("evaluate.other_solvers: unknown value ", name));
    spec.other_solvers.push_back(*solver);
  }
  return spec;
}

absl::StatusOr<LoraSpec> LoraFromJson(const Json& json) {
  LoraSpec lora;
  JsonReader reader(json, "lora");
  reader.Required("rank", lora.rank);
  reader.Required("alpha", lora.alpha);
  BOSS_RETURN_IF_ERROR(reader.status());
  return lora;
}

constexpr char kStraighten[] = "straighten", kReflow[] = "reflow";

std::optional<DistillMethod> ParseMethod(absl::string_view name) {
  if (name == kStraighten) return DistillMethod::kStraighten;
  if (name == kReflow) return DistillMethod::kReflow;
  return std::nullopt;
}

Json ToJson(const DistillSpec& spec) {
  Json json = {{"model", spec.model},
               {"method", spec.method == DistillMethod::kReflow ? kReflow : kStraighten},
               {"steps", spec.steps},
               {"k_max", spec.k_max},
               {"fine_time_grid", spec.fine_time_grid},
               {"num_samples", spec.num_samples},
               {"fresh_schedule", spec.fresh_schedule},
               {"num_noises", spec.num_noises},
               {"held_out_share", spec.held_out_share},
               {"training", TrainingToJson(spec.training)},
               {"guidance_scale", spec.guidance_scale},
               {"output_model", spec.output_model},
               {"output_alias", spec.output_alias},
               {"seed", spec.seed},
               {"batch_size", spec.batch_size},
               {"unconditional", spec.unconditional},
               {"regenerate_pairs", spec.regenerate_pairs},
               {"description", spec.description},
               {"fit_multistep", spec.fit_multistep}};
  // Left out if empty, so that a request from before it was known is still the same one.
  if (!spec.schedule_set.empty()) json["schedule_set"] = spec.schedule_set;
  if (spec.lora) json["lora"] = {{"rank", spec.lora->rank}, {"alpha", spec.lora->alpha}};
  if (spec.evaluation) json["evaluation"] = ToJson(*spec.evaluation);
  return json;
}

absl::StatusOr<DistillSpec> DistillFromJson(const Json& json) {
  DistillSpec spec;
  JsonReader reader(json, "distill");
  reader.Required("model", spec.model);
  reader.Name("method", spec.method, ParseMethod);
  reader.Required("steps", spec.steps);
  reader.OptionalObject("lora", spec.lora, LoraFromJson);
  reader.Required("k_max", spec.k_max);
  reader.Optional("fine_time_grid", spec.fine_time_grid);
  reader.Required("num_samples", spec.num_samples);
  reader.Required("fresh_schedule", spec.fresh_schedule);
  reader.Required("num_noises", spec.num_noises);
  reader.Required("held_out_share", spec.held_out_share);
  reader.Object("training", spec.training, TrainingFromJson);
  reader.Required("guidance_scale", spec.guidance_scale);
  reader.OptionalObject("evaluation", spec.evaluation, EvaluateFromJson);
  reader.Required("output_model", spec.output_model);
  reader.Required("output_alias", spec.output_alias);
  reader.Required("seed", spec.seed);
  reader.Required("batch_size", spec.batch_size);
  reader.Required("unconditional", spec.unconditional);
  reader.Optional("regenerate_pairs", spec.regenerate_pairs);
  reader.Required("description", spec.description);
  reader.Optional("fit_multistep", spec.fit_multistep);
  reader.Optional("schedule_set", spec.schedule_set);
  BOSS_RETURN_IF_ERROR(reader.status());
  return spec;
}

}  // namespace

std::string JobSpecToJson(const JobSpec& spec) {
  return DumpJson(std::visit([](const auto& kind_spec) { return ToJson(kind_spec); }, spec));
}

absl::StatusOr<JobSpec> JobSpecFromJson(JobKind kind, absl::string_view text) {
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject("job spec", text));
  switch (kind) {
    case JobKind::kTrain:
      return TrainFromJson(json);
    case JobKind::kOptimizeStepsizes:
      return OptimizeStepsizesFromJson(json);
    case JobKind::kDistill:
      return DistillFromJson(json);
    case JobKind::kEvaluate:
      return EvaluateFromJson(json);
  }
  return absl::DataLossError("job spec: unknown kind");
}

}  // namespace boss::server
