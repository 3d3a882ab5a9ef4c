// The segment pairs of a distill job.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/finetune/objectives.h"
#include "server/jobs/job_context.h"
#include "server/jobs/noise_source.h"

namespace boss::server {

// Where pairs come from: each noise's fine Euler trajectory of the teacher, cut at the knots.
struct PairSource {
  const VelocityModel& teacher;
  const NoiseSource& noises;
  TimeGrid fine_grid;
  std::vector<int> knots;
  int64_t batch_size = 0;  // trajectories at a time

  int64_t pairs_per_noise() const { return static_cast<int64_t>(knots.size()) - 1; }
};

// The pairs of noises first .. first + count - 1, those of one noise next to each other, on any thread that `executor`
// can be used on.
absl::StatusOr<SegmentPairs> DrawPairs(const PairSource& source, int64_t first, int64_t count, StepExecutor& executor);

// The same, counted in the job's progress: each noise as one unit.
absl::StatusOr<SegmentPairs> DrawCountedPairs(JobContext& context, const PairSource& source, int64_t first,
                                              int64_t count);

// Enters kPairs and draws the pairs of `num_noises` noises in pieces pairs-<first noise>.safetensors in the job's
// folder, so that a run that goes on need not draw them again; pieces that are there already are read.
absl::StatusOr<SegmentPairs> StoredPairs(JobContext& context, const PairSource& source, int64_t num_noises);

// \error RESOURCE_EXHAUSTED if storing so many pairs takes more than JobManagerOptions::max_data_bytes.
absl::Status CheckPairBytes(const JobContext& context, const std::vector<int64_t>& sample_shape, int64_t num_pairs);
// \error RESOURCE_EXHAUSTED if the host's memory cannot hold so many pairs.
absl::Status CheckPairMemory(const std::vector<int64_t>& sample_shape, int64_t num_pairs);

}  // namespace boss::server
