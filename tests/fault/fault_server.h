// The process that is killed, and calls that tell a server that has gone from one that refuses.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "tests/support/server_process.h"

namespace boss::testing {

// What a client knows after a call.
enum class Outcome {
  kDone,     // acknowledged
  kRefused,  // nothing was done
  kUnknown,  // the server went away, before or after it did what was asked
};
Outcome OutcomeOf(const grpc::Status& status);

// A call that takes so long hangs.
inline constexpr std::chrono::seconds kCallTimeout{600};

struct Connection {
  std::unique_ptr<v1::Jobs::Stub> jobs;
  std::unique_ptr<v1::Models::Stub> models;

  // Calls a method of one of the stubs, e.g. Call(*jobs, &v1::Jobs::Stub::GetJob, request, job).
  template <typename Stub, typename Request, typename Response>
  static grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                           const Request& request, Response& response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    return (stub.*method)(&context, request, &response);
  }
};

// Not thread-safe. Kills what it has started when it goes away.
class FaultServer {
 public:
  // `binary`: bossd_fault. `folder` holds the data folder, "data", and belongs to the server.
  FaultServer(std::string binary, std::string folder, std::vector<std::string> arguments);

  // Starts a process with this plan (see FaultPlan::Parse). \error ABORTED if it was killed before it was ready;
  // INTERNAL if it ended otherwise.
  absl::Status Start(const std::string& plan);
  void Arm();
  // Waits until it ends by itself: minus the signal or its exit status.
  std::optional<int> WaitForEnd(absl::Duration timeout);
  void Kill();
  // SIGTERM, and the exit status.
  int Stop();

  bool running() const { return process_ != nullptr; }
  Connection& connection() { return connection_; }
  const std::string& folder() const { return folder_; }

 private:
  const std::string binary_, folder_;
  const std::vector<std::string> arguments_;
  std::unique_ptr<ServerProcess> process_;
  Connection connection_;
};

}  // namespace boss::testing
