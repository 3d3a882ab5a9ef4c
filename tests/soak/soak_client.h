// What the clients of a soak run share.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/strings/string_view.h"
#include "client/boss_client.h"
#include "tests/soak/traffic.h"

namespace boss::testing {

// A connection of its own, which looks for the server again as soon as it may be back.
inline std::shared_ptr<grpc::Channel> SoakChannel(const SoakServer& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10000);  // what an attempt to connect may take at least
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  return grpc::CreateCustomChannel(server.address(), grpc::InsecureChannelCredentials(), arguments);
}

inline client::ClientOptions SoakClientOptions() {
  client::ClientOptions options;
  options.retry.max_attempts = 8;
  options.retry.max_resumptions = 100;
  return options;
}

// `epoch`: of the server, when the call began. Expected is UNAVAILABLE from a server that was ended meanwhile, and what
// `may_fail` says.
inline void CountCall(const SoakRun& run, absl::string_view kind, int64_t epoch, const absl::Status& status,
                      bool may_fail = false) {
  run.ledger.Count(kind, status, may_fail || (absl::IsUnavailable(status) && run.server.WasDisturbed(epoch)));
}

}  // namespace boss::testing
