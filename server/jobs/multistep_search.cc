#include "server/jobs/multistep_search.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/atomic_file.h"
#include "core/stepsize/optimize_multistep.h"

namespace boss::server {
namespace {

constexpr int64_t kMaxKept = 256;  // as jobs.proto states
constexpr int64_t kMaxStatesBytes = int64_t{1} << 30;  // in memory, of one schedule's times
constexpr int64_t kDefaultBatch = 64;
constexpr char kStates[] = "states";
// Of a trajectory and a K, for the plan: on two sets of knots a fit, and two plain runs of the held-out quarter. If a
// plain one wins, it takes 0.75 more.
constexpr double kEvaluationsPerStep = 3;

}  // namespace

int64_t MultistepUnits(const OptimizeStepsizesSpec& spec) {
  return int64_t{spec.max_multistep_steps} * (spec.max_multistep_steps + 1) / 2;
}

double MultistepWeight(const OptimizeStepsizesSpec& spec) {
  const auto kept = static_cast<double>(std::min(spec.num_samples, kMaxKept));
  return kEvaluationsPerStep * kept * static_cast<double>(MultistepUnits(spec)) +
         static_cast<double>(spec.multistep_refinement) * spec.max_multistep_steps;
}

int64_t KeptTrajectories(const OptimizeStepsizesSpec& spec, const std::vector<int64_t>& sample_shape,
                         int64_t max_data_bytes) {
  if (spec.max_multistep_steps == 0) return 0;
  int64_t bytes = static_cast<int64_t>(sizeof(float));  // of a state
  for (const int64_t size : sample_shape) bytes *= size;
  return std::min({spec.num_samples, kMaxKept, max_data_bytes / (bytes * (spec.k_max + 1)),
                   kMaxStatesBytes / (bytes * (spec.max_multistep_steps + 1))});
}

MultistepSearch::MultistepSearch(JobContext& context, const OptimizeStepsizesSpec& spec,
                                 const std::vector<int64_t>& sample_shape)
    : context_(context),
      spec_(spec),
      num_kept_(KeptTrajectories(spec, sample_shape, context.options().max_data_bytes)) {}

void MultistepSearch::Disable() {
  for (const auto& [first, count] : batches_) context_.files().RemoveAll(StatesPath(first)).IgnoreError();
  batches_.clear();
  num_kept_ = 0;
}

std::string MultistepSearch::StatesPath(int64_t first) const {
  return absl::StrCat(context_.folder(), "/states-", first, ".safetensors");
}

std::string MultistepSearch::SchedulesPath() const { return absl::StrCat(context_.folder(), "/multistep.json"); }

absl::Status MultistepSearch::Add(const Trajectory& trajectory, int64_t first) {
  const int64_t count = std::min(trajectory.states.size(1), num_kept_ - first);
  if (count <= 0) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const at::Tensor states, GuardTorch("fine states", [&] {
                          return trajectory.states.slice(1, 0, count).to(at::kFloat).contiguous();
                        }));
  BOSS_RETURN_IF_ERROR(WriteSafetensors(StatesPath(first), {{{kStates, states}}, {}}, context_.files()));
  batches_.emplace_back(first, count);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> MultistepSearch::ReadStates(int64_t first, int64_t count) const {
  const std::string path = StatesPath(first);
  BOSS_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path, context_.files()));
  const at::Tensor states = file.Find(kStates);
  if (!states.defined() || states.dim() < 2 || states.size(0) != spec_.k_max + 1 || states.size(1) != count)
    return absl::DataLossError(absl::StrCat(path, ": these are not the states of ", count, " trajectories"));
  return states;
}

