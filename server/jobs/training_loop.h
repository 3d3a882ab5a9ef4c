// Train steps with checkpoints, metrics and previews, common to all jobs that train.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/finetune/trainer.h"
#include "server/jobs/job_context.h"

namespace boss::server {

struct TrainingHooks {
  // Called before each train step (from 0), outside of units of device work; must make the objective what that step
  // needs, whatever ran before. May be empty.
  std::function<absl::Status(int64_t train_step)> prepare;
  // Held-out losses of the EMA weights by segment, at every checkpoint. May be empty.
  std::function<absl::StatusOr<std::vector<double>>(const VelocityModel& ema)> held_out_losses;
  // A preview of the EMA weights, every preview_interval train steps. May be empty.
  std::function<absl::StatusOr<JobPreview>(const VelocityModel& ema, int64_t train_step)> preview;
};

// Weight of training in a plan: one train step costs about three evaluations of its batch.
double TrainingWeight(const TrainingSpec& spec, int64_t evaluations_per_step);

// Enters `stage` and trains until spec.train_steps. Training states are state-<train step>.safetensors in the job's
// folder, every checkpoint_interval train steps, every JobManagerOptions::checkpoint_period, at the end, and when the
// job stops to go on later; the last two are kept. Saving changes nothing in the training. It goes on from the newest
// that can be read. Returns the EMA model. \error what Trainer::Step, the journal or the file system report;
// FAILED_PRECONDITION for a loss that is not finite (the weights before it are saved).
absl::StatusOr<std::unique_ptr<VelocityModel>> RunTraining(JobContext& context, JobStage stage,
                                                           const TrainingSpec& spec, Trainer& trainer,
                                                           TrainingObjective& objective, int64_t evaluations_per_step,
                                                           const TrainingHooks& hooks);

}  // namespace boss::server
