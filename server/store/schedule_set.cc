#include "server/store/schedule_set.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "server/store/coefficients_json.h"
#include "server/store/json_reader.h"
#include "server/store/manifest.h"
#include "server/store/manifest_json.h"
#include "server/store/model_store.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

constexpr int kFormat = 1;
constexpr int kMaxKMax = 100000;
// What begins the names that the server gives to sets; besides, what it calls rows, and how requests choose.
constexpr absl::string_view kReservedPrefixes[] = {"bellman", "multistep-"};
constexpr absl::string_view kReserved[] = {"auto",  "explicit", "fine",         "heun",                   "multistep",
                                           "named", "reflow",   "straightened", "straightened-multistep", "uniform"};

bool HasReservedPrefix(absl::string_view name) {
  return std::any_of(std::begin(kReservedPrefixes), std::end(kReservedPrefixes),
                     [&](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
}

absl::Status NameIsReserved(absl::string_view what, absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": \"", name, "\" is a name that the server gives, expected another one"));
}

std::vector<double> TimesOf(const TimeGrid& grid) { return {grid.times().begin(), grid.times().end()}; }

absl::Status CheckSearched(const ScheduleSet& set) {
  if (set.k_max > kMaxKMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("schedule set.k_max: got %d, expected up to %d", set.k_max, kMaxKMax));
  }
  const size_t k_max = static_cast<size_t>(set.k_max), points = k_max + 1;
  if (set.solver == SolverKind::kMultistep) {
    if (set.schedules.empty() || set.schedules.size() > k_max || !set.cost_matrix.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("schedule set: got k_max %d, %d schedules and %d costs, expected 1 to k_max schedules and no "
                          "costs for multistep",
                          k_max, set.schedules.size(), set.cost_matrix.size()));
    }
    for (const Schedule& schedule : set.schedules) {
      if (const absl::Status status = CheckFitted(schedule); !status.ok())
        return absl::Status(status.code(), absl::StrCat("schedule set: ", status.message()));
    }
  } else if (set.schedules.size() != k_max || set.cost_matrix.size() != points * points) {
    return absl::InvalidArgumentError(absl::StrCat("schedule set: got k_max ", set.k_max, ", ", set.schedules.size(),
                                                   " schedules and ", set.cost_matrix.size(),
                                                   " costs, expected k_max schedules and (k_max + 1)^2 costs"));
  }
  for (int steps = 1; steps <= static_cast<int>(set.schedules.size()); ++steps) {
    const int got = set.schedules[steps - 1].time_grid.steps();
    if (got != steps) {
      return absl::InvalidArgumentError(
          absl::StrFormat("schedule set.schedules: the schedule of %d steps has %d", steps, got));
    }
  }
  if (set.fine_grid && set.fine_grid->steps() != set.k_max) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "schedule set: the fine grid has %d intervals, expected k_max = %d", set.fine_grid->steps(), set.k_max));
  }
  return absl::OkStatus();
}

absl::Status CheckImported(const ScheduleSet& set) {
  if (set.solver == SolverKind::kMultistep)
    return absl::InvalidArgumentError("schedule set.solver: multistep has searched schedules alone, with their k_max");
  if (set.schedules.empty() || !set.cost_matrix.empty() || set.fine_grid) {
    return absl::InvalidArgumentError("schedule set: without k_max, expected schedules, no costs and no fine grid");
  }
  int previous = 0;
  for (const Schedule& schedule : set.schedules) {
    if (schedule.time_grid.steps() <= previous || !schedule.knots.empty()) {
      return absl::InvalidArgumentError("schedule set.schedules: without k_max, expected rising steps and no knots");
    }
    previous = schedule.time_grid.steps();
  }
  return absl::OkStatus();
}

}  // namespace

std::string StoredScheduleSet::Name() const {
  if (!client_name.empty()) return client_name;
  const std::string solver(SolverName(set.solver));
  std::string name = absl::StrCat(set.solver == SolverKind::kMultistep ? "" : "bellman-", solver, "-g",
                                  FormatGuidance(set.guidance_scale), "-k", set.k_max);
  if (set.fine_grid) absl::StrAppend(&name, "-", Sha256Hex(DumpJson(TimesOf(*set.fine_grid))).substr(0, 8));
  return name;
}

