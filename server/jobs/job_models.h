// How jobs read models and publish them.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"
#include "server/jobs/job_context.h"
#include "server/store/model_store.h"

namespace boss::server {

// The i-th of the job's input versions.
absl::StatusOr<VersionKey> InputVersion(const JobContext& context, size_t i);

// A version's model on the jobs' device.
absl::StatusOr<std::shared_ptr<const VelocityModel>> LoadModelForJob(JobContext& context, const VersionKey& key);

// A copy to train, on the same device. \error FAILED_PRECONDITION if the model has no parameters to train.
absl::StatusOr<std::unique_ptr<VelocityModel>> CopyForTraining(JobContext& context, const VelocityModel& model);

// Publishes `model`'s weights (of an attached adapter, if manifest.adapter is set) unless an earlier run of this job
// did, points `alias` at the version unless it is empty, and reports the output. The manifest's job_id is filled in.
absl::Status PublishResult(JobContext& context, const std::string& name, const std::string& alias, Manifest manifest,
                           const VelocityModel& model);

}  // namespace boss::server
