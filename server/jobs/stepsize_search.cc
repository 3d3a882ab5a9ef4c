#include "server/jobs/stepsize_search.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/safetensors.h"
#include "core/solver/record_trajectory.h"
#include "core/stepsize/cost_matrix.h"
#include "core/stepsize/optimize_multistep.h"
#include "server/jobs/multistep_search.h"
#include "server/jobs/noise_source.h"

namespace boss::server {
namespace {

constexpr char kStateFile[] = "search.safetensors";
// In the file's metadata: `multistep` has stored the states of these trajectories.
constexpr char kHasStates[] = "has_states";

// Samples that `gram` and `multistep` have from an earlier run of the job.
absl::StatusOr<int64_t> RestoreSearch(JobContext& context, const std::string& path, int64_t batch_size,
                                      TrajectoryGram& gram, MultistepSearch& multistep) {
  const absl::StatusOr<Safetensors> state = ReadSafetensors(path, context.files());
  if (absl::IsNotFound(state.status())) return 0;
  absl::Status status = state.status();
  TrajectoryGram restored = gram;
  if (status.ok()) status = restored.RestoreState(state->tensors);
  if (status.ok() && multistep.enabled()) {
    if (state->metadata.contains(kHasStates)) {
      status = multistep.Restore(restored.num_samples(), batch_size);
    } else {
      multistep.Disable();  // the run before had no room for them
    }
  }
  if (status.ok()) {
    gram = std::move(restored);
    return gram.num_samples();
  }
  if (!absl::IsDataLoss(status) && !absl::IsInvalidArgument(status)) return status;
  BOSS_RETURN_IF_ERROR(context.ReportMessage(
      Severity::kWarning, absl::StrCat("the saved trajectories cannot be used: ", status.message())));
  return 0;
}

// Euler's set does not need what `multistep` finds no room for.
absl::Status AddOrDisable(JobContext& context, const Trajectory& trajectory, int64_t first,
                          MultistepSearch& multistep) {
  const absl::Status added = multistep.Add(trajectory, first);
  if (!absl::IsResourceExhausted(added)) return added;
  multistep.Disable();
  return context.ReportMessage(Severity::kWarning,
                               absl::StrCat("there are no multistep schedules, their trajectories find no room: ",
                                            added.message()));
}

}  // namespace

double SearchWeight(const OptimizeStepsizesSpec& spec) { return static_cast<double>(spec.num_samples) * spec.k_max; }

double ScheduleWeight(const OptimizeStepsizesSpec& spec) { return MultistepWeight(spec); }

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> SearchSchedules(JobContext& context,
                                                                         const VelocityModel& model,
                                                                         const VersionKey& key,
                                                                         const OptimizeStepsizesSpec& spec) {
  BOSS_ASSIGN_OR_RETURN(const NoiseSource noises, NoiseSource::Create(model, NoiseUse::kSearch, spec.seed,
                                                                      spec.guidance_scale, spec.unconditional));
  const int64_t batch_size = TrajectoryBatchSize(spec.batch_size, model.SampleShape(), spec.k_max);
  const int64_t batches = (spec.num_samples + batch_size - 1) / batch_size;
  const std::string state_path = absl::StrCat(context.folder(), "/", kStateFile);
  const TimeGrid fine_grid = FineGridOf(spec);
  TrajectoryGram gram(spec.k_max, spec.max_multistep_steps > 0 && spec.k_max <= kMaxPairIntervals);
  MultistepSearch multistep(context, spec, model.SampleShape());
  if (spec.max_multistep_steps > 0 && !multistep.enabled()) {
    BOSS_RETURN_IF_ERROR(context.ReportMessage(
        Severity::kWarning,
        "the limits on a job's data and memory do not hold two trajectories: there are no multistep schedules"));
  }
  BOSS_ASSIGN_OR_RETURN(const int64_t restored, RestoreSearch(context, state_path, batch_size, gram, multistep));
  const int64_t restored_batches = (restored + batch_size - 1) / batch_size;
  BOSS_RETURN_IF_ERROR(
      context.EnterStage(JobStage::kTrajectories, batches * spec.k_max, restored_batches * spec.k_max));
  for (int64_t first = restored; first < spec.num_samples; first += batch_size) {
    const int64_t count = std::min(batch_size, spec.num_samples - first);
    const NoiseBatch batch = noises.Draw(first, count);
    CountingExecutor counting(context, 1, count * noises.evaluations_per_step());
    BOSS_ASSIGN_OR_RETURN(const Trajectory trajectory,
                          RecordTrajectory(model, batch.noise, batch.condition, fine_grid, counting));
    BOSS_RETURN_IF_ERROR(context.Run([&] { return gram.Add(trajectory); }));
    if (multistep.enabled()) BOSS_RETURN_IF_ERROR(AddOrDisable(context, trajectory, first, multistep));
    Safetensors state{.tensors = gram.SaveState()};
    if (multistep.enabled()) state.metadata[kHasStates] = "true";
    BOSS_RETURN_IF_ERROR(WriteSafetensors(state_path, state, context.files()));
    BOSS_RETURN_IF_ERROR(context.ReportSaved());
  }
  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kCostMatrix, 1));
  BOSS_ASSIGN_OR_RETURN(std::vector<double> cost_matrix, CostMatrix(gram));
  BOSS_RETURN_IF_ERROR(context.Advance(1, 0));

  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kSchedule, 1 + (multistep.enabled() ? MultistepUnits(spec) : 0)));
  StoredScheduleSet stored;
  BOSS_ASSIGN_OR_RETURN(stored.set, OptimizeSchedules(std::move(cost_matrix), fine_grid,
                                                      static_cast<int>(spec.num_samples), spec.guidance_scale));
  stored.client_name = spec.schedule_set;
  stored.seed = spec.seed;
  stored.job_id = context.job().id;
  BOSS_RETURN_IF_ERROR(context.store().AddScheduleSet(key, stored));
  BOSS_RETURN_IF_ERROR(context.Advance(1, 0));
  if (multistep.enabled()) BOSS_RETURN_IF_ERROR(multistep.Fit(model, key, noises, gram, stored.set));
  return context.store().FindScheduleSet(key, stored.Name());
}

}  // namespace boss::server
