// bossctl schedules import|export|delete
#include <memory>
#include <ostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/files.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/cli/schedules.h"
#include "client/cli/times.h"
#include "client/format.h"
#include "client/schedule_export.h"

namespace boss::client {
namespace {

struct ExportArguments {
  std::string model, name, out;
  int steps = 0;
  double guidance_scale = 1;
  boss::v1::Solver solver = boss::v1::SOLVER_UNSPECIFIED;
  ExportOptions options;
};

int Import(Context& context, const boss::v1::ImportScheduleRequest& request) {
  const auto set = context.client().ImportSchedule(request);
  if (!set.ok()) return context.Fail(set.status());
  if (context.json) {
    context.PrintJson(*set);
    return kExitOk;
  }
  context.out() << (request.validate_only() ? "the set is valid; nothing was stored\n" : "") << set->model() << " "
                << set->name() << ", K";
  for (const auto& schedule : set->schedules()) context.out() << " " << schedule.steps();
  context.out() << "\n";
  return kExitOk;
}

absl::StatusOr<ExportedSchedule> RequestedSchedule(Client& client, const ExportArguments& arguments,
                                                   const std::string& version) {
  boss::v1::GetScheduleRequest request;
  request.set_model(version);
  request.set_name(arguments.name);
  request.set_steps(arguments.steps);
  request.set_guidance_scale(arguments.guidance_scale);
  request.set_solver(arguments.solver);
  const auto set = client.GetSchedule(request);
  if (!set.ok()) return set.status();
  // A set that is named is the answer whatever its solver is.
  if (arguments.solver != boss::v1::SOLVER_UNSPECIFIED && arguments.solver != set->solver()) {
    return absl::InvalidArgumentError(absl::StrCat("--solver: the schedule set ", set->name(), " is for ",
                                                   SolverName(set->solver()), ", got ", SolverName(arguments.solver)));
  }
  if (set->schedules_size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("--steps: the schedule set ", set->name(), " has ",
                                                   set->schedules_size(), " schedules, name one"));
  }
  ExportedSchedule exported;
  exported.schedule_set = set->name();
  exported.schedule = set->schedules(0);
  exported.solver = set->solver();
  exported.guidance_scale = set->guidance_scale();
  exported.k_max = set->k_max();
  exported.num_samples = set->num_samples();
  exported.num_held_out = set->num_held_out();
  return exported;
}

int Export(Context& context, const ExportArguments& arguments) {
  Client& client = context.client();
  const auto model = client.GetModel(OneVersion(arguments.model));
  if (!model.ok()) return context.Fail(model.status());
  if (model->versions_size() != 1) {
    return context.Fail(absl::InternalError(
        absl::StrCat("the server sent ", model->versions_size(), " versions of ", arguments.model, ", expected one")));
  }
  const boss::v1::ModelVersion& version = model->versions(0);
  const std::string name = absl::StrCat(version.model(), "@", version.version());
  auto exported = RequestedSchedule(client, arguments, name);
  if (!exported.ok()) return context.Fail(exported.status());
  exported->model = name;
  exported->weights_sha256 = version.weights_sha256();
  exported->network = *model;
  const auto text = ExportSchedule(*exported, arguments.options);
  if (!text.ok()) return context.Fail(text.status());
  if (arguments.out.empty()) {
    context.out() << *text;
    return kExitOk;
  }
  const absl::Status status = WriteBinaryFile(arguments.out, *text);
  if (!status.ok()) return context.Fail(status);
  context.err() << "wrote " << arguments.out << "\n";
  return kExitOk;
}

void AddImport(CLI::App& schedules, Context& context) {
  auto request = std::make_shared<boss::v1::ImportScheduleRequest>();
  boss::v1::ImportScheduleRequest* r = request.get();
  CLI::App* command = schedules.add_subcommand("import", "Attach times from elsewhere to a version, under a name");
  Add<std::string>(
      *command, "model", [r](const std::string& v) { r->set_model(v); }, "Version")
      ->required();
  Add<std::string>(
      *command, "--name", [r](const std::string& v) { r->set_name(v); }, "Name of the schedule set")
      ->required();
  const auto add_times = [&](const std::string& names, auto parse, const std::string& help) {
    return Add<std::vector<std::string>>(
               *command, names,
               [r, parse, names](const std::vector<std::string>& lists) {
                 for (const std::string& list : lists) {
                   const auto times = parse(list);
                   if (!times.ok()) throw CLI::ValidationError(names, std::string(times.status().message()));
                   r->add_schedules()->mutable_time_grid()->Assign(times->begin(), times->end());
                 }
               },
               help)
        ->allow_extra_args(false);
  };
  add_times("--times", ParseTimes,
            "K + 1 times from 0 (noise) to 1 (data), the last one may be left out: a list or a file; may be repeated, "
            "for each K");
  add_times("--sigmas", ParseSigmas,
            "K + 1 sigmas from 1 (noise) to 0 (data), the last one may be left out: a list or a file; may be repeated");
  AddParsed(
      *command, "--solver", ParseSolver, [r](boss::v1::Solver v) { r->set_solver(v); },
      "Solver that the times are for; default euler");
  Add<double>(
      *command, "-g,--guidance", [r](double v) { r->set_guidance_scale(v); },
      "Guidance scale that the times are for; default 1");
  AddFlag(
      *command, "--replace", [r] { r->set_replace(true); }, "Replace a set of this name");
  AddFlag(
      *command, "--validate-only", [r] { r->set_validate_only(true); }, "Check everything, store nothing");
  SetCommand(*command, context, [request](Context& context) {
    if (request->schedules().empty()) return context.FailUsage("--times or --sigmas is required");
    return Import(context, *request);
  });
}

void AddExport(CLI::App& schedules, Context& context) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command =
      schedules.add_subcommand("export", "Write a schedule in the form that another tool takes (docs/schedules.md)");
  command->add_option("model", arguments->model, "Version")->required();
  command->add_option("-k,--steps", arguments->steps, "K; may be left out if the set has one schedule");
  command->add_option("--name", arguments->name,
                      "A set by name; default: what the version was straightened or reflowed for, or what it was "
                      "searched for");
  command->add_option("-g,--guidance", arguments->guidance_scale, "Guidance scale")->capture_default_str();
  AddParsed(
      *command, "--solver", ParseSolver, [arguments](boss::v1::Solver v) { arguments->solver = v; },
      "euler (default), or multistep, with its coefficients; with --name the set's own");
  AddParsed(
      *command, "-f,--format", ParseExportFormat,
      [arguments](ExportFormat format) { arguments->options.format = format; },
      "json (default), diffusers, comfyui, sd-cpp or flow-matching");
  Add<double>(
      *command, "--shift", [arguments](double v) { arguments->options.shift = v; },
      "diffusers: for a scheduler of this static shift, which is undone beforehand");
  Add<double>(
      *command, "--mu", [arguments](double v) { arguments->options.mu = v; },
      "diffusers: for a scheduler that shifts dynamically by this mu, exponentially");
  command->add_option("-o,--out", arguments->out, "File to write; default: standard output");
  SetCommand(*command, context, [arguments](Context& context) { return Export(context, *arguments); });
}

}  // namespace

void AddExchangeCommands(CLI::App& schedules, Context& context) {
  AddImport(schedules, context);
  AddExport(schedules, context);

  auto request = std::make_shared<boss::v1::DeleteScheduleRequest>();
  boss::v1::DeleteScheduleRequest* r = request.get();
  CLI::App* remove = schedules.add_subcommand("delete", "Remove a schedule set of a version");
  Add<std::string>(
      *remove, "model", [r](const std::string& v) { r->set_model(v); }, "Version")
      ->required();
  Add<std::string>(
      *remove, "name", [r](const std::string& v) { r->set_name(v); }, "The set's name")
      ->required();
  SetCommand(*remove, context, [request](Context& context) {
    const absl::Status status = context.client().DeleteSchedule(*request);
    return status.ok() ? int{kExitOk} : context.Fail(status);
  });
}

}  // namespace boss::client
