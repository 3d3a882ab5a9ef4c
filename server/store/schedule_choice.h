// Which of a version's schedules a request takes.
#pragma once

#include <memory>

#include "absl/types/span.h"
#include "server/store/manifest.h"
#include "server/store/schedule_set.h"

namespace boss::server {

using ScheduleSetSpan = absl::Span<const std::shared_ptr<const StoredScheduleSet>>;

// Whether the set may stand for its version's searched schedules of that solver and guidance scale, as FormatGuidance
// writes it: no client named it.
bool IsSearchedFor(const StoredScheduleSet& stored, double guidance_scale, SolverKind solver);

// The version's own schedule of exactly `steps` steps for that guidance scale; nullptr if it has none.
const NativeSchedule* FindNativeSchedule(const Manifest& manifest, int steps, double guidance_scale);

// Of the sets that IsSearchedFor accepts, the one with the largest k_max, of these the newest. With `steps` other than
// 0, those that have a schedule of so many go before; if none has it, the one with the most schedules. Errors of
// schedules do not choose: each is measured against the fine sampler of its own grid. Null if nothing is accepted.
std::shared_ptr<const StoredScheduleSet> ChooseScheduleSet(ScheduleSetSpan sets, double guidance_scale,
                                                           SolverKind solver, int steps);

// Whether a request of `steps` steps that names neither solver nor schedule is served by multistep. A version that was
// straightened for as many takes it if coefficients were fitted to it afterwards; any other one if there is a searched
// schedule of so many steps. Euler's schedule over the same grid was a candidate for that, so that its error on the
// held-out noises is the lowest that is known.
bool PrefersMultistep(const Manifest& manifest, ScheduleSetSpan sets, double guidance_scale, int steps);

}  // namespace boss::server
