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

namespace boss::server {

class GrpcServer {
 public:
  // Listens at config.listen. `services`, `credentials`, `metrics` and `clock` outlive the server. \error UNAVAILABLE if
  // the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerConfig& config,
                                                           const std::vector<grpc::Service*>& services,
                                                           const Credentials& credentials, Metrics& metrics,
                                                           const Clock& clock);

  int port() const { return port_; }
  // Readiness: health of the server as a whole and of each service. NOT_SERVING until it is first called.
  void SetServing(bool serving);
  // From now on health of "startup" is SERVING. That of "liveness" is from the beginning.
  void SetStarted();
  // Takes no more calls and waits for open ones until `deadline`, when it cancels them.
  void Shutdown(absl::Time deadline) { server_->Shutdown(absl::ToChronoTime(deadline)); }

 private:
  GrpcServer() = default;

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace boss::server
