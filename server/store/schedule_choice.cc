#include "server/store/schedule_choice.h"

#include <cstddef>
#include <tuple>

namespace boss::server {

bool IsSearchedFor(const StoredScheduleSet& stored, double guidance_scale, SolverKind solver) {
  return stored.set.searched() && stored.client_name.empty() && stored.set.solver == solver &&
         FormatGuidance(stored.set.guidance_scale) == FormatGuidance(guidance_scale);
}

const NativeSchedule* FindNativeSchedule(const Manifest& manifest, int steps, double guidance_scale) {
  for (const NativeSchedule& native : manifest.schedules) {
    if (native.schedule.time_grid.steps() == steps &&
        FormatGuidance(native.guidance_scale) == FormatGuidance(guidance_scale))
      return &native;
  }
  return nullptr;
}

std::shared_ptr<const StoredScheduleSet> ChooseScheduleSet(ScheduleSetSpan sets, double guidance_scale,
                                                           SolverKind solver, int steps) {
  const auto rank = [&](const StoredScheduleSet& stored) {
    const bool has_steps = stored.set.Find(steps) != nullptr;
    const size_t schedules = steps != 0 && !has_steps ? stored.set.schedules.size() : 0;
    return std::tuple(has_steps, schedules, stored.set.k_max, stored.create_time);
  };
  std::shared_ptr<const StoredScheduleSet> best;
  for (const auto& stored : sets) {
    if (!IsSearchedFor(*stored, guidance_scale, solver)) continue;
    if (best == nullptr || rank(*stored) > rank(*best)) best = stored;
  }
  return best;
}

bool PrefersMultistep(const Manifest& manifest, ScheduleSetSpan sets, double guidance_scale, int steps) {
  if (const NativeSchedule* const native = FindNativeSchedule(manifest, steps, guidance_scale))
    return native->schedule.solver == SolverKind::kMultistep;
  const auto searched = ChooseScheduleSet(sets, guidance_scale, SolverKind::kMultistep, steps);
  return searched != nullptr && searched->set.Find(steps) != nullptr;
}

}  // namespace boss::server
