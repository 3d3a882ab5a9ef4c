// Unary calls whose work may block (disk, database) run on a pool, never on gRPC's threads.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "core/base/error_details.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/status.h"

namespace boss::server {

// Calls that may wait for a thread of the pool.
inline constexpr size_t kMaxWaitingCalls = 256;

// Runs `call`, an absl::Status(), on the pool and finishes the RPC with what it returns; RESOURCE_EXHAUSTED if too many
// calls wait. Request and response, which gRPC keeps until then, may be captured by pointer.
template <typename Call>
grpc::ServerUnaryReactor* RunUnaryCall(grpc::CallbackServerContext* context, ThreadPool& pool, Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool posted =
      pool.TryPost([reactor, call = std::move(call)] { reactor->Finish(ToGrpcStatus(call())); }, kMaxWaitingCalls);
  if (!posted) {
    reactor->Finish(ToGrpcStatus(
        WithRetryDelay(absl::ResourceExhaustedError("the server is busy: too many calls wait"), absl::Seconds(1))));
  }
  return reactor;
}

}  // namespace boss::server
