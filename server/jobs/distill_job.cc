#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/objectives.h"
#include "core/flow/multistep.h"
#include "core/stepsize/optimize_multistep.h"
#include "server/jobs/job_models.h"
#include "server/jobs/pair_blocks.h"
#include "server/jobs/pair_store.h"
#include "server/jobs/preview.h"
#include "server/jobs/run_job.h"
#include "server/jobs/sampler_evaluation.h"
#include "server/jobs/stepsize_search.h"
#include "server/jobs/target_schedule.h"
#include "server/jobs/training_loop.h"
#include "server/store/manifest_json.h"

namespace boss::server {
namespace {

constexpr int64_t kHeldOutBatch = 64;

// One run of a distill job, stage after stage.
class Distillation {
 public:
  Distillation(JobContext& context, const DistillSpec& spec) : context_(context), spec_(spec) {
    search_.k_max = spec.k_max;
    search_.fine_time_grid = spec.fine_time_grid;
    search_.num_samples = spec.num_samples;
    search_.guidance_scale = spec.guidance_scale;
    search_.seed = spec.seed;
    search_.batch_size = spec.batch_size;
    search_.unconditional = spec.unconditional;
    if (spec.evaluation) {
      evaluation_ = *spec.evaluation;
      evaluation_.guidance_scale = spec.guidance_scale;
      evaluation_.unconditional = spec.unconditional;
      if (evaluation_.steps.empty()) evaluation_.steps = {spec.steps};
    }
  }

  absl::Status Run() {
    BOSS_ASSIGN_OR_RETURN(teacher_key_, InputVersion(context_, 0));
    // Whether stage 1 is needed decides which stages there are.
    const absl::Status found = FindSchedules();
    if (!found.ok() && !absl::IsNotFound(found)) return found;
    Plan(/*search=*/!found.ok());
    BOSS_RETURN_IF_ERROR(context_.EnterStage(JobStage::kPreparing, 1));
    BOSS_ASSIGN_OR_RETURN(teacher_, LoadModelForJob(context_, teacher_key_));
    BOSS_RETURN_IF_ERROR(CheckSizes());
    if (!found.ok() && NeedsSchedules()) {
      BOSS_ASSIGN_OR_RETURN(schedules_, SearchSchedules(context_, *teacher_, teacher_key_, search_));
    }
    ChooseSchedule();
    BOSS_RETURN_IF_ERROR(context_.ReportSchedule(set_name_, teacher_key_, native_.schedule));
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> student, Train());
    if (spec_.fit_multistep) BOSS_RETURN_IF_ERROR(FitCoefficients(*student));
    std::vector<EvaluationRow> rows;
    if (spec_.evaluation) {
      BOSS_ASSIGN_OR_RETURN(rows, Evaluate(*student));
    }
    return Publish(*student, std::move(rows));
  }

 private:
  bool reflow() const { return spec_.method == DistillMethod::kReflow; }
  // Reflow goes without them; its evaluation shows them where they are there.
  bool NeedsSchedules() const { return !reflow(); }

  // What an earlier run of this job chose: its pairs are cut there, whatever has become of the set since.
  const Schedule* EarlierSchedule() const {
    const std::optional<Schedule>& earlier = context_.job().result.schedule;
    const bool fits = earlier && !earlier->knots.empty() && earlier->time_grid.steps() == spec_.steps;
    return NeedsSchedules() && fits ? &*earlier : nullptr;
  }

  // Hours of stage 1 are not to be spent for what does not fit.
  absl::Status CheckSizes() const {
    const std::vector<int64_t> shape = teacher_->SampleShape();
    const int64_t pairs_per_noise = reflow() ? 1 : spec_.steps;
    // Of pairs that are drawn while training, two blocks are in memory at a time.
    int64_t in_memory = (2 * spec_.num_noises + held_out_noises()) * pairs_per_noise;
    if (!spec_.regenerate_pairs) {
      in_memory = spec_.num_noises * pairs_per_noise;
      BOSS_RETURN_IF_ERROR(CheckPairBytes(context_, shape, in_memory));
    }
    if (reflow()) in_memory += held_out_noises() * spec_.steps;  // AlongChord
    BOSS_RETURN_IF_ERROR(CheckPairMemory(shape, in_memory));
    return spec_.evaluation ? CheckSampleMemory(evaluation_, shape) : absl::OkStatus();
  }

