// Counts and times every call of a server in one place.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// Interceptors that give each call's method, status code and duration to `metrics`, for grpc::ServerBuilder. Both
// outlive the server. A method that is neither of `services` (full names; they are linked in) nor of gRPC's own health
// and reflection is "other": clients make up any number of them.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(
    Metrics& metrics, const Clock& clock, const std::vector<std::string>& services);

}  // namespace boss::server
