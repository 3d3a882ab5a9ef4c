// The gRPC side of a server: its port, what it takes from clients at most, and what it says about its health.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "server/app/config.h"
#include "server/app/credentials.h"
#include "server/metrics/metrics.h"
#include "server/rpc/open_calls.h"

namespace boss::server {

class GrpcServer {
 public:
  // Listens at config.listen. `services`, `credentials`, `metrics` and `clock` outlive the server. \error UNAVAILABLE
  // if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerConfig& config,
                                                           const std::vector<grpc::Service*>& services,
                                                           const Credentials& credentials, Metrics& metrics,
                                                           const Clock& clock);

  int port() const { return port_; }
  // Readiness: health of the server as a whole and of each service. NOT_SERVING until it is first called.
  void SetServing(bool serving);
  // From now on health of "startup" is SERVING. That of "liveness" is from the beginning.
  void SetStarted();
  // Waits until every call's status is on its way, at most until `deadline` or Hurry(), though at least until `soon` for
  // it, and closes all connections.
  void Shutdown(absl::Time soon, absl::Time deadline);
  // Thread-safe.
  void Hurry() { open_calls_.StopWaiting(); }

 private:
  GrpcServer() = default;

  int port_ = 0;
  OpenCalls open_calls_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace boss::server
