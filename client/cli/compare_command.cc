// bossctl schedules compare
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/evaluate_options.h"
#include "client/cli/files.h"
#include "client/cli/job_follower.h"
#include "client/cli/options.h"
#include "client/cli/report_data.h"
#include "client/cli/schedules.h"
#include "client/format.h"
#include "client/report/charts.h"
#include "client/report/report.h"

namespace boss::client {
namespace {

using boss::v1::EvaluationRow;
using boss::v1::Job;
using boss::v1::ScheduleSet;

struct Arguments {
  boss::v1::EvaluateJobRequest request;
  std::string report;
};

boss::v1::Solver OrEuler(boss::v1::Solver solver) {
  return solver == boss::v1::SOLVER_UNSPECIFIED ? boss::v1::SOLVER_EULER : solver;
}

// The contract reserves these beginnings for sets that the server names (ImportScheduleRequest.name). Kind and job do
// not tell: OptimizeStepsizesSpec.schedule_set gives a client's name to what a job searched.
bool IsNamedByServer(const ScheduleSet& set) {
  return absl::StartsWith(set.name(), "bellman") || absl::StartsWith(set.name(), "multistep-");
}

// Every set of the version for the solver and the guidance scale, and beside Euler's steps Heun's and multistep's,
// unless some are named. Of multistep sets, those that a client named go by their names; the server's are what the
// solver takes. With other versions beside, the server's of the solver go so too, because a version that was
// straightened is judged on its own schedules alone where no sets are named; these are returned, and the server takes
// one of them for each K. It has none for Heun's method, which is judged on uniform times.
absl::StatusOr<std::vector<ScheduleSet>> ChooseSets(Context& context, boss::v1::EvaluateSpec& spec) {
  std::vector<ScheduleSet> left_to_server;
  spec.set_model(OneVersion(spec.model()));
  for (std::string& other : *spec.mutable_other_models()) other = OneVersion(other);
  const bool has_others = !spec.other_models().empty();
  if (has_others && spec.baseline().empty()) spec.set_baseline(spec.model());
  const boss::v1::Solver solver = OrEuler(spec.solver());
  const bool names_sets = !spec.schedule_sets().empty();
  const bool has_searched = solver == boss::v1::SOLVER_EULER || solver == boss::v1::SOLVER_MULTISTEP;
  const bool leaves_some = has_others && !names_sets && has_searched;
  if (!leaves_some) spec.add_schedules(boss::v1::SCHEDULE_KIND_UNIFORM);
  if (names_sets) return left_to_server;
  const std::string guidance = FormatReal(spec.has_guidance_scale() ? spec.guidance_scale() : 1);
  boss::v1::ListSchedulesRequest request;
  request.set_model(spec.model());
  const auto sets = context.client().ListSchedules(request).Take();
  if (!sets.ok()) return sets.status();
  const bool adds_solvers = solver == boss::v1::SOLVER_EULER && spec.other_solvers().empty();
  const bool wants_multistep = adds_solvers || std::count(spec.other_solvers().begin(), spec.other_solvers().end(),
                                                          boss::v1::SOLVER_MULTISTEP) > 0;
  bool has_multistep = false;
  for (const ScheduleSet& set : *sets) {
    const bool same_guidance = FormatReal(set.guidance_scale()) == guidance;
    const bool same_solver = OrEuler(set.solver()) == solver;
    if (same_guidance && same_solver && leaves_some && IsNamedByServer(set)) {
      left_to_server.push_back(set);
    } else if (same_guidance && same_solver) {
      spec.add_schedule_sets(set.name());
    } else if (same_guidance && set.solver() == boss::v1::SOLVER_MULTISTEP && wants_multistep) {
      if (!IsNamedByServer(set)) spec.add_schedule_sets(set.name());
      has_multistep |= IsNamedByServer(set);
    } else {
      context.err() << "left out: " << set.name() << ", for " << SolverName(OrEuler(set.solver()))
                    << " and guidance scale " << FormatReal(set.guidance_scale()) << "\n";
    }
  }
  if (adds_solvers) spec.add_other_solvers(boss::v1::SOLVER_HEUN);
  if (has_multistep && adds_solvers) spec.add_other_solvers(boss::v1::SOLVER_MULTISTEP);
  return left_to_server;
}

// Those that the server took for none of the steps.
void SayWhatWasNotTaken(Context& context, const std::vector<ScheduleSet>& left_to_server, const Job& job) {
  const auto& rows = job.result().evaluation();
  for (const ScheduleSet& set : left_to_server) {
    const bool has_row = std::any_of(rows.begin(), rows.end(), [&](const EvaluationRow& row) {
      return row.model() == set.model() && row.schedule_set() == set.name();
    });
    if (!has_row) context.err() << "left out: " << set.name() << ", which was taken for no K; --set names it\n";
  }
}

// The best at each number of evaluations is marked.
std::string RenderComparison(const Job& job) {
  std::vector<EvaluationRow> rows(job.result().evaluation().begin(), job.result().evaluation().end());
  SortByEvaluations(rows);
  std::map<int64_t, double> least_error, least_distance;
  const auto keep_least = [](std::map<int64_t, double>& least, const EvaluationRow& row, double value) {
    const auto [place, is_new] = least.try_emplace(EvaluationsOf(row), value);
    if (!is_new) place->second = std::min(place->second, value);
  };
  for (const EvaluationRow& row : rows) {
    keep_least(least_error, row, row.trajectory_error());
    if (row.has_frechet_distance()) keep_least(least_distance, row, row.frechet_distance());
  }
  const bool has_others = std::any_of(rows.begin(), rows.end(),
                                      [&](const EvaluationRow& row) { return row.model() != rows.front().model(); });
  std::vector<Table::Column> columns = {
      {"K", true}, {"SCHEDULE"}, {"NFE", true}, {"TRAJECTORY ERROR", true}, {"FRECHET DISTANCE", true}};
  if (has_others) columns.insert(columns.begin() + 2, {"VERSION"});
  Table table(std::move(columns));
  for (const EvaluationRow& row : rows) {
    const auto mark = [](bool best) { return best ? "* " : ""; };
    const int64_t evaluations = EvaluationsOf(row);
    std::string error =
        absl::StrFormat("%s%.4f", mark(row.trajectory_error() == least_error[evaluations]), row.trajectory_error());
    std::string distance = "-";
    if (row.has_frechet_distance()) {
      distance = absl::StrFormat("%s%.3f", mark(row.frechet_distance() == least_distance[evaluations]),
                                 row.frechet_distance());
    }
    std::vector<std::string> cells = {absl::StrCat(row.steps()), RowLabel(row), absl::StrCat(row.nfe()),
                                      std::move(error), std::move(distance)};
    if (has_others) cells.insert(cells.begin() + 2, row.model());
    table.AddRow(std::move(cells));
  }
  return table.Render();
}

absl::Status WriteReport(Client& client, const std::string& job_name, const Job& job, const std::string& path) {
  ReportData data;
  // The baseline is behind them.
  std::vector<std::string> versions(job.input_models().begin(), job.input_models().end());
  versions.resize(std::min<size_t>(versions.size(), 1 + job.evaluate().other_models_size()));
  data.title = absl::StrCat("Schedules of ", versions.empty() ? job.evaluate().model() : absl::StrJoin(versions, ", "));
  auto fetched = FetchReportJob(client, job_name);
  if (!fetched.ok()) return fetched.status();
  data.jobs.push_back(*std::move(fetched));
  // The drawing of times and costs is of the version's own search, if there is one.
  boss::v1::GetScheduleRequest request;
  request.set_model(job.evaluate().model());
  request.set_guidance_scale(job.evaluate().guidance_scale());
  request.set_include_cost_matrix(true);
  auto set = client.GetSchedule(request);
  if (set.ok()) {
    data.schedules = *std::move(set);
  } else if (!absl::IsFailedPrecondition(set.status())) {
    return set.status();
  }
  auto footer = ReportFooter(client);
  if (!footer.ok()) return footer.status();
  data.footer = *std::move(footer);
  return WriteBinaryFile(path, RenderReport(data));
}

int Run(Context& context, Arguments& arguments) {
  boss::v1::EvaluateSpec& spec = *arguments.request.mutable_spec();
  const auto left_to_server = ChooseSets(context, spec);
  if (!left_to_server.ok()) return context.Fail(left_to_server.status());
  const auto submitted = context.client().EvaluateJob(arguments.request);
  if (!submitted.ok()) return context.Fail(submitted.status());
  context.err() << "submitted " << submitted->name() << std::endl;
  const auto job = WaitForJob(context, submitted->name(), 1);
  if (!job.ok()) return FailWaiting(context, submitted->name(), job.status());
  if (job->state() != Job::SUCCEEDED) {
    context.out() << RenderJob(*job);
    return kExitJobFailed;
  }
  SayWhatWasNotTaken(context, *left_to_server, *job);
  if (context.json) {
    context.PrintJson(*job);
  } else {
    context.out() << RenderComparison(*job);
  }
  if (arguments.report.empty()) return kExitOk;
  const absl::Status status = WriteReport(context.client(), submitted->name(), *job, arguments.report);
  if (!status.ok()) return context.Fail(status);
  context.err() << "wrote " << arguments.report << "\n";
  return kExitOk;
}

}  // namespace

void AddCompareCommand(CLI::App& schedules, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  Arguments* a = arguments.get();
  const auto spec = [a] { return a->request.mutable_spec(); };
  CLI::App* command = schedules.add_subcommand(
      "compare",
      "Judge uniform steps, the schedule sets of a version, Heun's and multistep's steps, and other versions on the "
      "same noises. With --with, a set that the server named is judged at those K alone that it is taken for");
  Add<std::string>(
      *command, "model", [spec](const std::string& v) { spec()->set_model(v); }, "Version")
      ->required();
  Add<std::vector<std::string>>(
      *command, "--set",
      [spec](const std::vector<std::string>& names) {
        spec()->mutable_schedule_sets()->Assign(names.begin(), names.end());
      },
      "This set alone; may be repeated")
      ->allow_extra_args(false);
  Add<std::vector<std::string>>(
      *command, "--with",
      [spec](const std::vector<std::string>& versions) {
        spec()->mutable_other_models()->Assign(versions.begin(), versions.end());
      },
      "Another version to judge beside, e.g. one that was straightened; may be repeated")
      ->allow_extra_args(false);
  AddSamplerOptions(*command, spec);
  command->get_option("--baseline")
      ->description("Whose fine samples are the measure; default: the version's parent, or with --with the version");
  AddJudgingOptions(*command, spec, "--");
  command->add_option("--report", arguments->report, "HTML file for the charts of the comparison");
  SetCommand(*command, context, [arguments](Context& context) { return Run(context, *arguments); });
}

}  // namespace boss::client
