#include "server/jobs/training_loop.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/safetensors.h"

namespace boss::server {
namespace {

constexpr char kPrefix[] = "state-", kSuffix[] = ".safetensors";
constexpr size_t kKeptStates = 2;

// Train steps of the saved states in the job's folder, ascending.
absl::StatusOr<std::vector<int64_t>> SavedSteps(const JobContext& context) {
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> names, context.files().ListFolder(context.folder()));
  std::vector<int64_t> steps;
  for (absl::string_view file : names) {
    int64_t step = 0;
    if (absl::ConsumePrefix(&file, kPrefix) && absl::ConsumeSuffix(&file, kSuffix) && absl::SimpleAtoi(file, &step))
      steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

// One run of the loop.
class TrainingRun {
 public:
  TrainingRun(JobContext& context, const TrainingSpec& spec, Trainer& trainer, TrainingObjective& objective,
              int64_t evaluations_per_step, const TrainingHooks& hooks)
      : context_(context),
        spec_(spec),
        trainer_(trainer),
        objective_(objective),
        samples_per_step_(objective.batch_size() * trainer.options().accumulation_steps),
        evaluations_(samples_per_step_ * evaluations_per_step),
        hooks_(hooks),
        train_steps_(context.options().metrics.train_steps.With({JobKindName(context.job().kind())})) {}

  absl::Status Restore();
  absl::Status Save();
  absl::Status TrainToEnd();
  absl::StatusOr<std::unique_ptr<VelocityModel>> EmaModel();

 private:
  std::string StatePath(int64_t step) const { return absl::StrCat(context_.folder(), "/", kPrefix, step, kSuffix); }
  absl::Status TrainOneStep();
  // What is due after a train step.
  absl::Status AfterStep();
  absl::Status ReportMetrics(std::optional<std::vector<double>> held_out_losses);

  JobContext& context_;
  const TrainingSpec& spec_;
  Trainer& trainer_;
  TrainingObjective& objective_;
  const int64_t samples_per_step_;
  const int64_t evaluations_;
  const TrainingHooks& hooks_;
  const Counter train_steps_;

  // Sums since the metrics before.
  TrainStepMetrics sums_;
  int64_t summed_steps_ = 0;
  absl::Time metrics_start_;
  absl::Time last_save_;
  absl::Time last_preview_ = absl::InfinitePast(), last_measure_ = absl::InfinitePast();
};

absl::Status TrainingRun::Restore() {
  BOSS_ASSIGN_OR_RETURN(std::vector<int64_t> steps, SavedSteps(context_));
  for (; !steps.empty(); steps.pop_back()) {
    const absl::StatusOr<Safetensors> state = ReadSafetensors(StatePath(steps.back()), context_.files());
    absl::Status status = state.status();
    if (state.ok()) status = context_.Run([&] { return trainer_.RestoreState(state->tensors); });
    if (status.ok())
      return context_.ReportMessage(Severity::kInfo,
                                    absl::StrCat("training goes on from train step ", trainer_.step()));
    if (!absl::IsDataLoss(status) && !absl::IsInvalidArgument(status)) return status;
    BOSS_RETURN_IF_ERROR(context_.ReportMessage(Severity::kWarning,
                                                absl::StrCat("a training state cannot be used: ", status.message())));
  }
  return absl::OkStatus();
}

absl::Status TrainingRun::Save() {
  Safetensors state;
  BOSS_RETURN_IF_ERROR(context_.RunAlways([&] {
    return GuardTorch("saving training state", [&]() -> absl::Status {
      for (auto& [name, tensor] : trainer_.SaveState())
        state.tensors.emplace_back(name, tensor.to(at::kCPU).contiguous());
      return absl::OkStatus();
    });
  }));
  BOSS_RETURN_IF_ERROR(WriteSafetensors(StatePath(trainer_.step()), state, context_.files()));
  context_.NoteSaved();
  BOSS_ASSIGN_OR_RETURN(const std::vector<int64_t> steps, SavedSteps(context_));
  for (size_t i = 0; i + kKeptStates < steps.size(); ++i)
    BOSS_RETURN_IF_ERROR(context_.files().RemoveAll(StatePath(steps[i])));
  last_save_ = context_.clock().Now();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<VelocityModel>> TrainingRun::EmaModel() {
  std::unique_ptr<VelocityModel> ema;
  BOSS_RETURN_IF_ERROR(context_.RunAlways([&] {
    return GuardTorch("averaged weights", [&]() -> absl::Status {
      ema = trainer_.EmaModel();
      return absl::OkStatus();
    });
  }));
  return ema;
}

absl::Status TrainingRun::TrainOneStep() {
  return context_.Run([&]() -> absl::Status {
    const absl::StatusOr<TrainStepMetrics> stepped = trainer_.Step(objective_);
    if (absl::IsResourceExhausted(stepped.status())) {
      return absl::ResourceExhaustedError(
          absl::StrCat("training.batch_size: got ", spec_.batch_size,
                       ", expected a batch that fits into memory (accumulation_steps averages several into one train "
                       "step): ",
                       stepped.status().message()));
    }
    BOSS_ASSIGN_OR_RETURN(const TrainStepMetrics metrics, stepped);
    sums_.loss += metrics.loss;
    sums_.gradient_norm += metrics.gradient_norm;
    sums_.learning_rate = metrics.learning_rate;
    ++summed_steps_;
    train_steps_.Add(1);
    return absl::OkStatus();
  });
}

absl::Status TrainingRun::ReportMetrics(std::optional<std::vector<double>> held_out_losses) {
  JobMetrics metrics;
  metrics.train_step = trainer_.step();
  metrics.loss = sums_.loss / static_cast<double>(summed_steps_);
  metrics.gradient_norm = sums_.gradient_norm / static_cast<double>(summed_steps_);
  metrics.learning_rate = sums_.learning_rate;
  if (held_out_losses) {
    metrics.segment_held_out_loss = *std::move(held_out_losses);
    const std::vector<double>& losses = metrics.segment_held_out_loss;
    metrics.held_out_loss = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  }
  const absl::Time now = context_.clock().Now();
  const double seconds = absl::ToDoubleSeconds(now - metrics_start_);
  if (seconds > 0) metrics.samples_per_second = static_cast<double>(summed_steps_ * samples_per_step_) / seconds;
  sums_ = {};
  summed_steps_ = 0;
  metrics_start_ = now;
  return context_.ReportMetrics(metrics);
}

absl::Status TrainingRun::AfterStep() {
  const int64_t step = trainer_.step();
  const bool last = step >= spec_.train_steps, checkpoint = last || step % spec_.checkpoint_interval == 0;
  // What is asked for more often than events may come is left out, but for what the last step leaves.
  const bool preview = hooks_.preview != nullptr && spec_.preview_interval > 0 && step % spec_.preview_interval == 0 &&
                       (last || context_.IsDue(last_preview_));
  const bool measure = checkpoint && (last || context_.IsDue(last_measure_));
  const bool held_out = hooks_.held_out_losses != nullptr && measure;
  const bool save = checkpoint || context_.clock().Now() - last_save_ >= context_.options().checkpoint_period;
  if (save) BOSS_RETURN_IF_ERROR(Save());
  std::optional<std::vector<double>> held_out_losses;
  if (held_out || preview) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> ema, EmaModel());
    if (held_out) {
      BOSS_ASSIGN_OR_RETURN(held_out_losses, hooks_.held_out_losses(*ema));
    }
    if (preview) {
      BOSS_ASSIGN_OR_RETURN(JobPreview picture, hooks_.preview(*ema, step));
      BOSS_RETURN_IF_ERROR(context_.ReportPreview(std::move(picture)));
      last_preview_ = context_.clock().Now();
    }
  }
  // Sums go on where metrics would come too often.
  if (measure || (step % spec_.metrics_interval == 0 && context_.MetricsAreDue()))
    BOSS_RETURN_IF_ERROR(ReportMetrics(std::move(held_out_losses)));
  if (measure) last_measure_ = context_.clock().Now();
  BOSS_RETURN_IF_ERROR(context_.Advance(1, evaluations_));
  return save ? context_.ReportSaved() : absl::OkStatus();
}

absl::Status TrainingRun::TrainToEnd() {
  metrics_start_ = last_save_ = context_.clock().Now();
  while (trainer_.step() < spec_.train_steps) {
    if (hooks_.prepare != nullptr) BOSS_RETURN_IF_ERROR(hooks_.prepare(trainer_.step()));
    BOSS_RETURN_IF_ERROR(TrainOneStep());
    BOSS_RETURN_IF_ERROR(AfterStep());
  }
  return absl::OkStatus();
}

}  // namespace

double TrainingWeight(const TrainingSpec& spec, int64_t evaluations_per_step) {
  return 3.0 * static_cast<double>(spec.train_steps * spec.batch_size * spec.trainer.accumulation_steps *
                                   evaluations_per_step);
}

absl::StatusOr<std::unique_ptr<VelocityModel>> RunTraining(JobContext& context, JobStage stage,
                                                           const TrainingSpec& spec, Trainer& trainer,
                                                           TrainingObjective& objective, int64_t evaluations_per_step,
                                                           const TrainingHooks& hooks) {
  TrainingRun run(context, spec, trainer, objective, evaluations_per_step, hooks);
  BOSS_RETURN_IF_ERROR(run.Restore());
  BOSS_RETURN_IF_ERROR(context.EnterStage(stage, spec.train_steps, trainer.step()));
  const absl::Status status = run.TrainToEnd();
  // A loss that is not finite leaves the last good weights in the trainer.
  if (context.keeps_state() || absl::IsFailedPrecondition(status)) BOSS_RETURN_IF_ERROR(run.Save());
  BOSS_RETURN_IF_ERROR(status);
  return run.EmaModel();
}

}  // namespace boss::server
