// The metadata by which calls are told apart in logs.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/string_ref.h>

#include <map>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/log/call_id.h"

namespace boss::server {

using ReceivedMetadata = std::multimap<grpc::string_ref, grpc::string_ref>;

inline constexpr char kRequestIdKey[] = "x-request-id";
inline constexpr char kTraceParentKey[] = "traceparent";

// The value of a key that is there once. The metadata outlives it.
std::optional<absl::string_view> OnlyValue(const ReceivedMetadata& metadata, const char* key);

// What of it can be used.
CallId CallIdOf(const ReceivedMetadata& metadata);
// Of a call that went through a recorder (server/rpc/call_recorder.h), which makes sure that there is a request id.
CallId CallIdOf(const grpc::ServerContextBase& context);

}  // namespace boss::server
