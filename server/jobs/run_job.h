// The work of each kind of job, on the runner's thread.
#pragma once

#include "absl/status/status.h"
#include "server/jobs/job_context.h"
#include "server/jobs/job_spec.h"

namespace boss::server {

// Each returns when the job's work is done and its result is published, or with the error that ended it; that of
// context.CheckStop() if it shall stop. A run after an interruption goes on from what the job's folder holds.
absl::Status RunTrainJob(JobContext& context, const TrainSpec& spec);
absl::Status RunOptimizeStepsizesJob(JobContext& context, const OptimizeStepsizesSpec& spec);
absl::Status RunDistillJob(JobContext& context, const DistillSpec& spec);
absl::Status RunEvaluateJob(JobContext& context, const EvaluateSpec& spec);

}  // namespace boss::server
