// What every command of bossctl works with.
#pragma once

#include <google/protobuf/message.h>

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/boss_client.h"

namespace CLI {
class App;
}

namespace boss::client {

enum ExitCode : int {
  kExitOk = 0,
  kExitError = 1,         // an RPC or a file failed; the message has the code's name
  kExitUsage = 2,         // wrong command line
  kExitJobFailed = 3,     // a job that was waited for failed or was cancelled
  kExitNotServing = 4,    // health: the server answered, and it is not serving
  kExitInterrupted = 130  // SIGINT or SIGTERM
};

// Where output goes. Results go to `out`; progress and errors go to `err`.
struct Console {
  std::ostream& out;
  std::ostream& err;
  bool interactive = false;  // `err` is a terminal: progress bars that redraw themselves
  int width = 100;           // of the terminal, in characters
};

class Context {
 public:
  Context(Console console, std::function<void(Client*)> on_client)
      : console_(console), on_client_(std::move(on_client)) {}
  ~Context();

  std::ostream& out() { return console_.out; }
  std::ostream& err() { return console_.err; }
  const Console& console() const { return console_; }

  // Makes the client, from the flags. \error as of Client::Connect.
  absl::Status Connect();
  // \pre Connect() went well.
  Client& client() { return *client_; }

  // The message as one JSON document: whole, or on one line (for streams of them).
  void PrintJson(const google::protobuf::Message& message);
  void PrintJsonLine(const google::protobuf::Message& message);

  // Prints "bossctl: CODE: message" and returns the exit code.
  int Fail(const absl::Status& status);
  int FailUsage(absl::string_view message);

  // Flags of every command.
  std::string address = "127.0.0.1:50051";
  double timeout_s = 120;
  bool json = false;
  Credentials credentials;

  // Set by the command that the command line names; returns an ExitCode.
  std::function<int(Context&)> command;
  bool needs_server = true;  // Connect() before it

 private:
  Console console_;
  std::function<void(Client*)> on_client_;
  std::unique_ptr<Client> client_;
};

// Each adds the commands of one group to the command line. `context` outlives the parser.
void AddModelsCommands(CLI::App& app, Context& context);
void AddGenerateCommand(CLI::App& app, Context& context);
void AddJobsCommands(CLI::App& app, Context& context);
void AddSubmitCommands(CLI::App& jobs, Context& context);
void AddSchedulesCommands(CLI::App& app, Context& context);
void AddServerCommands(CLI::App& app, Context& context);
void AddReportCommand(CLI::App& app, Context& context);
void AddTokensCommands(CLI::App& app, Context& context);

}  // namespace boss::client
