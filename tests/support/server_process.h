// A real server in a process of its own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace boss::testing {

// Killed, if it still runs, when this goes away. Not thread-safe.
class ServerProcess {
 public:
  // Starts `binary` with `arguments`, --listen and --metrics-listen on free loopback ports, and --port-file in
  // `folder`, and waits until it is ready. \error if it ends instead: ABORTED by a signal, INTERNAL otherwise.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const std::string& binary, const std::string& folder,
                                                              std::vector<std::string> arguments);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  pid_t pid() const { return pid_; }
  int grpc_port() const { return grpc_port_; }
  int metrics_port() const { return metrics_port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(grpc_port_); }

  void Signal(int signal_number);
  // Waits for its end: the exit status, or minus the number of the signal that ended it.
  int WaitForExit();
  // The same, or nothing if it still runs after `timeout`.
  std::optional<int> WaitForExit(absl::Duration timeout);

 private:
  explicit ServerProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;  // 0: has ended
  int grpc_port_ = 0, metrics_port_ = 0;
};

}  // namespace boss::testing