absl::Status CheckScheduleSetName(absl::string_view what, absl::string_view name) {
  BOSS_RETURN_IF_ERROR(CheckName(what, name));
  const bool is_reserved = std::count(std::begin(kReserved), std::end(kReserved), name) > 0;
  if (is_reserved || HasReservedPrefix(name)) return NameIsReserved(what, name);
  return absl::OkStatus();
}

absl::Status CheckScheduleSet(const StoredScheduleSet& stored) {
  const ScheduleSet& set = stored.set;
  if (!stored.client_name.empty()) {
    // A row's name may have been free when the set was stored: what is there must still be read.
    BOSS_RETURN_IF_ERROR(CheckName("schedule set.name", stored.client_name));
    if (HasReservedPrefix(stored.client_name)) return NameIsReserved("schedule set.name", stored.client_name);
  } else if (!set.searched()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("schedule set.k_max: got %d and no name, expected at least 1", set.k_max));
  }
  if (set.k_max < 0) {
    return absl::InvalidArgumentError(absl::StrFormat("schedule set.k_max: got %d, expected at least 0", set.k_max));
  }
  const int most = set.solver == SolverKind::kMultistep ? set.num_samples : 0;
  if (set.num_held_out < 0 || set.num_held_out > most) {
    return absl::InvalidArgumentError(
        absl::StrFormat("schedule set.num_held_out: got %d, expected 0 to %d", set.num_held_out, most));
  }
  if (set.refinement < 0 || (set.refinement > 0 && set.solver != SolverKind::kMultistep)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "schedule set.refinement: got %d, expected at least 0, for multistep only", set.refinement));
  }
  return set.searched() ? CheckSearched(set) : CheckImported(set);
}

std::vector<std::string> Mismatches(const StoredScheduleSet& stored, SolverKind solver, double guidance_scale) {
  std::vector<std::string> mismatches;
  if (stored.set.solver != solver) {
    mismatches.push_back(absl::StrCat("the schedule set ", stored.Name(), " was made for ",
                                      std::string(SolverName(stored.set.solver)), ", the solver is ",
                                      std::string(SolverName(solver))));
  }
  const std::string made_for = FormatGuidance(stored.set.guidance_scale), used_with = FormatGuidance(guidance_scale);
  if (made_for != used_with) {
    mismatches.push_back(absl::StrCat("the schedule set ", stored.Name(), " was made for guidance scale ", made_for,
                                      ", the request's is ", used_with));
  }
  return mismatches;
}

std::string StepsText(const ScheduleSet& set) {
  if (set.searched()) {
    const char* const limit = static_cast<int>(set.schedules.size()) == set.k_max ? "k_max" : "max_multistep_steps";
    return absl::StrCat("in [1, ", set.schedules.size(), "] (", limit, " of the schedules)");
  }
  const auto append_steps = [](std::string* out, const Schedule& schedule) {
    absl::StrAppend(out, schedule.time_grid.steps());
  };
  return absl::StrCat("one of ", absl::StrJoin(set.schedules, ", ", append_steps));
}

std::string ScheduleSetToJson(const StoredScheduleSet& stored) {
  const ScheduleSet& set = stored.set;
  Json schedules = Json::array();
  for (const Schedule& schedule : set.schedules) {
    if (set.searched()) {
      Json& item = schedules.emplace_back(Json{{"knots", schedule.knots}, {"total_cost", schedule.total_cost}});
      if (set.solver != SolverKind::kMultistep) continue;
      item["coefficients"] = CoefficientsToJson(schedule.coefficients);
      item["fit_error"] = schedule.fit_error;
      item["held_out_error"] = schedule.held_out_error;
    } else {
      schedules.push_back({{"time_grid", TimesOf(schedule.time_grid)}});
    }
  }
  Json json = {{"format", kFormat},
               {"k_max", set.k_max},
               {"num_samples", set.num_samples},
               {"guidance_scale", set.guidance_scale},
               {"solver", std::string(SolverName(set.solver))},
               {"seed", stored.seed},
               {"job_id", stored.job_id},
               {"cost_matrix", set.cost_matrix},
               {"schedules", std::move(schedules)}};
  if (set.num_held_out != 0) json["num_held_out"] = set.num_held_out;
  if (set.refinement != 0) json["refinement"] = set.refinement;
  if (!stored.client_name.empty()) json["name"] = stored.client_name;
  if (set.fine_grid) json["fine_times"] = TimesOf(*set.fine_grid);
  PutTime(json, "create_time", stored.create_time);
  return DumpJson(json);
}

