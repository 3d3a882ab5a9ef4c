// bossctl report
#include <memory>
#include <ostream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cli/files.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/cli/report_data.h"
#include "client/picture.h"
#include "client/report/report.h"

namespace boss::client {
namespace {

struct Arguments {
  std::string title = "Distillation report", out;
  std::vector<std::string> jobs, grids;
};

// The schedules that the jobs made or used, of the first one that has any; nullopt if none did, or they are gone. A
// reflow job names a set only where its teacher had one.
absl::StatusOr<std::optional<boss::v1::ScheduleSet>> FetchSchedules(Context& context,
                                                                    const std::vector<ReportJob>& jobs) {
  for (const ReportJob& one : jobs) {
    const boss::v1::JobResult& result = one.job.result();
    if (result.schedule_set().empty()) continue;
    boss::v1::GetScheduleRequest request;
    request.set_model(result.schedule_model());
    request.set_name(result.schedule_set());
    request.set_include_cost_matrix(true);
    auto set = context.client().GetSchedule(request);
    if (set.ok()) return std::optional(*std::move(set));
    if (!absl::IsNotFound(set.status()) && !absl::IsFailedPrecondition(set.status())) return set.status();
    context.err() << "left out: " << result.schedule_set() << " of " << one.job.name() << ", "
                  << std::string(set.status().message()) << "\n";
  }
  return std::optional<boss::v1::ScheduleSet>();
}

int Run(Context& context, const Arguments& arguments) {
  ReportData data;
  data.title = arguments.title;
  for (const std::string& argument : arguments.grids) {
    const auto pair = ParseKeyValue(argument);
    if (!pair.ok()) return context.FailUsage(absl::StrCat("--grid: ", std::string(pair.status().message())));
    auto png = ReadTextFile(pair->second);
    if (!png.ok()) return context.Fail(png.status());
    if (const auto picture = DecodePng(*png); !picture.ok()) {
      return context.Fail(absl::Status(picture.status().code(),
                                       absl::StrCat(pair->second, ": ", std::string(picture.status().message()))));
    }
    data.grids.push_back({pair->first, *std::move(png)});
  }
  for (const std::string& name : arguments.jobs) {
    auto job = FetchReportJob(context.client(), name);
    if (!job.ok()) return context.Fail(job.status());
    data.jobs.push_back(*std::move(job));
  }
  auto schedules = FetchSchedules(context, data.jobs);
  if (!schedules.ok()) return context.Fail(schedules.status());
  data.schedules = *std::move(schedules);
  auto footer = ReportFooter(context.client());
  if (!footer.ok()) return context.Fail(footer.status());
  data.footer = *std::move(footer);
  const absl::Status status = WriteBinaryFile(arguments.out, RenderReport(data));
  if (!status.ok()) return context.Fail(status);
  context.out() << (context.json ? absl::StrCat("{\"report\": \"", absl::CEscape(arguments.out), "\"}")
                                 : absl::StrCat("wrote ", arguments.out))
                << "\n";
  return kExitOk;
}

}  // namespace

void AddReportCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("report", "Write one self-contained HTML page about jobs");
  command->add_option("-j,--job", arguments->jobs, "jobs/ID; may be repeated, the one that the page is about first")
      ->required();
  command->add_option("--grid", arguments->grids, "LABEL=FILE.png: a picture grid; may be repeated");
  command->add_option("--title", arguments->title, "Heading of the page")->capture_default_str();
  command->add_option("-o,--out", arguments->out, "HTML file to write")->required();
  SetCommand(*command, context, [arguments](Context& context) { return Run(context, *arguments); });
}

}  // namespace boss::client