  // \error NOT_FOUND if stage 1 must run.
  absl::Status FindSchedules() {
    absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> set =
        context_.store().FindScheduleSet(teacher_key_, spec_.guidance_scale, FineGridOf(spec_));
    if (!spec_.schedule_set.empty()) {
      if (!set.ok() && !absl::IsNotFound(set.status())) return set.status();
      if (set.ok()) schedules_ = *std::move(set);  // for the evaluation
      return EarlierSchedule() != nullptr ? absl::OkStatus() : FindTarget();
    }
    if (absl::IsNotFound(set.status()) && EarlierSchedule() != nullptr) return absl::OkStatus();
    BOSS_RETURN_IF_ERROR(set.status());
    // A run that goes on does not search again for what this job has made.
    const bool is_own = (*set)->job_id == context_.job().id || EarlierSchedule() != nullptr;
    if (NeedsSchedules() && spec_.fresh_schedule && !is_own)
      return absl::NotFoundError("a fresh schedule is asked for");
    schedules_ = *std::move(set);
    return absl::OkStatus();
  }

  // It may have been deleted or replaced since the job was submitted.
  absl::Status FindTarget() {
    const auto stored = context_.store().FindScheduleSet(teacher_key_, spec_.schedule_set);
    if (absl::IsNotFound(stored.status())) return absl::FailedPreconditionError(stored.status().message());
    BOSS_RETURN_IF_ERROR(stored.status());
    BOSS_ASSIGN_OR_RETURN(target_, TargetSchedule(**stored, spec_));
    return absl::OkStatus();
  }

  void Plan(bool search) {
    const int64_t evaluations_per_step = spec_.guidance_scale != 1.0 ? 2 : 1;
    std::vector<PlannedStage> plan = {{JobStage::kPreparing, 0}};
    if (search && NeedsSchedules()) {
      plan.push_back({JobStage::kTrajectories, SearchWeight(search_)});
      plan.push_back({JobStage::kCostMatrix, 0});
      plan.push_back({JobStage::kSchedule, 0});
    }
    const double pair_evaluations = static_cast<double>(spec_.k_max) * static_cast<double>(evaluations_per_step);
    double training_weight = TrainingWeight(spec_.training, evaluations_per_step);
    if (spec_.regenerate_pairs) {
      plan.push_back({JobStage::kPairs, static_cast<double>(held_out_noises()) * pair_evaluations});
      // One noise for as many pairs as a train step uses of it.
      const double pairs_per_noise = reflow() ? 1 : spec_.steps;
      training_weight +=
          static_cast<double>(spec_.training.train_steps * pairs_per_step()) / pairs_per_noise * pair_evaluations;
    } else {
      plan.push_back({JobStage::kPairs, static_cast<double>(spec_.num_noises) * pair_evaluations});
    }
    plan.push_back({JobStage::kStraightening, training_weight});
    if (spec_.evaluation) {
      double weight = RowWeight(evaluation_, evaluation_.k_max);
      for (int steps : evaluation_.steps) weight += 2 * RowWeight(evaluation_, steps);
      plan.push_back({JobStage::kEvaluation, weight * static_cast<double>(evaluations_per_step)});
    }
    plan.push_back({JobStage::kPublishing, 0});
    context_.SetPlan(std::move(plan));
  }

  // What the student is trained for.
  void ChooseSchedule() {
    native_.guidance_scale = spec_.guidance_scale;
    if (reflow()) {
      native_.kind = "uniform";
      native_.schedule.time_grid = TimeGrid::Uniform(spec_.steps);
    } else {
      native_.kind = "bellman";
      native_.k_max = spec_.k_max;
      if (const Schedule* const earlier = EarlierSchedule()) {
        // Without the coefficients that it may have got.
        native_.schedule = {
            .knots = earlier->knots, .time_grid = earlier->time_grid, .total_cost = earlier->total_cost};
        set_name_ = context_.job().result.schedule_set;
        return;
      }
      if (target_) {
        native_.schedule = *target_;
        set_name_ = spec_.schedule_set;
        return;
      }
      native_.schedule = schedules_->set.schedules[spec_.steps - 1];
    }
    if (schedules_ != nullptr) set_name_ = schedules_->Name();
  }

