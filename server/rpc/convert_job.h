// server/jobs/job.h -> boss/v1/jobs.proto: what clients see of a job.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boss/v1/jobs.pb.h"
#include "server/jobs/job.h"
#include "server/jobs/job_manager.h"

namespace boss::server {

v1::Job ToProto(const Job& job);
v1::JobEvent ToProto(const JobEvent& event);

// "jobs/ID" -> "ID". \error INVALID_ARGUMENT naming `name`.
absl::StatusOr<std::string> JobIdFromName(const std::string& name);

// \error INVALID_ARGUMENT with the field.
absl::StatusOr<JobPageRequest> JobPageRequestFromProto(const v1::ListJobsRequest& proto);

}  // namespace boss::server
