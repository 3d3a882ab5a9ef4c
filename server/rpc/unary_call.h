// How unary calls run: who calls is asked first, and work that may block (disk, database) goes to a pool, never to
// gRPC's threads.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/error_details.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/access.h"
#include "server/rpc/status.h"

namespace boss::server {

// Calls that may wait for a thread of the pool.
inline constexpr size_t kMaxWaitingCalls = 256;

// The unary calls of one service. Thread-safe.
class UnaryCalls {
 public:
  // `service`: "boss.v1.Jobs". What is passed as a reference outlives it.
  UnaryCalls(Access& access, ThreadPool& pool, absl::string_view service)
      : access_(access), pool_(pool), prefix_(absl::StrCat("/", service, "/")) {}

  // As Access::Admit; `method`: "GetJob".
  absl::StatusOr<Admission> Admit(const grpc::ServerContextBase& context, absl::string_view method) const {
    return access_.Admit(context, absl::StrCat(prefix_, method));
  }

  // Runs `call`, an absl::Status() or an absl::Status(const Principal&), on the pool and finishes the RPC with what it
  // returns; RESOURCE_EXHAUSTED if too many calls wait. Request and response, which gRPC keeps until then, may be
  // captured by pointer.
  template <typename Call>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, absl::string_view method, Call call) const {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::StatusOr<Admission> admission = Admit(*context, method);
    if (!admission.ok()) {
      reactor->Finish(ToGrpcStatus(admission.status()));
      return reactor;
    }
    const bool posted = pool_.TryPost(
        [reactor, admission = *std::move(admission), call = std::move(call)]() mutable {
          const absl::Status status = Invoke(call, admission.principal());
          admission.Leave();
          reactor->Finish(ToGrpcStatus(status));
        },
        kMaxWaitingCalls);
    if (!posted) {
      reactor->Finish(ToGrpcStatus(
          WithRetryDelay(absl::ResourceExhaustedError("the server is busy: too many calls wait"), absl::Seconds(1))));
    }
    return reactor;
  }

  // As Run, here and now: for calls that never block.
  template <typename Call>
  grpc::ServerUnaryReactor* RunHere(grpc::CallbackServerContext* context, absl::string_view method, Call call) const {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::StatusOr<Admission> admission = Admit(*context, method);
    absl::Status status = admission.status();
    if (admission.ok()) {
      status = Invoke(call, admission->principal());
      admission->Leave();
    }
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

 private:
  template <typename Call>
  static absl::Status Invoke(const Call& call, const Principal& principal) {
    if constexpr (std::is_invocable_v<const Call&, const Principal&>) {
      return call(principal);
    } else {
      return call();
    }
  }

  Access& access_;
  ThreadPool& pool_;
  const std::string prefix_;
};

}  // namespace boss::server
