// The segment pairs of a distill job, on disk, so that a job that goes on need not draw them again.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/finetune/objectives.h"
#include "server/jobs/job_context.h"
#include "server/jobs/noise_source.h"

namespace boss::server {

// Enters kPairs and draws the pairs of `num_noises` noises, cut at `knots`, in pieces pairs-<first noise>.safetensors
// in the job's folder; pieces that are there already are read. The pairs of one noise lie next to each other.
absl::StatusOr<SegmentPairs> DrawPairs(JobContext& context, const VelocityModel& teacher, const NoiseSource& noises,
                                       int k_max, const std::vector<int>& knots, int64_t num_noises,
                                       int64_t batch_size);

}  // namespace boss::server
