// A streaming call that ends before it begins.
#pragma once

#include "absl/status/status.h"
#include "server/rpc/status.h"

namespace boss::server {

// `Reactor`: what the service's method returns, e.g. grpc::ServerWriteReactor<Response>. Deletes itself.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  // \pre !status.ok().
  explicit Refusal(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace boss::server
