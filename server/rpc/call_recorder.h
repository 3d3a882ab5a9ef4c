// Counts and times every call of a server in one place.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <vector>

#include "core/base/clock.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// Interceptors that give each call's method, status code and duration to `metrics`, for grpc::ServerBuilder. Both
// outlive the server.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(Metrics& metrics,
                                                                                                  const Clock& clock);

}  // namespace boss::server
