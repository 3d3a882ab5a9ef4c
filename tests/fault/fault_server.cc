#include "tests/fault/fault_server.h"

#include <signal.h>
#include <stdlib.h>

#include <utility>

namespace boss::testing {

Outcome OutcomeOf(const grpc::Status& status) {
  if (status.ok()) return Outcome::kDone;
  const grpc::StatusCode code = status.error_code();
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::CANCELLED ? Outcome::kUnknown
                                                                                      : Outcome::kRefused;
}

FaultServer::FaultServer(std::string binary, std::string folder, std::vector<std::string> arguments)
    : binary_(std::move(binary)), folder_(std::move(folder)), arguments_([&] {
        arguments.push_back("--data=" + folder_ + "/data");
        return std::move(arguments);
      }()) {}

absl::Status FaultServer::Start(const std::string& plan) {
  process_.reset();
  ::setenv("BOSS_FAULT", plan.c_str(), /*overwrite=*/1);
  absl::StatusOr<std::unique_ptr<ServerProcess>> process = ServerProcess::Start(binary_, folder_, arguments_);
  ::unsetenv("BOSS_FAULT");
  if (!process.ok()) return process.status();
  process_ = *std::move(process);
  const auto channel = grpc::CreateChannel(process_->address(), grpc::InsecureChannelCredentials());
  connection_ = {v1::Jobs::NewStub(channel), v1::Models::NewStub(channel)};
  return absl::OkStatus();
}

void FaultServer::Arm() { process_->Signal(SIGUSR1); }

std::optional<int> FaultServer::WaitForEnd(absl::Duration timeout) {
  const std::optional<int> end = process_->WaitForExit(timeout);
  if (end) process_.reset();
  return end;
}

void FaultServer::Kill() { process_.reset(); }

int FaultServer::Stop() {
  process_->Signal(SIGTERM);
  const int exit_status = process_->WaitForExit();
  process_.reset();
  return exit_status;
}

}  // namespace boss::testing
