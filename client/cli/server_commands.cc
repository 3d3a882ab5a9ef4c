// bossctl capabilities, bossctl health
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options.h"
#include "client/format.h"

namespace boss::client {
namespace {

int ShowCapabilities(Context& context) {
  const auto capabilities = context.client().GetCapabilities();
  if (!capabilities.ok()) return context.Fail(capabilities.status());
  if (context.json) {
    context.PrintJson(*capabilities);
    return kExitOk;
  }
  std::vector<std::string> solvers, schedules;
  for (const int solver : capabilities->solvers()) solvers.push_back(SolverName(static_cast<boss::v1::Solver>(solver)));
  for (const int kind : capabilities->schedules())
    schedules.push_back(ScheduleName(static_cast<boss::v1::ScheduleKind>(kind)));
  Facts facts;
  facts.Add("server",
            absl::StrCat("bossd ", capabilities->server_version(), capabilities->server_revision().empty() ? "" : ", ",
                         capabilities->server_revision()));
  facts.Add("started", FormatTime(capabilities->start_time()));
  for (const auto& device : capabilities->devices()) {
    facts.Add("device",
              absl::StrCat(device.name(), device.description().empty() ? "" : ": ", device.description(),
                           device.memory_bytes() > 0 ? absl::StrCat(", ", FormatBytes(device.memory_bytes())) : ""));
  }
  facts.Add("solvers", absl::StrJoin(solvers, ", "));
  facts.Add("schedules", absl::StrJoin(schedules, ", "));
  facts.Add("output formats", absl::StrJoin(capabilities->output_formats(), ", "));
  facts.Add("architectures", absl::StrJoin(capabilities->architectures(), ", "));
  facts.Add("presets", absl::StrJoin(capabilities->presets(), ", "));
  facts.Add("data sets", absl::StrJoin(capabilities->datasets(), ", "));
  facts.Add("jobs", absl::StrJoin(capabilities->job_kinds(), ", "));
  facts.Add("feature networks", absl::StrJoin(capabilities->feature_networks(), ", "));
  const auto& limits = capabilities->limits();
  facts.Add("limits", absl::StrCat(FormatCount(limits.max_samples_per_request()), " samples a request, ",
                                   FormatCount(limits.max_steps()), " steps, k_max ", FormatCount(limits.max_k_max()),
                                   ", ", FormatCount(limits.max_queued_jobs()), " jobs waiting, imports of ",
                                   FormatBytes(limits.max_import_bytes())));
  context.out() << facts.Render();
  return kExitOk;
}

int ShowHealth(Context& context, const std::string& service) {
  using grpc::health::v1::HealthCheckResponse;
  const auto status = context.client().CheckHealth(service);
  if (!status.ok()) return context.Fail(status.status());
  if (context.json) {
    HealthCheckResponse response;
    response.set_status(*status);
    context.PrintJson(response);
  } else {
    context.out() << HealthCheckResponse::ServingStatus_Name(*status) << "\n";
  }
  return *status == HealthCheckResponse::SERVING ? kExitOk : kExitNotServing;
}

}  // namespace

void AddServerCommands(CLI::App& app, Context& context) {
  CLI::App* capabilities = app.add_subcommand("capabilities", "What the server can do, and its limits");
  SetCommand(*capabilities, context, ShowCapabilities);

  auto service = std::make_shared<std::string>();
  CLI::App* health = app.add_subcommand("health", "Whether the server, or one of its services, is serving");
  health->add_option("service", *service, "e.g. boss.v1.Sampler; default: the server as a whole");
  SetCommand(*health, context, [service](Context& context) { return ShowHealth(context, *service); });
}

}  // namespace boss::client