  // A noise-to-sample pair as K pairs along its chord: their loss is that of reflow at t = 0, 1/K, .., (K-1)/K.
  SegmentPairs AlongChord(const SegmentPairs& pairs) const {
    SegmentPairs expanded;
    const int64_t count = pairs.size();
    std::vector<at::Tensor> starts;
    std::vector<float> times;
    for (int step = 0; step < spec_.steps; ++step) {
      const double t = native_.schedule.time_grid[step];
      starts.push_back(at::lerp(pairs.x_start, pairs.x_end, t));
      times.push_back(static_cast<float>(t));
    }
    expanded.x_start = at::cat(starts);
    expanded.x_end = at::cat(std::vector<at::Tensor>(spec_.steps, pairs.x_end));
    expanded.t_start = at::tensor(times).repeat_interleave(count);
    expanded.t_end = at::ones({count * spec_.steps});
    expanded.segment = at::arange(spec_.steps, at::kLong).repeat_interleave(count);
    if (pairs.class_labels.defined()) expanded.class_labels = pairs.class_labels.repeat({spec_.steps});
    return expanded;
  }

  int64_t held_out_noises() const { return spec_.held_out_noises(); }
  int64_t pairs_per_step() const { return spec_.training.batch_size * spec_.training.trainer.accumulation_steps; }
  std::vector<int> knots() const { return reflow() ? std::vector<int>{0, spec_.k_max} : native_.schedule.knots; }

  std::unique_ptr<PairObjective> NewObjective() const {
    const int64_t batch_size = spec_.training.batch_size;
    if (reflow())
      return std::make_unique<ReflowObjective>(SegmentPairs{}, spec_.steps, batch_size, spec_.guidance_scale);
    return std::make_unique<StraighteningObjective>(SegmentPairs{}, batch_size, spec_.guidance_scale);
  }

  absl::StatusOr<std::unique_ptr<VelocityModel>> NewStudent() {
    BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, CopyForTraining(context_, *teacher_));
    if (spec_.lora) {
      BOSS_RETURN_IF_ERROR(context_.Run([&] {
        return GuardTorch("adapter", [&] {
          return model->AttachLora({static_cast<int>(spec_.lora->rank), spec_.lora->alpha}, spec_.seed);
        });
      }));
    }
    return model;
  }

  // The pairs of stage 2: those to train on go to the objective or, if they are drawn while training, come from
  // `blocks`; the held-out ones are returned.
  absl::StatusOr<SegmentPairs> PreparePairs(const PairSource& source, PairObjective& objective,
                                            std::optional<PairBlocks>& blocks) {
    const int64_t held_out = held_out_noises();
    if (spec_.regenerate_pairs) {
      BOSS_RETURN_IF_ERROR(context_.EnterStage(JobStage::kPairs, held_out));
      blocks.emplace(context_, source,
                     PairBlocks::Options{.first = held_out,
                                         .noises_per_block = spec_.num_noises,
                                         .pairs_per_step = pairs_per_step(),
                                         .train_steps = spec_.training.train_steps});
      if (held_out == 0) return SegmentPairs{};
      return DrawCountedPairs(context_, source, 0, held_out);
    }
    BOSS_ASSIGN_OR_RETURN(const SegmentPairs pairs, StoredPairs(context_, source, spec_.num_noises));
    const int64_t split = (spec_.num_noises - held_out) * source.pairs_per_noise();
    objective.SetPairs(pairs.Slice(0, split));
    return pairs.Slice(split, pairs.size());
  }