absl::StatusOr<StoredScheduleSet> ScheduleSetFromJson(absl::string_view text) {
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject("schedule set", text));
  StoredScheduleSet stored;
  ScheduleSet& set = stored.set;
  std::vector<double> fine_times;
  JsonReader reader(json, "schedule set");
  reader.Required("k_max", set.k_max);
  reader.Required("num_samples", set.num_samples);
  reader.Optional("num_held_out", set.num_held_out);
  reader.Optional("refinement", set.refinement);
  reader.Required("guidance_scale", set.guidance_scale);
  reader.Name("solver", set.solver, ParseSolver);
  reader.Optional("name", stored.client_name);
  reader.Optional("fine_times", fine_times);
  reader.Optional("seed", stored.seed);
  reader.Optional("job_id", stored.job_id);
  reader.Required("cost_matrix", set.cost_matrix);
  reader.Time("create_time", stored.create_time);
  BOSS_RETURN_IF_ERROR(reader.status());
  if (set.k_max < 0 || set.k_max > kMaxKMax) {
    return absl::DataLossError(absl::StrFormat("schedule set.k_max: got %d, expected 0 to %d", set.k_max, kMaxKMax));
  }
  const auto grid = [](std::vector<double> times) -> absl::StatusOr<TimeGrid> {
    absl::StatusOr<TimeGrid> created = TimeGrid::Create(std::move(times));
    return created.ok() ? created : absl::DataLossError(absl::StrCat("schedule set: ", created.status().message()));
  };
  TimeGrid fine_grid;
  if (set.searched()) {
    fine_grid = TimeGrid::Uniform(set.k_max);
    if (!fine_times.empty()) {
      BOSS_ASSIGN_OR_RETURN(TimeGrid given, grid(std::move(fine_times)));
      if (given.steps() != set.k_max) return absl::DataLossError("schedule set.fine_times: expected k_max + 1 times");
      if (given != fine_grid) set.fine_grid = given;
      fine_grid = std::move(given);
    }
  }
  const auto read_schedule = [&](const Json& item) -> absl::StatusOr<Schedule> {
    Schedule schedule;
    schedule.solver = set.solver;
    std::vector<double> times;
    JsonReader item_reader(item, "schedule set.schedules");
    if (!set.searched()) {
      item_reader.Required("time_grid", times);
      BOSS_RETURN_IF_ERROR(item_reader.status());
    } else {
      item_reader.Required("knots", schedule.knots);
      item_reader.Required("total_cost", schedule.total_cost);
      std::vector<std::vector<double>> lists;
      if (set.solver == SolverKind::kMultistep) {
        item_reader.Required("coefficients", lists);
        item_reader.Required("fit_error", schedule.fit_error);
        item_reader.Required("held_out_error", schedule.held_out_error);
      }
      BOSS_RETURN_IF_ERROR(item_reader.status());
      BOSS_ASSIGN_OR_RETURN(schedule.coefficients, CoefficientsFromLists(lists));
      BOSS_RETURN_IF_ERROR(CheckKnots(schedule.knots, set.k_max));
      for (int knot : schedule.knots) times.push_back(fine_grid[knot]);
    }
    BOSS_ASSIGN_OR_RETURN(schedule.time_grid, grid(std::move(times)));
    return schedule;
  };
  reader.Objects("schedules", set.schedules, read_schedule);
  BOSS_RETURN_IF_ERROR(reader.status());
  const absl::Status checked = CheckScheduleSet(stored);
  if (!checked.ok()) return absl::DataLossError(checked.message());
  return stored;
}

}  // namespace boss::server
