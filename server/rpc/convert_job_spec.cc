#include "server/rpc/convert_job_spec.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_common.h"

namespace boss::server {
namespace {

// As jobs.proto states.
constexpr int kDefaultMultistepSteps = 8;
constexpr int64_t kNoisesOfDefaultFit = 64;

// A field that is 0 keeps the default.
template <typename Target, typename Value>
void SetUnlessZero(Target& target, Value value) {
  if (value != Value()) target = value;
}

TrainingSpec TrainingFromProto(const v1::TrainingOptions& proto) {
  TrainingSpec training;
  SetUnlessZero(training.train_steps, proto.train_steps());
  SetUnlessZero(training.batch_size, proto.batch_size());
  SetUnlessZero(training.trainer.learning_rate, proto.learning_rate());
  training.trainer.warmup_steps = proto.warmup_steps();
  training.trainer.decay_steps = proto.decay_steps();
  if (proto.has_gradient_clip()) training.trainer.gradient_clip = proto.gradient_clip();
  if (proto.has_ema_rate()) training.trainer.ema_rate = proto.ema_rate();
  SetUnlessZero(training.trainer.accumulation_steps, proto.accumulation_steps());
  SetUnlessZero(training.checkpoint_interval, proto.checkpoint_interval());
  SetUnlessZero(training.metrics_interval, proto.metrics_interval());
  training.preview_interval = proto.preview_interval();
  SetUnlessZero(training.preview_samples, proto.preview_samples());
  return training;
}

v1::TrainingOptions ToProto(const TrainingSpec& training) {
  v1::TrainingOptions proto;
  proto.set_train_steps(training.train_steps);
  proto.set_batch_size(training.batch_size);
  proto.set_learning_rate(training.trainer.learning_rate);
  proto.set_warmup_steps(training.trainer.warmup_steps);
  proto.set_decay_steps(training.trainer.decay_steps);
  proto.set_gradient_clip(training.trainer.gradient_clip);
  proto.set_ema_rate(training.trainer.ema_rate);
  proto.set_accumulation_steps(training.trainer.accumulation_steps);
  proto.set_checkpoint_interval(training.checkpoint_interval);
  proto.set_metrics_interval(training.metrics_interval);
  proto.set_preview_interval(training.preview_interval);
  proto.set_preview_samples(training.preview_samples);
  return proto;
}

// Only the times of an explicit schedule are read.
absl::StatusOr<std::vector<double>> TimesFromProto(const v1::Schedule& schedule, absl::string_view field) {
  if (schedule.steps() != 0 && schedule.steps() != schedule.time_grid_size() - 1) {
    return FieldError(field, absl::StrCat("steps must be 0 or agree with time_grid, got ", schedule.steps(), " and ",
                                          schedule.time_grid_size(), " times"));
  }
  return std::vector<double>(schedule.time_grid().begin(), schedule.time_grid().end());
}

// An unset number of intervals is that of the fine grid, if one is given.
template <typename Spec, typename Proto>
void FineGridFromProto(const Proto& proto, Spec& spec) {
  spec.fine_time_grid.assign(proto.fine_time_grid().begin(), proto.fine_time_grid().end());
  if (!spec.fine_time_grid.empty()) spec.k_max = static_cast<int>(spec.fine_time_grid.size()) - 1;
  SetUnlessZero(spec.k_max, proto.k_max());
}

absl::StatusOr<ScheduleChoice> SchedulesFromProto(const google::protobuf::RepeatedField<int>& kinds,
                                                  absl::string_view field) {
  ScheduleChoice choice;
  if (kinds.empty()) return choice;
  choice = {.uniform = false, .bellman = false};
  for (const int kind : kinds) {
    switch (kind) {
      case v1::SCHEDULE_KIND_UNIFORM:
        choice.uniform = true;
        break;
      case v1::SCHEDULE_KIND_BELLMAN:
        choice.bellman = choice.require_bellman = true;
        break;
      case v1::SCHEDULE_KIND_NAMED:
        choice.named = true;
        break;
      case v1::SCHEDULE_KIND_EXPLICIT:
        return FieldError(field, "explicit times are given in time_grids");
      default:
        return FieldError(field, absl::StrCat("must be uniform, Bellman or named, got ", kind));
    }
  }
  return choice;
}

absl::StatusOr<EvaluateSpec> EvaluateFromProto(const v1::EvaluateSpec& proto, const std::string& path) {
  EvaluateSpec spec;
  spec.model = proto.model();
  spec.other_models.assign(proto.other_models().begin(), proto.other_models().end());
  spec.baseline = proto.baseline();
  spec.steps.assign(proto.steps().begin(), proto.steps().end());
  BOSS_ASSIGN_OR_RETURN(spec.schedules, SchedulesFromProto(proto.schedules(), path + "schedules"));
  spec.schedules.sets.assign(proto.schedule_sets().begin(), proto.schedule_sets().end());
  for (const v1::Schedule& schedule : proto.time_grids()) {
    BOSS_ASSIGN_OR_RETURN(spec.schedules.time_grids.emplace_back(), TimesFromProto(schedule, path + "time_grids"));
  }
  BOSS_ASSIGN_OR_RETURN(spec.solver, SolverFromProto(proto.solver(), path + "solver"));
  for (const int other : proto.other_solvers()) {
    BOSS_ASSIGN_OR_RETURN(spec.other_solvers.emplace_back(),
                          SolverFromProto(static_cast<v1::Solver>(other), path + "other_solvers"));
  }
  SetUnlessZero(spec.num_samples, proto.num_samples());
  spec.batch_size = proto.batch_size();
  spec.seed = proto.seed();
  if (proto.has_guidance_scale()) spec.guidance_scale = proto.guidance_scale();
  FineGridFromProto(proto, spec);
  if (proto.has_reference_dataset()) spec.reference_dataset = proto.reference_dataset();
  spec.feature_network = proto.feature_network();
  spec.unconditional = proto.unconditional();
  spec.include_fine = proto.include_fine();
  spec.measure_straightness = proto.measure_straightness();
  return spec;
}

v1::EvaluateSpec ToProto(const EvaluateSpec& spec) {
  v1::EvaluateSpec proto;
  proto.set_model(spec.model);
  proto.mutable_other_models()->Add(spec.other_models.begin(), spec.other_models.end());
  proto.set_baseline(spec.baseline);
  proto.mutable_steps()->Add(spec.steps.begin(), spec.steps.end());
  if (spec.schedules.uniform) proto.add_schedules(v1::SCHEDULE_KIND_UNIFORM);
  if (spec.schedules.bellman) proto.add_schedules(v1::SCHEDULE_KIND_BELLMAN);
  if (spec.schedules.named) proto.add_schedules(v1::SCHEDULE_KIND_NAMED);
  proto.mutable_schedule_sets()->Add(spec.schedules.sets.begin(), spec.schedules.sets.end());
  for (const std::vector<double>& times : spec.schedules.time_grids) {
    v1::Schedule& schedule = *proto.add_time_grids();
    schedule.set_steps(static_cast<int>(times.size()) - 1);
    schedule.mutable_time_grid()->Add(times.begin(), times.end());
  }
  proto.mutable_fine_time_grid()->Add(spec.fine_time_grid.begin(), spec.fine_time_grid.end());
  proto.set_solver(server::ToProto(spec.solver));
  for (const SolverKind other : spec.other_solvers) proto.add_other_solvers(server::ToProto(other));
  proto.set_num_samples(spec.num_samples);
  proto.set_batch_size(spec.batch_size);
  proto.set_seed(spec.seed);
  proto.set_guidance_scale(spec.guidance_scale);
  proto.set_k_max(spec.k_max);
  if (spec.reference_dataset) proto.set_reference_dataset(*spec.reference_dataset);
  proto.set_feature_network(spec.feature_network);
  proto.set_unconditional(spec.unconditional);
  proto.set_include_fine(spec.include_fine);
  proto.set_measure_straightness(spec.measure_straightness);
  return proto;
}

v1::TrainSpec ToProto(const TrainSpec& spec) {
  v1::TrainSpec proto;
  proto.set_dataset(spec.dataset);
  proto.set_architecture_json(spec.architecture_json);
  proto.set_init_model(spec.init_model);
  proto.set_output_model(spec.output_model);
  proto.set_output_alias(spec.output_alias);
  *proto.mutable_training() = ToProto(spec.training);
  proto.set_label_dropout(spec.label_dropout);
  proto.set_flip(spec.flip);
  proto.set_description(spec.description);
  proto.mutable_label_names()->Add(spec.label_names.begin(), spec.label_names.end());
  proto.set_seed(spec.seed);
  proto.set_default_steps(spec.default_steps);
  return proto;
}

v1::OptimizeStepsizesSpec ToProto(const OptimizeStepsizesSpec& spec) {
  v1::OptimizeStepsizesSpec proto;
  proto.set_model(spec.model);
  proto.set_k_max(spec.k_max);
  proto.set_num_samples(static_cast<int>(spec.num_samples));
  proto.set_guidance_scale(spec.guidance_scale);
  proto.set_seed(spec.seed);
  proto.set_batch_size(spec.batch_size);
  proto.set_unconditional(spec.unconditional);
  proto.set_solver(v1::SOLVER_EULER);
  proto.mutable_fine_time_grid()->Add(spec.fine_time_grid.begin(), spec.fine_time_grid.end());
  proto.set_schedule_set(spec.schedule_set);
  proto.set_max_multistep_steps(spec.max_multistep_steps);
  proto.set_multistep_refinement(spec.multistep_refinement);
  return proto;
}

v1::DistillSpec ToProto(const DistillSpec& spec) {
  v1::DistillSpec proto;
  proto.set_model(spec.model);
  proto.set_method(spec.method == DistillMethod::kReflow ? v1::DistillSpec::REFLOW : v1::DistillSpec::BOSS);
  proto.set_steps(spec.steps);
  proto.set_tuning(spec.lora ? v1::DistillSpec::LORA : v1::DistillSpec::FULL);
  if (spec.lora) {
    proto.mutable_lora()->set_rank(static_cast<int>(spec.lora->rank));
    proto.mutable_lora()->set_alpha(spec.lora->alpha);
  }
  proto.set_k_max(spec.k_max);
  proto.mutable_fine_time_grid()->Add(spec.fine_time_grid.begin(), spec.fine_time_grid.end());
  proto.set_num_samples(static_cast<int>(spec.num_samples));
  proto.set_fresh_schedule(spec.fresh_schedule);
  proto.set_num_noises(spec.num_noises);
  proto.set_held_out_share(spec.held_out_share);
  *proto.mutable_training() = ToProto(spec.training);
  proto.set_guidance_scale(spec.guidance_scale);
  if (spec.evaluation) *proto.mutable_evaluation() = ToProto(*spec.evaluation);
  proto.set_output_model(spec.output_model);
  proto.set_output_alias(spec.output_alias);
  proto.set_seed(spec.seed);
  proto.set_batch_size(spec.batch_size);
  proto.set_unconditional(spec.unconditional);
  proto.set_regenerate_pairs(spec.regenerate_pairs);
  proto.set_description(spec.description);
  proto.set_fit_multistep(spec.fit_multistep);
  proto.set_schedule_set(spec.schedule_set);
  return proto;
}

}  // namespace

absl::StatusOr<JobSpec> JobSpecFromProto(const v1::TrainSpec& proto) {
  TrainSpec spec;
  spec.dataset = proto.dataset();
  spec.architecture_json = proto.architecture_json();
  spec.init_model = proto.init_model();
  spec.output_model = proto.output_model();
  spec.output_alias = proto.output_alias();
  spec.training = TrainingFromProto(proto.training());
  if (proto.has_label_dropout()) spec.label_dropout = proto.label_dropout();
  spec.flip = proto.flip();
  spec.description = proto.description();
  spec.label_names.assign(proto.label_names().begin(), proto.label_names().end());
  spec.seed = proto.seed();
  spec.default_steps = proto.default_steps();
  return spec;
}

absl::StatusOr<JobSpec> JobSpecFromProto(const v1::OptimizeStepsizesSpec& proto) {
  BOSS_ASSIGN_OR_RETURN(const SolverKind solver, SolverFromProto(proto.solver(), "spec.solver"));
  if (solver != SolverKind::kEuler) {
    return UnservedField("spec.solver",
                         "stepsizes are optimized for euler, and for multistep beside it: see max_multistep_steps");
  }
  OptimizeStepsizesSpec spec;
  spec.model = proto.model();
  FineGridFromProto(proto, spec);
  spec.schedule_set = proto.schedule_set();
  SetUnlessZero(spec.num_samples, proto.num_samples());
  if (proto.has_guidance_scale()) spec.guidance_scale = proto.guidance_scale();
  spec.seed = proto.seed();
  spec.batch_size = proto.batch_size();
  spec.unconditional = proto.unconditional();
  if (proto.has_max_multistep_steps()) {
    spec.max_multistep_steps = proto.max_multistep_steps();
  } else if (spec.num_samples >= 2 && spec.schedule_set.empty()) {
    spec.max_multistep_steps = std::min(kDefaultMultistepSteps, spec.k_max);
  }
  spec.multistep_refinement = proto.multistep_refinement();
  return spec;
}

absl::StatusOr<JobSpec> JobSpecFromProto(const v1::DistillSpec& proto) {
  if (!v1::DistillSpec::Method_IsValid(proto.method())) {
    return FieldError("spec.method", absl::StrCat("unknown value ", static_cast<int>(proto.method())));
  }
  if (!v1::DistillSpec::Tuning_IsValid(proto.tuning())) {
    return FieldError("spec.tuning", absl::StrCat("unknown value ", static_cast<int>(proto.tuning())));
  }
  DistillSpec spec;
  spec.model = proto.model();
  if (proto.method() == v1::DistillSpec::REFLOW) spec.method = DistillMethod::kReflow;
  SetUnlessZero(spec.steps, proto.steps());
  if (proto.tuning() == v1::DistillSpec::LORA) {
    LoraSpec lora;
    SetUnlessZero(lora.rank, proto.lora().rank());
    lora.alpha = static_cast<double>(lora.rank);
    SetUnlessZero(lora.alpha, proto.lora().alpha());
    spec.lora = lora;
  } else if (proto.has_lora()) {
    return FieldError("spec.lora", "is for the tuning LORA alone");
  }
  FineGridFromProto(proto, spec);
  SetUnlessZero(spec.num_samples, proto.num_samples());
  spec.fresh_schedule = proto.fresh_schedule();
  SetUnlessZero(spec.num_noises, proto.num_noises());
  if (proto.has_held_out_share()) spec.held_out_share = proto.held_out_share();
  spec.training = TrainingFromProto(proto.training());
  if (proto.has_guidance_scale()) spec.guidance_scale = proto.guidance_scale();
  if (proto.has_evaluation()) {
    BOSS_ASSIGN_OR_RETURN(spec.evaluation, EvaluateFromProto(proto.evaluation(), "spec.evaluation."));
  }
  spec.output_model = proto.output_model();
  spec.output_alias = proto.output_alias();
  spec.seed = proto.seed();
  spec.batch_size = proto.batch_size();
  spec.unconditional = proto.unconditional();
  spec.regenerate_pairs = proto.regenerate_pairs();
  spec.description = proto.description();
  const bool fits = spec.method == DistillMethod::kStraighten && spec.held_out_noises() >= kNoisesOfDefaultFit;
  spec.fit_multistep = proto.has_fit_multistep() ? proto.fit_multistep() : fits;
  spec.schedule_set = proto.schedule_set();
  return spec;
}

absl::StatusOr<JobSpec> JobSpecFromProto(const v1::EvaluateSpec& proto) {
  BOSS_ASSIGN_OR_RETURN(EvaluateSpec spec, EvaluateFromProto(proto, "spec."));
  if (spec.steps.empty()) spec.steps = EvaluateSpec().steps;
  return spec;
}

absl::StatusOr<SubmitOptions> SubmitOptionsFromProto(const v1::JobOptions& proto, const std::string& request_id,
                                                     bool validate_only) {
  SubmitOptions options;
  options.request_id = request_id;
  options.validate_only = validate_only;
  options.display_name = proto.display_name();
  options.labels = {proto.labels().begin(), proto.labels().end()};
  options.priority = proto.priority();
  if (proto.has_max_crashes()) options.max_crashes = proto.max_crashes();
  if (proto.has_retention()) {
    BOSS_ASSIGN_OR_RETURN(options.retention, DurationFromProto(proto.retention(), "options.retention"));
  }
  if (proto.has_deadline()) {
    BOSS_ASSIGN_OR_RETURN(options.deadline, TimeFromProto(proto.deadline(), "options.deadline"));
  }
  return options;
}

void JobSpecToProto(const JobSpec& spec, v1::Job& proto) {
  struct Visitor {
    v1::Job& proto;
    void operator()(const TrainSpec& train) { *proto.mutable_train() = ToProto(train); }
    void operator()(const OptimizeStepsizesSpec& optimize) { *proto.mutable_optimize_stepsizes() = ToProto(optimize); }
    void operator()(const DistillSpec& distill) { *proto.mutable_distill() = ToProto(distill); }
    void operator()(const EvaluateSpec& evaluate) { *proto.mutable_evaluate() = ToProto(evaluate); }
  };
  std::visit(Visitor{proto}, spec);
}

}  // namespace boss::server
