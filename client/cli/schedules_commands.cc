// bossctl schedules ...
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/cli/schedules.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::ScheduleSet;

int List(Context& context, const boss::v1::ListSchedulesRequest& request) {
  const auto sets = context.client().ListSchedules(request).Take();
  if (!sets.ok()) return context.Fail(sets.status());
  if (context.json) {
    boss::v1::ListSchedulesResponse all;
    all.mutable_schedule_sets()->Add(sets->begin(), sets->end());
    context.PrintJson(all);
    return kExitOk;
  }
  Table table({{"MODEL"},
               {"NAME"},
               {"KIND"},
               {"SOLVER"},
               {"GUIDANCE", true},
               {"K MAX", true},
               {"TRAJECTORIES", true},
               {"JOB"},
               {"CREATED"}});
  for (const ScheduleSet& set : *sets) {
    const bool searched = set.k_max() > 0;
    table.AddRow({set.model(), set.name(), searched ? "bellman" : "imported", SolverName(set.solver()),
                  FormatReal(set.guidance_scale()), searched ? absl::StrCat(set.k_max()) : "-",
                  searched ? absl::StrCat(set.num_samples()) : "-", set.job().empty() ? "-" : set.job(),
                  FormatTime(set.create_time())});
  }
  context.out() << (table.empty() ? "no schedules\n" : table.Render());
  return kExitOk;
}

// A row a step: its time, and what it takes of the state, of its velocity and of those before it.
int GetMultistep(Context& context, const ScheduleSet& set) {
  Table table({{"K", true},
               {"FIT ERROR", true},
               {"HELD-OUT ERROR", true},
               {"TIME", true},
               {"STATE", true},
               {"VELOCITIES, THE NEWEST FIRST"}});
  for (const auto& schedule : set.schedules()) {
    for (int step = 0; step < schedule.coefficients_size(); ++step) {
      const auto& coefficients = schedule.coefficients(step);
      const bool first = step == 0;
      table.AddRow({first ? absl::StrCat(schedule.steps()) : "", first ? FormatReal(schedule.fit_error()) : "",
                    first ? FormatReal(schedule.held_out_error()) : "", FormatReal(schedule.time_grid(step)),
                    FormatReal(coefficients.state()),
                    absl::StrJoin(coefficients.velocities(), " ",
                                  [](std::string* out, double v) { absl::StrAppend(out, FormatReal(v)); })});
    }
  }
  context.out() << table.Render();
  return kExitOk;
}

int Get(Context& context, const boss::v1::GetScheduleRequest& request) {
  const auto set = context.client().GetSchedule(request);
  if (!set.ok()) return context.Fail(set.status());
  if (context.json) {
    context.PrintJson(*set);
    return kExitOk;
  }
  Facts facts;
  facts.Add("model", set->model());
  facts.Add("name", set->name());
  // Without a name it is the version's own, whose fine grid is known by its size alone.
  const bool is_own = set->name().empty();
  if (is_own) {
    const bool is_reflow = set->kind() == boss::v1::SCHEDULE_KIND_UNIFORM;
    facts.Add(is_reflow ? "reflowed for" : "straightened for", absl::StrCat(request.steps(), " steps"));
  }
  facts.Add("solver", SolverName(set->solver()));
  facts.Add("guidance", FormatReal(set->guidance_scale()));
  if (is_own && set->k_max() > 0) facts.Add("fine grid", absl::StrCat(set->k_max(), " intervals"));
  if (!is_own && set->k_max() > 0) {
    facts.Add("fine grid", absl::StrCat(set->k_max(), set->fine_time_grid().empty() ? " equal" : " uneven",
                                        " intervals, ", set->num_samples(), " trajectories"));
  }
  if (set->num_held_out() > 0) {
    facts.Add("fitted to", absl::StrCat(set->num_samples() - set->num_held_out(), " trajectories, ",
                                        set->num_held_out(), " held out"));
  }
  if (set->multistep_refinement() > 0)
    facts.Add("times refined", absl::StrCat("within ", set->multistep_refinement(), " evaluations for each K"));
  context.out() << facts.Render() << "\n";
  if (set->solver() == boss::v1::SOLVER_MULTISTEP) return GetMultistep(context, *set);
  Table table({{"K", true}, {"COST", true}, {"TIMES"}});
  for (const auto& schedule : set->schedules()) {
    const bool has_cost = set->k_max() > 0 && (!is_own || schedule.total_cost() > 0);
    table.AddRow({absl::StrCat(schedule.steps()), has_cost ? FormatReal(schedule.total_cost()) : "-",
                  absl::StrJoin(schedule.time_grid(), " ",
                                [](std::string* out, double t) { absl::StrAppend(out, FormatReal(t)); })});
  }
  context.out() << table.Render();
  return kExitOk;
}

}  // namespace

std::string OneVersion(const std::string& reference) {
  return reference.find('@') == std::string::npos ? absl::StrCat(reference, "@latest") : reference;
}

void AddSchedulesCommands(CLI::App& app, Context& context) {
  CLI::App* schedules = app.add_subcommand("schedules", "Schedules of solver times")->require_subcommand(0, 1);

  auto list_request = std::make_shared<boss::v1::ListSchedulesRequest>();
  CLI::App* list = schedules->add_subcommand("list", "The schedule sets of a model, a version, or all");
  list->add_option_function<std::string>(
      "model", [list_request](const std::string& v) { list_request->set_model(v); }, "Model or version; default: all");
  SetCommand(*list, context, [list_request](Context& context) { return List(context, *list_request); });

  auto request = std::make_shared<boss::v1::GetScheduleRequest>();
  auto matrix = std::make_shared<bool>(false);
  CLI::App* get = schedules->add_subcommand(
      "get", "The schedules of a version, or with --steps what it was straightened or reflowed for");
  get->add_option_function<std::string>(
         "model", [request](const std::string& v) { request->set_model(v); }, "Version")
      ->required();
  get->add_option_function<int32_t>(
      "-k,--steps", [request](int32_t v) { request->set_steps(v); }, "This many steps only");
  get->add_option_function<double>(
      "-g,--guidance", [request](double v) { request->set_guidance_scale(v); }, "Guidance scale; default 1");
  get->add_option_function<std::string>(
      "--name", [request](const std::string& v) { request->set_name(v); }, "A set by name");
  AddParsed(
      *get, "--solver", ParseSolver, [request](boss::v1::Solver v) { request->set_solver(v); }, "Default euler");
  get->add_flag("--cost-matrix", *matrix, "With the cost matrix (shown with --json)");
  SetCommand(*get, context, [request, matrix](Context& context) {
    request->set_include_cost_matrix(*matrix);
    return Get(context, *request);
  });

  AddExchangeCommands(*schedules, context);
  AddCompareCommand(*schedules, context);
}

}  // namespace boss::client
