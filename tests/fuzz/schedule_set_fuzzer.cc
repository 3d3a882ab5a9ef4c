// Any text as the JSON of a schedule set. What parses is complete, and is written and read back with every field as it
// was.
#include <cstdint>
#include <string>

#include "server/store/schedule_set.h"
#include "tests/fuzz/check.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;

void CheckComplete(const ScheduleSet& set) {
  if (!set.searched()) {
    FuzzCheck(!set.schedules.empty() && set.cost_matrix.empty() && !set.fine_grid, "no schedules, or too much else");
    for (size_t i = 0; i < set.schedules.size(); ++i) {
      const Schedule& schedule = set.schedules[i];
      FuzzCheck(schedule.knots.empty(), "knots on no grid");
      FuzzCheck(i == 0 || schedule.time_grid.steps() > set.schedules[i - 1].time_grid.steps(), "steps do not rise");
    }
    return;
  }
  FuzzCheck(set.schedules.size() == static_cast<size_t>(set.k_max), "schedules are missing");
  const TimeGrid fine_grid = set.FineGrid();
  FuzzCheck(fine_grid.steps() == set.k_max, "the fine grid has another number of intervals");
  FuzzCheck(set.cost_matrix.size() == (set.schedules.size() + 1) * (set.schedules.size() + 1), "costs are missing");
  for (int steps = 1; steps <= set.k_max; ++steps) {
    const Schedule& schedule = set.schedules[steps - 1];
    FuzzCheck(schedule.time_grid.steps() == steps, "a schedule has another number of steps");
    FuzzCheck(schedule.knots.size() == static_cast<size_t>(steps) + 1, "a schedule has another number of knots");
    FuzzCheck(schedule.knots.front() == 0 && schedule.knots.back() == set.k_max, "a path does not span the grid");
    for (int i = 0; i <= steps; ++i)
      FuzzCheck(schedule.time_grid[i] == fine_grid[schedule.knots[i]], "a time is not its knot's");
  }
}

void CheckSame(const StoredScheduleSet& a, const StoredScheduleSet& b) {
  FuzzCheck(a.Name() == b.Name(), "the name changed");
  FuzzCheck(a.seed == b.seed && a.job_id == b.job_id, "seed or job changed");
  FuzzCheck(a.create_time == b.create_time, "create_time changed");
  FuzzCheck(a.set.num_samples == b.set.num_samples, "num_samples changed");
  FuzzCheck(a.set.guidance_scale == b.set.guidance_scale, "guidance_scale changed");
  FuzzCheck(a.set.cost_matrix == b.set.cost_matrix, "cost_matrix changed");
  FuzzCheck(a.set.k_max == b.set.k_max && a.set.fine_grid == b.set.fine_grid, "the fine grid changed");
  FuzzCheck(a.set.schedules.size() == b.set.schedules.size(), "schedules were lost");
  for (size_t i = 0; i < a.set.schedules.size(); ++i) {
    const Schedule &left = a.set.schedules[i], &right = b.set.schedules[i];
    FuzzCheck(left.knots == right.knots && left.time_grid == right.time_grid, "a path changed");
    FuzzCheck(left.total_cost == right.total_cost && left.solver == right.solver, "a cost or a solver changed");
  }
}

}  // namespace
}  // namespace boss::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace boss::server;
  using boss::testing::FuzzCheck;
  const auto stored = ScheduleSetFromJson({reinterpret_cast<const char*>(data), size});
  if (!stored.ok()) {
    boss::testing::FuzzCheckError(stored.status(), absl::StatusCode::kDataLoss);
    return 0;
  }
  CheckComplete(stored->set);
  const std::string text = ScheduleSetToJson(*stored);
  const auto again = ScheduleSetFromJson(text);
  FuzzCheck(again.ok(), "what was written does not parse: " + again.status().ToString());
  CheckComplete(again->set);
  CheckSame(*stored, *again);
  FuzzCheck(ScheduleSetToJson(*again) == text, "equal sets give other texts");
  return 0;
}
