#include "server/jobs/target_schedule.h"

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "server/store/manifest.h"

namespace boss::server {

absl::StatusOr<Schedule> TargetSchedule(const StoredScheduleSet& stored, const DistillSpec& spec) {
  const ScheduleSet& set = stored.set;
  if (!set.searched() || set.FineGrid() != FineGridOf(spec)) {
    return FieldError("spec.schedule_set", absl::StrCat("expected a set on the fine grid of k_max and fine_time_grid (",
                                                        spec.k_max, " intervals), ", stored.Name(), " has ",
                                                        set.searched() ? absl::StrCat("another one of ", set.k_max)
                                                                       : std::string("none")));
  }
  if (FormatGuidance(set.guidance_scale) != FormatGuidance(spec.guidance_scale)) {
    return FieldError("spec.schedule_set",
                      absl::StrCat("expected a set for guidance scale ", FormatGuidance(spec.guidance_scale), ", ",
                                   stored.Name(), " is for ", FormatGuidance(set.guidance_scale)));
  }
  const Schedule* const schedule = set.Find(spec.steps);
  if (schedule == nullptr) {
    return FieldError("spec.steps", absl::StrCat("must be ", StepsText(set), " in ", stored.Name(), ", got ", spec.steps));
  }
  return Schedule{.knots = schedule->knots,
                  .time_grid = schedule->time_grid,
                  .total_cost = set.solver == SolverKind::kEuler ? schedule->total_cost : 0};
}

}  // namespace boss::server