  absl::StatusOr<std::unique_ptr<VelocityModel>> Train() {
    BOSS_ASSIGN_OR_RETURN(const NoiseSource noises, NoiseSource::Create(*teacher_, NoiseUse::kPairs, spec_.seed,
                                                                        spec_.guidance_scale, spec_.unconditional));
    const PairSource source{*teacher_, noises, FineGridOf(spec_), knots(),
                            TrajectoryBatchSize(spec_.batch_size, teacher_->SampleShape(), spec_.k_max)};
    const std::unique_ptr<PairObjective> objective = NewObjective();
    std::optional<PairBlocks> blocks;
    BOSS_ASSIGN_OR_RETURN(SegmentPairs held_out, PreparePairs(source, *objective, blocks));
    if (spec_.fit_multistep) held_out_ = held_out;
    if (reflow() && held_out_noises() > 0) held_out = AlongChord(held_out);

    BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, NewStudent());
    TrainerOptions options = spec_.training.trainer;
    options.seed = spec_.seed;
    Trainer trainer(std::move(model), options);
    BOSS_ASSIGN_OR_RETURN(
        const NoiseSource preview_noises,
        NoiseSource::Create(*teacher_, NoiseUse::kPreview, spec_.seed, spec_.guidance_scale, spec_.unconditional));
    TrainingHooks hooks;
    if (blocks) hooks.prepare = [&](int64_t train_step) { return blocks->Prepare(train_step, *objective); };
    if (held_out_noises() > 0) {
      hooks.held_out_losses = [&](const VelocityModel& ema) {
        return LossPerSegment(ema, held_out, spec_.steps, spec_.guidance_scale, kHeldOutBatch, context_);
      };
    }
    if (ArePictures(teacher_->SampleShape())) {
      hooks.preview = [&](const VelocityModel& ema, int64_t train_step) {
        return DrawPreview(context_, ema, preview_noises, native_.schedule.time_grid, spec_.training.preview_samples,
                           train_step);
      };
    }
    return RunTraining(context_, JobStage::kStraightening, spec_.training, trainer, *objective,
                       noises.evaluations_per_step(), hooks);
  }

  // Coefficients for the student on its own times. It was trained from states of the teacher's trajectory; a sampler is
  // somewhere else after its first step, and what the steps before have left over is corrected by those that follow. So
  // what each step is fitted to is the teacher's state, on noises that training has not seen.
  absl::Status FitCoefficients(const VelocityModel& student) {
    const int64_t noises = held_out_.size() / spec_.steps;
    at::Tensor fine_states, class_labels;
    BOSS_RETURN_IF_ERROR(GuardTorch("multistep fit", [&]() -> absl::Status {
      // The pairs of a noise follow each other.
      const auto by_noise = [&](const at::Tensor& tensor) { return tensor.unflatten(0, {noises, spec_.steps}); };
      const at::Tensor ends = by_noise(held_out_.x_end).select(1, spec_.steps - 1).unsqueeze(0);
      fine_states = at::cat({by_noise(held_out_.x_start).transpose(0, 1), ends});
      if (held_out_.class_labels.defined()) class_labels = by_noise(held_out_.class_labels).select(1, 0).contiguous();
      return absl::OkStatus();
    }));
    held_out_ = {};
    const std::vector<std::vector<int>> candidates(1, native_.schedule.knots);
    const auto states = [&](absl::Span<const int>) -> absl::StatusOr<at::Tensor> { return fine_states; };
    const Condition condition{.class_labels = class_labels, .guidance_scale = spec_.guidance_scale};
    absl::StatusOr<OptimizedMultistep> best =
        OptimizeMultistep(student, FineGridOf(spec_), candidates, states, condition, {.batch_size = kHeldOutBatch},
                          context_);
    if (absl::IsInternal(best.status())) {
      return context_.ReportMessage(Severity::kWarning, absl::StrCat("the student keeps Euler's steps, coefficients "
                                                                     "could not be fitted: ",
                                                                     best.status().message()));
    }
    BOSS_RETURN_IF_ERROR(best.status());
    BOSS_RETURN_IF_ERROR(context_.Advance(0, best->evaluations * (spec_.guidance_scale != 1.0 ? 2 : 1)));
    Schedule& fitted = best->schedule;
    if (fitted.coefficients == AdamsBashforth(native_.schedule.time_grid, 1))
      return context_.ReportMessage(Severity::kInfo, "no fitted coefficients are better than Euler's steps");
    // What cannot be published does not reach the journal either.
    BOSS_RETURN_IF_ERROR(CheckFitted(fitted));
    fitted.total_cost = native_.schedule.total_cost;
    native_.schedule = std::move(fitted);
    native_.num_samples = noises;
    native_.num_held_out = noises - FittedNoises(noises, {});
    return context_.ReportSchedule(set_name_, teacher_key_, native_.schedule);
  }

  absl::StatusOr<std::vector<EvaluationRow>> Evaluate(const VelocityModel& student) {
    const std::string teacher = teacher_key_.ToString();
    std::vector<Sampler> samplers;
    for (int steps : evaluation_.steps) {
      if (evaluation_.schedules.uniform)
        samplers.push_back({*teacher_, teacher, "uniform", "uniform", "", TimeGrid::Uniform(steps)});
      if (evaluation_.schedules.bellman && schedules_ != nullptr && steps <= schedules_->set.k_max) {
        samplers.push_back({*teacher_, teacher, "bellman", "bellman", schedules_->Name(),
                            schedules_->set.schedules[steps - 1].time_grid});
      }
    }
    BOSS_ASSIGN_OR_RETURN(const std::vector<Sampler> chosen,
                          ChosenSamplers(context_, evaluation_, *teacher_, teacher_key_));
    for (const Sampler& sampler : chosen) samplers.push_back(sampler);
    BOSS_ASSIGN_OR_RETURN(const std::vector<Sampler> others,
                          OtherSolversSamplers(context_, evaluation_, *teacher_, teacher_key_));
    for (const Sampler& sampler : others) samplers.push_back(sampler);
    for (const Sampler& sampler : NativeSamplers(student, "", native_)) samplers.push_back(sampler);
    // One unit each for the baseline's samples and its row.
    BOSS_RETURN_IF_ERROR(context_.EnterStage(JobStage::kEvaluation, static_cast<int64_t>(samplers.size()) + 2));
    BOSS_ASSIGN_OR_RETURN(SamplerEvaluation evaluation,
                          SamplerEvaluation::Create(context_, evaluation_, *teacher_, teacher_key_, teacher_key_));
    std::vector<EvaluationRow> rows;
    BOSS_ASSIGN_OR_RETURN(rows.emplace_back(), evaluation.JudgeFine(*teacher_, teacher));
    for (const Sampler& sampler : samplers) {
      BOSS_ASSIGN_OR_RETURN(rows.emplace_back(), evaluation.Judge(sampler));
    }
    return rows;
  }

  absl::Status Publish(const VelocityModel& student, std::vector<EvaluationRow> rows) {
    BOSS_RETURN_IF_ERROR(context_.EnterStage(JobStage::kPublishing, 1));
    BOSS_ASSIGN_OR_RETURN(const VersionInfo teacher, context_.store().GetVersion(teacher_key_));
    Manifest manifest;
    manifest.architecture_json = teacher.manifest.architecture_json;
    manifest.label_names = teacher.manifest.label_names;
    manifest.default_steps = spec_.steps;
    manifest.default_guidance_scale = spec_.guidance_scale;
    manifest.parent = teacher_key_.ToString();
    if (spec_.lora) manifest.adapter = AdapterInfo{teacher_key_, spec_.lora->rank, spec_.lora->alpha};
    manifest.schedules = {native_};
    manifest.evaluation = std::move(rows);
    manifest.description = spec_.description;
    return PublishResult(context_, spec_.output_model, spec_.output_alias, std::move(manifest), student);
  }

  JobContext& context_;
  const DistillSpec& spec_;
  OptimizeStepsizesSpec search_;  // stage 1 in its own terms
  EvaluateSpec evaluation_;       // only with spec_.evaluation
  VersionKey teacher_key_;
  std::shared_ptr<const VelocityModel> teacher_;
  std::shared_ptr<const StoredScheduleSet> schedules_;  // null: reflow without any, or a run that goes on without
  std::optional<Schedule> target_;  // with spec_.schedule_set, unless this run goes on with an earlier one's choice
  std::string set_name_;            // that native_ is of; empty: none
  NativeSchedule native_;
  SegmentPairs held_out_;  // with spec_.fit_multistep, from training until the fit
};

}  // namespace

absl::Status RunDistillJob(JobContext& context, const DistillSpec& spec) { return Distillation(context, spec).Run(); }

}  // namespace boss::server
