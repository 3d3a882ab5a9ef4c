// bossctl schedules compare
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

struct Arguments {
  boss::v1::EvaluateJobRequest request;
  std::string report;
};

boss::v1::Solver OrEuler(boss::v1::Solver solver) {
  return solver == boss::v1::SOLVER_UNSPECIFIED ? boss::v1::SOLVER_EULER : solver;
}

// The server names multistep sets so, and no others.
constexpr char kMultistepPrefix[] = "multistep-";

// Every set of the version for the solver and the guidance scale, and beside Euler's steps Heun's and multistep's,
// unless some are named. Of multistep sets, those that a client named go by their names; the server's are what the
// solver takes. Returns the exit code of a failure.
std::optional<int> ChooseSets(Context& context, boss::v1::EvaluateSpec& spec) {
  spec.set_model(OneVersion(spec.model()));
  spec.add_schedules(boss::v1::SCHEDULE_KIND_UNIFORM);
  if (!spec.schedule_sets().empty()) return std::nullopt;
  const std::string guidance = FormatReal(spec.has_guidance_scale() ? spec.guidance_scale() : 1);
  boss::v1::ListSchedulesRequest request;
  request.set_model(spec.model());
  const auto sets = context.client().ListSchedules(request).Take();
  if (!sets.ok()) return context.Fail(sets.status());
  const bool adds_solvers = OrEuler(spec.solver()) == boss::v1::SOLVER_EULER && spec.other_solvers().empty();
  const bool wants_multistep = adds_solvers || std::count(spec.other_solvers().begin(), spec.other_solvers().end(),
                                                          boss::v1::SOLVER_MULTISTEP) > 0;
  bool has_multistep = false;
  for (const boss::v1::ScheduleSet& set : *sets) {
    const bool same_guidance = FormatReal(set.guidance_scale()) == guidance;
    if (same_guidance && OrEuler(set.solver()) == OrEuler(spec.solver())) {
      spec.add_schedule_sets(set.name());
    } else if (same_guidance && set.solver() == boss::v1::SOLVER_MULTISTEP && wants_multistep) {
      const bool is_named = !absl::StartsWith(set.name(), kMultistepPrefix);
      if (is_named) spec.add_schedule_sets(set.name());
      has_multistep |= !is_named;
    } else {
      context.err() << "left out: " << set.name() << ", for " << SolverName(OrEuler(set.solver()))
                    << " and guidance scale " << FormatReal(set.guidance_scale()) << "\n";
    }
  }
  if (adds_solvers) spec.add_other_solvers(boss::v1::SOLVER_HEUN);
  if (has_multistep && adds_solvers) spec.add_other_solvers(boss::v1::SOLVER_MULTISTEP);
  return std::nullopt;
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
  Table table({{"K", true}, {"SCHEDULE"}, {"NFE", true}, {"TRAJECTORY ERROR", true}, {"FRECHET DISTANCE", true}});
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
    table.AddRow(
        {absl::StrCat(row.steps()), RowLabel(row), absl::StrCat(row.nfe()), std::move(error), std::move(distance)});
  }
  return table.Render();
}

absl::Status WriteReport(Client& client, const std::string& job_name, const Job& job, const std::string& path) {
  ReportData data;
  data.title = absl::StrCat("Schedules of ", job.input_models().empty() ? job.evaluate().model() : job.input_models(0));
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
  if (const std::optional<int> code = ChooseSets(context, spec)) return *code;
  const auto submitted = context.client().EvaluateJob(arguments.request);
  if (!submitted.ok()) return context.Fail(submitted.status());
  context.err() << "submitted " << submitted->name() << std::endl;
  const auto job = WaitForJob(context, submitted->name(), 1);
  if (!job.ok()) return FailWaiting(context, submitted->name(), job.status());
  if (job->state() != Job::SUCCEEDED) {
    context.out() << RenderJob(*job);
    return kExitJobFailed;
  }
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
      "Judge uniform steps, all schedule sets of a version, and Heun's and multistep's steps on the same noises");
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
  AddSamplerOptions(*command, spec);
  AddJudgingOptions(*command, spec, "--");
  command->add_option("--report", arguments->report, "HTML file for the charts of the comparison");
  SetCommand(*command, context, [arguments](Context& context) { return Run(context, *arguments); });
}

}  // namespace boss::client
