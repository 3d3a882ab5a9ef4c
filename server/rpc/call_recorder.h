// Names, counts, times and logs every call of a server in one place.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "server/metrics/metrics.h"
#include "server/rpc/open_calls.h"

namespace boss::server {

// Interceptors for grpc::ServerBuilder that
// - give each call's method, status code and duration to `metrics`, and count in `open` those of `services` whose
// status
//   is not on its way yet;
// - make its request id what the client sent as x-request-id, if that is one IsRequestId() value, and a new one
//   otherwise, and return it in the trailing metadata; drop a traceparent that is malformed;
// - log it: its start at debug, its end at debug, at info if it changes what the server holds, and at error if the
//   server itself failed.
// What is passed as a reference outlives the server. A method that is neither of `services` (full names; they are
// linked in) nor of gRPC's own health and reflection is "other": clients make up any number of them.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(
    Metrics& metrics, const Clock& clock, OpenCalls& open, const std::vector<std::string>& services);

}  // namespace boss::server
