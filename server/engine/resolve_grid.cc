#include "server/engine/resolve_grid.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/store/schedule_choice.h"

namespace boss::server {
namespace {

absl::Status MultistepMissing(const VersionKey& version, double guidance_scale, int steps) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          version.ToString(), " has no multistep schedule for guidance scale ", guidance_scale,
          ": make one with Jobs.OptimizeStepsizesJob {spec: {model: \"", version.ToString(),
          "\", guidance_scale: ", guidance_scale, ", max_multistep_steps: ", steps, "}}, or ask for SOLVER_EULER")),
      "SCHEDULE_MISSING");
}

absl::Status ScheduleMissing(const VersionKey& version, double guidance_scale) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(version.ToString(), " has no Bellman schedule for guidance scale ", guidance_scale,
                                     ": make one with Jobs.OptimizeStepsizesJob {spec: {model: \"", version.ToString(),
                                     "\", guidance_scale: ", guidance_scale, "}}, or ask for SCHEDULE_KIND_UNIFORM")),
                    "SCHEDULE_MISSING");
}

absl::StatusOr<ResolvedGrid> GridFromSet(const StoredScheduleSet& stored, int steps, ScheduleSource source) {
  const Schedule* const schedule = stored.set.Find(steps);
  if (schedule != nullptr)
    return ResolvedGrid{schedule->time_grid, source, stored.Name(), /*warnings=*/{}, schedule->coefficients};
  return FieldError("steps", absl::StrCat("must be ", StepsText(stored.set), ", got ", steps));
}

absl::StatusOr<ResolvedGrid> NamedGrid(const SampleRequest& request, const VersionKey& version, const ModelStore& store,
                                       int steps) {
  const auto stored = store.FindScheduleSet(version, request.schedule_set);
  if (absl::IsNotFound(stored.status())) return WithField(stored.status(), "schedule_set");
  BOSS_RETURN_IF_ERROR(stored.status());
  const ScheduleSet& set = (*stored)->set;
  // A set of one schedule says itself how many steps there are.
  const bool only_one = request.steps == 0 && set.schedules.size() == 1;
  const int chosen_steps = only_one ? set.schedules.front().time_grid.steps() : steps;
  BOSS_ASSIGN_OR_RETURN(ResolvedGrid grid, GridFromSet(**stored, chosen_steps, ScheduleSource::kNamed));
  const bool takes_multistep = request.default_solver && set.solver == SolverKind::kMultistep;
  const SolverKind solver = takes_multistep ? SolverKind::kMultistep : request.solver;
  if (solver == SolverKind::kMultistep && grid.coefficients.empty()) {
    return FieldError("schedule_set", absl::StrCat("must be a set for multistep, ", (*stored)->Name(), " is for ",
                                                   std::string(SolverName(set.solver))));
  }
  if (solver != SolverKind::kMultistep) grid.coefficients.clear();
  grid.warnings = Mismatches(**stored, solver, request.guidance_scale);
  return grid;
}

absl::StatusOr<ResolvedGrid> MultistepGrid(const SampleRequest& request, const LoadedModel& model,
                                           const ModelStore& store, int steps) {
  const NativeSchedule* const native = FindNativeSchedule(model.manifest, steps, request.guidance_scale);
  if (native != nullptr && native->schedule.solver == SolverKind::kMultistep) {
    return ResolvedGrid{native->schedule.time_grid, ScheduleSource::kBellman, /*schedule_set=*/"", /*warnings=*/{},
                        native->schedule.coefficients};
  }
  const VersionKey& version = model.key;
  const auto stored = store.FindScheduleSet(version, request.guidance_scale, SolverKind::kMultistep, steps);
  if (absl::IsNotFound(stored.status())) return MultistepMissing(version, request.guidance_scale, steps);
  BOSS_RETURN_IF_ERROR(stored.status());
  return GridFromSet(**stored, steps, ScheduleSource::kBellman);
}

// Whether multistep is asked for, or the model's own choice.
bool IsMultistep(const SampleRequest& request, const LoadedModel& model, const ModelStore& store, int steps) {
  if (!request.default_solver) return request.solver == SolverKind::kMultistep;
  const auto sets = store.ListScheduleSets(model.key);
  // A version that is gone from the store is still served with what its manifest has.
  return PrefersMultistep(model.manifest, sets.ok() ? ScheduleSetSpan(*sets) : ScheduleSetSpan(),
                          request.guidance_scale, steps);
}

absl::StatusOr<ResolvedGrid> BellmanGrid(const SampleRequest& request, const VersionKey& version,
                                         const ModelStore& store, int steps) {
  const auto stored = store.FindScheduleSet(version, request.guidance_scale);
  const absl::StatusOr<NativeSchedule> found = store.FindSchedule(version, steps, request.guidance_scale);
  // A version that was trained for as many uniform steps is native to those; Bellman steps have to be asked of its set.
  if (found.ok() && found->kind != "bellman" && stored.ok())
    return GridFromSet(**stored, steps, ScheduleSource::kBellman);
  if (absl::IsNotFound(found.status()) || (found.ok() && found->kind != "bellman")) {
    return ScheduleMissing(version, request.guidance_scale);
  }
  if (absl::IsInvalidArgument(found.status())) return WithField(found.status(), "steps");
  if (!found.ok()) return found.status();
  ResolvedGrid grid = {found->schedule.time_grid, ScheduleSource::kBellman};
  const bool is_from_set = stored.ok() && steps <= (*stored)->set.k_max &&
                           (*stored)->set.schedules[steps - 1].time_grid == found->schedule.time_grid;
  if (is_from_set) grid.schedule_set = (*stored)->Name();
  return grid;
}

}  // namespace

absl::StatusOr<ResolvedGrid> ResolveGrid(const SampleRequest& request, const LoadedModel& model,
                                         const ModelStore& store, int default_steps) {
  const int version_steps = model.manifest.default_steps > 0 ? model.manifest.default_steps : default_steps;
  const int steps = request.steps > 0 ? request.steps : version_steps;
  switch (request.schedule) {
    case ScheduleSource::kExplicit: {
      absl::StatusOr<TimeGrid> grid = TimeGrid::Create(request.time_grid);
      if (!grid.ok()) return FieldError("time_grid", grid.status().message());
      return ResolvedGrid{*std::move(grid), ScheduleSource::kExplicit};
    }
    case ScheduleSource::kNamed:
      return NamedGrid(request, model.key, store, steps);
    case ScheduleSource::kBellman:
      if (request.solver == SolverKind::kMultistep) return MultistepGrid(request, model, store, steps);
      return BellmanGrid(request, model.key, store, steps);
    case ScheduleSource::kUniform:
      return ResolvedGrid{TimeGrid::Uniform(steps)};
    case ScheduleSource::kBest:
      break;
  }
  if (IsMultistep(request, model, store, steps)) return MultistepGrid(request, model, store, steps);
  // Schedules are searched for Euler steps; another solver visits those times only if it is told to.
  if (request.solver != SolverKind::kEuler) return ResolvedGrid{TimeGrid::Uniform(steps)};
  const absl::StatusOr<NativeSchedule> best = store.FindSchedule(model.key, steps, request.guidance_scale);
  const bool has_none = absl::IsNotFound(best.status()) || absl::IsInvalidArgument(best.status());
  if (has_none || (best.ok() && best->kind != "bellman")) return ResolvedGrid{TimeGrid::Uniform(steps)};
  if (!best.ok()) return best.status();
  return BellmanGrid(request, model.key, store, steps);
}

}  // namespace boss::server
