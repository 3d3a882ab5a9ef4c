// boss/v1/jobs.proto <-> server/jobs/job_spec.h: what is asked of a job.
#pragma once

#include "absl/status/statusor.h"
#include "boss/v1/jobs.pb.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/job_spec.h"

namespace boss::server {

// Fill in the defaults that the protocol states. Ranges are checked by ValidateSpec. \error INVALID_ARGUMENT or
// UNIMPLEMENTED with the field.
absl::StatusOr<JobSpec> JobSpecFromProto(const v1::TrainSpec& proto);
absl::StatusOr<JobSpec> JobSpecFromProto(const v1::OptimizeStepsizesSpec& proto);
absl::StatusOr<JobSpec> JobSpecFromProto(const v1::DistillSpec& proto);
absl::StatusOr<JobSpec> JobSpecFromProto(const v1::EvaluateSpec& proto);

absl::StatusOr<SubmitOptions> SubmitOptionsFromProto(const v1::JobOptions& proto, const std::string& request_id,
                                                     bool validate_only);

// Sets the member of Job.spec that belongs to the kind.
void JobSpecToProto(const JobSpec& spec, v1::Job& proto);

}  // namespace boss::server
