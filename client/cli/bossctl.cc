#include "client/cli/bossctl.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
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
    "Environment: BOSS_ADDRESS is the default of --address, BOSS_TLS_CA, BOSS_TLS_CERTIFICATE, BOSS_TLS_KEY and\n"
    "BOSS_TLS_SERVER_NAME of the flags of that name, BOSS_TOKEN_FILE of --token-file. BOSS_TOKEN is a token\n"
    "itself, used where no file is given; no flag takes one, because everybody on a machine sees command lines.\n"
    "TRACEPARENT is sent along with every call, for the server's logs.";

void AddSecurityFlags(CLI::App& app, Credentials& credentials) {
  app.add_flag("--tls", credentials.tls, "Talk TLS; also turned on by the flags that need it")->group("Security");
  app.add_option("--tls-ca", credentials.ca_file,
                 "PEM file of the CA of the server's certificate; default: the system's")
      ->envname("BOSS_TLS_CA")
      ->group("Security");
  app.add_option("--tls-certificate", credentials.certificate_file, "PEM file of a certificate to show (mutual TLS)")
      ->envname("BOSS_TLS_CERTIFICATE")
      ->group("Security");
  app.add_option("--tls-key", credentials.key_file, "PEM file of its key")
      ->envname("BOSS_TLS_KEY")
      ->group("Security");
  app.add_option("--tls-server-name", credentials.server_name,
                 "Name that the server's certificate must have; default: the address's")
      ->envname("BOSS_TLS_SERVER_NAME")
      ->group("Security");
  app.add_option("--token-file", credentials.token_file, "File with the token to send; read again for each call")
      ->envname("BOSS_TOKEN_FILE")
      ->group("Security");
  app.add_flag("--allow-insecure-token", credentials.allow_insecure_token,
               "Send the token without TLS to other machines too, where all between can read it")
      ->group("Security");
}

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
  AddSecurityFlags(app, context.credentials);
  app.add_flag("--json", context.json, "Print JSON for programs instead of tables for people");
  AddGenerateCommand(app, context);
  AddJobsCommands(app, context);
  AddModelsCommands(app, context);
  AddSchedulesCommands(app, context);
  AddReportCommand(app, context);
  AddServerCommands(app, context);
  AddTokensCommands(app, context);

  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // the order that CLI11 wants
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, console.out, console.err);
    return code == 0 ? kExitOk : kExitUsage;
  }
  if (!context.command) return context.FailUsage("a subcommand is required");
  if (context.needs_server) {
    const char* const token = std::getenv("BOSS_TOKEN");
    if (token != nullptr && context.credentials.token_file.empty()) context.credentials.token = token;
    if (const absl::Status status = context.Connect(); !status.ok()) return context.Fail(status);
  }
  return context.command(context);
}

}  // namespace boss::client
