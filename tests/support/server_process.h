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

// Free ones where they are 0.
struct ServerPorts {
  int grpc = 0, metrics = 0;
};

// Killed, if it still runs, when this goes away. Not thread-safe.
class ServerProcess {
 public:
  // Starts `binary` with `arguments`, --listen and --metrics-listen on loopback, and --port-file in `folder`, and waits
  // until it is ready. Without --drain-seconds among the arguments it does not drain. `log`: as of Launch. \error if it
  // ends instead: ABORTED by a signal, INTERNAL otherwise.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const std::string& binary, const std::string& folder,
                                                              std::vector<std::string> arguments,
                                                              ServerPorts ports = {}, const std::string& log = "");
  // Starts it with these arguments alone and does not wait; its ports are not known. `log`: file for its standard
  // error; empty: this process's.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Launch(const std::string& binary,
                                                               const std::vector<std::string>& arguments,
                                                               const std::string& log = "");
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