absl::Status MultistepSearch::Restore(int64_t num_samples, int64_t batch_size) {
  std::vector<std::pair<int64_t, int64_t>> batches;
  for (int64_t first = 0; first < std::min(num_samples, num_kept_); first += batch_size) {
    const int64_t count = std::min(std::min(batch_size, num_samples - first), num_kept_ - first);
    const absl::Status read = ReadStates(first, count).status();
    if (absl::IsNotFound(read)) return absl::DataLossError(read.message());
    BOSS_RETURN_IF_ERROR(read);
    batches.emplace_back(first, count);
  }
  batches_ = std::move(batches);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> MultistepSearch::StatesAt(absl::Span<const int> points) const {
  at::Tensor chosen;
  for (const auto& [first, count] : batches_) {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor states, ReadStates(first, count));
    BOSS_RETURN_IF_ERROR(GuardTorch("fine states", [&, begin = first, end = first + count]() -> absl::Status {
      if (!chosen.defined()) {
        std::vector<int64_t> shape = states.sizes().vec();
        shape[0] = static_cast<int64_t>(points.size());
        shape[1] = num_kept_;
        chosen = at::empty(shape, states.options());
      }
      for (size_t i = 0; i < points.size(); ++i)
        chosen[static_cast<int64_t>(i)].slice(0, begin, end).copy_(states[points[i]]);
      return absl::OkStatus();
    }));
  }
  return chosen;
}

absl::Status MultistepSearch::Fit(const VelocityModel& model, const VersionKey& key, const NoiseSource& noises,
                                  const TrajectoryGram& gram, const ScheduleSet& euler) {
  StoredScheduleSet stored;
  stored.client_name = MultistepSetName(spec_);
  stored.seed = spec_.seed;
  stored.job_id = context_.job().id;
  ScheduleSet& set = stored.set;
  set.k_max = euler.k_max;
  set.fine_grid = euler.fine_grid;
  set.num_samples = static_cast<int>(num_kept_);
  const MultistepFitOptions options{.batch_size = spec_.batch_size > 0 ? spec_.batch_size : kDefaultBatch};
  set.num_held_out = static_cast<int>(num_kept_ - FittedNoises(num_kept_, options));
  set.refinement = spec_.multistep_refinement;
  set.guidance_scale = euler.guidance_scale;
  set.solver = SolverKind::kMultistep;
  // The schedules that an earlier run has fitted.
  const absl::StatusOr<std::string> text = context_.files().ReadFile(SchedulesPath());
  if (text.ok()) {
    absl::StatusOr<StoredScheduleSet> earlier = ScheduleSetFromJson(*text);
    // With other limits, it may have been fitted to other noises.
    if (earlier.ok() && earlier->Name() == stored.Name() && earlier->job_id == stored.job_id &&
        earlier->set.num_samples == set.num_samples && earlier->set.num_held_out == set.num_held_out)
      set.schedules = std::move(earlier->set.schedules);
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  for (const Schedule& schedule : set.schedules) BOSS_RETURN_IF_ERROR(context_.Advance(schedule.time_grid.steps(), 0));

  std::vector<std::vector<std::vector<int>>> knots;
  BOSS_RETURN_IF_ERROR(context_.Run([&]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(knots, MultistepKnots(gram, euler, spec_.max_multistep_steps));
    return absl::OkStatus();
  }));
  const Condition condition = noises.Draw(0, num_kept_).condition;
  const auto states = [&](absl::Span<const int> points) { return StatesAt(points); };
  for (int steps = static_cast<int>(set.schedules.size()) + 1; steps <= spec_.max_multistep_steps; ++steps) {
    BOSS_ASSIGN_OR_RETURN(OptimizedMultistep best,
                          OptimizeMultistep(model, euler.FineGrid(), knots[static_cast<size_t>(steps) - 1], states,
                                            condition, options, context_));
    if (spec_.multistep_refinement > 0) {
      BOSS_ASSIGN_OR_RETURN(best, RefineMultistep(model, euler.FineGrid(), std::move(best), states, condition, options,
                                                  spec_.multistep_refinement, context_));
    }
    set.schedules.push_back(std::move(best.schedule));
    BOSS_RETURN_IF_ERROR(WriteFileAtomically(SchedulesPath(), ScheduleSetToJson(stored), context_.files()));
    BOSS_RETURN_IF_ERROR(context_.ReportSaved());
    BOSS_RETURN_IF_ERROR(context_.Advance(steps, best.evaluations * noises.evaluations_per_step()));
  }
  BOSS_RETURN_IF_ERROR(context_.store().AddScheduleSet(key, stored));
  return context_.ReportMessage(
      Severity::kInfo,
      absl::StrCat("multistep schedules of up to ", spec_.max_multistep_steps, " steps are the set ", stored.Name()));
}

}  // namespace boss::server
