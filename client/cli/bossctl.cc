#include "client/cli/bossctl.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <utility>

namespace boss::client {
namespace {

constexpr char kFooter[] =
    "A model is NAME, NAME@VERSION or NAME@ALIAS.\n"
    "\n"
    "Exit codes:\n"
    "  0    done\n"
    "  1    an RPC or a file failed; the message starts with the code's name\n"
    "  2    wrong command line\n"
    "  3    a job that was waited for failed or was cancelled\n"
    "  4    health: the server is not serving\n"
    "  130  interrupted; a job that was followed goes on\n"
    "\n"
    "Environment: BOSS_ADDRESS is the default of --address.";

}  // namespace

int RunBossctl(const std::vector<std::string>& arguments, Console console, std::function<void(Client*)> on_client) {
  Context context(console, std::move(on_client));
  CLI::App app("Talks to a bossd server: samples, jobs, models, schedules.", "bossctl");
  app.footer(kFooter);
  app.require_subcommand(0, 1);  // none at all is noticed below, after unknown words were
  app.fallthrough();
  app.add_option("-a,--address", context.address, "HOST:PORT of the server")
      ->envname("BOSS_ADDRESS")
      ->capture_default_str();
  app.add_option("--timeout", context.timeout_s, "Seconds before a unary call is given up; 0 is never")
      ->capture_default_str();
  app.add_flag("--json", context.json, "Print JSON for programs instead of tables for people");
  AddGenerateCommand(app, context);
  AddJobsCommands(app, context);
  AddModelsCommands(app, context);
  AddSchedulesCommands(app, context);
  AddReportCommand(app, context);
  AddServerCommands(app, context);

  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // the order that CLI11 wants
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, console.out, console.err);
    return code == 0 ? kExitOk : kExitUsage;
  }
  if (!context.command) return context.FailUsage("a subcommand is required");
  return context.command(context);
}

}  // namespace boss::client
