// Multistep schedules of a version, from the trajectories of a search for stepsizes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/flow/schedule.h"
#include "core/flow/trajectory.h"
#include "core/io/safetensors.h"
#include "core/stepsize/trajectory_gram.h"
#include "server/jobs/job_context.h"
#include "server/jobs/noise_source.h"

namespace boss::server {

// Weight of the fits in a plan, in velocity evaluations; 0 if the spec wants none.
double MultistepWeight(const OptimizeStepsizesSpec& spec);
// How many trajectories are kept: at most 256, and only as many as `max_data_bytes` of disk hold; when a schedule is
// fitted, their states at its times take 1 GiB at most.
int64_t KeptTrajectories(const OptimizeStepsizesSpec& spec, const std::vector<int64_t>& sample_shape,
                         int64_t max_data_bytes);
// Units of the fits in the stage kSchedule.
int64_t MultistepUnits(const OptimizeStepsizesSpec& spec);

// What a search keeps beside sums of products, and the fits that follow it. The states of up to 256 trajectories lie in
// the job's folder, in a file a batch; so does the schedule of every K that is done. A run that goes on repeats nothing
// of that, and has the same result. Keeps references to what it is made of; used on the runner's thread.
class MultistepSearch {
 public:
  MultistepSearch(JobContext& context, const OptimizeStepsizesSpec& spec, const std::vector<int64_t>& sample_shape);

  // Whether multistep schedules are asked for, and two trajectories at least can be kept.
  bool enabled() const { return num_kept_ >= 2; }

  // Gives up, and removes what is kept.
  void Disable();

  // Takes the batch of trajectories that begins with noise `first`, and stores its states.
  absl::Status Add(const Trajectory& trajectory, int64_t first);
  // Goes on behind an earlier run, which had taken `num_samples` trajectories in batches of `batch_size`. \error
  // DATA_LOSS if not everything is there: the search begins anew then.
  absl::Status Restore(int64_t num_samples, int64_t batch_size);

  // Fits the schedules of K = 1 .. max_multistep_steps, beside those of `euler`, which come from the same trajectories,
  // as does `gram`, and attaches the set to the version. Within the stage kSchedule. \pre enabled().
  absl::Status Fit(const VelocityModel& model, const VersionKey& key, const NoiseSource& noises,
                   const TrajectoryGram& gram, const ScheduleSet& euler);

 private:
  std::string StatesPath(int64_t first) const;
  std::string SchedulesPath() const;
  // Of the batch that begins with noise `first`: [k_max + 1, kept of it, ...].
  absl::StatusOr<at::Tensor> ReadStates(int64_t first, int64_t count) const;
  absl::StatusOr<at::Tensor> StatesAt(absl::Span<const int> points) const;

  JobContext& context_;
  const OptimizeStepsizesSpec& spec_;
  int64_t num_kept_ = 0;  // the first of the trajectories
  std::vector<std::pair<int64_t, int64_t>> batches_;  // kept: the first noise and how many
};

}  // namespace boss::server
