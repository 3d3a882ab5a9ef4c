// Any text as the JSON of a schedule set. What parses is complete, and is written and read back with every field as it
// was.
#include <cstdint>
#include <string>

#include "server/store/manifest.h"
#include "tests/fuzz/check.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;

void CheckComplete(const ScheduleSet& set) {
  FuzzCheck(set.k_max >= 1 && set.schedules.size() == static_cast<size_t>(set.k_max), "schedules are missing");
  FuzzCheck(set.cost_matrix.size() == (set.schedules.size() + 1) * (set.schedules.size() + 1), "costs are missing");
  for (int steps = 1; steps <= set.k_max; ++steps) {
    const Schedule& schedule = set.schedules[steps - 1];
    FuzzCheck(schedule.time_grid.steps() == steps, "a schedule has another number of steps");
    FuzzCheck(schedule.knots.size() == static_cast<size_t>(steps) + 1, "a schedule has another number of knots");
    FuzzCheck(schedule.knots.front() == 0 && schedule.knots.back() == set.k_max, "a path does not span the grid");
  }
}

void CheckSame(const StoredScheduleSet& a, const StoredScheduleSet& b) {
  FuzzCheck(a.Name() == b.Name(), "the name changed");
  FuzzCheck(a.seed == b.seed && a.job_id == b.job_id, "seed or job changed");
  FuzzCheck(a.create_time == b.create_time, "create_time changed");
  FuzzCheck(a.set.num_samples == b.set.num_samples, "num_samples changed");
  FuzzCheck(a.set.guidance_scale == b.set.guidance_scale, "guidance_scale changed");
  FuzzCheck(a.set.cost_matrix == b.set.cost_matrix, "cost_matrix changed");
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
