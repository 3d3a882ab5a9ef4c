// What is checked and looked up before a job is accepted.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/jobs/job.h"
#include "server/jobs/job_manager.h"
#include "server/store/model_store.h"

namespace boss::server {

// `max_retention`: how long the server keeps jobs. \error INVALID_ARGUMENT naming the field.
absl::Status ValidateSubmitOptions(const SubmitOptions& options, absl::Duration max_retention, absl::Time now);

// Of everything that makes two requests the same.
std::string RequestHash(const JobSpec& spec, const SubmitOptions& options);

// Fills job.input_versions from its spec, and what the spec leaves to the server: a distill job's output model, an
// evaluation's baseline. Checks data sets' paths, feature networks and a new model's architecture. \error NOT_FOUND,
// INVALID_ARGUMENT, PERMISSION_DENIED; with the field.
absl::Status ResolveInputs(const ModelStore& store, const JobManagerOptions& options, Job& job);

// The model that the job publishes a version of; empty if it publishes none.
std::string OutputModel(const JobSpec& spec);

}  // namespace boss::server
