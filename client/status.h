// From gRPC's status to absl::Status.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace boss::client {

// Same code and message. Details that the server attached (proto/boss/v1/errors.proto) become payloads under their type
// URLs.
absl::Status FromGrpcStatus(const grpc::Status& status);

// The other way, for servers in tests and gateways: payloads under type URLs become details.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The BadRequest details as "field: description"; empty if there are none.
std::vector<std::string> FieldViolations(const absl::Status& status);

// How long the server asks to wait before trying again, if it says so.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// The error with the id by which the server's log knows the call; unchanged if it is OK.
absl::Status WithRequestId(absl::Status status, absl::string_view id);
// Empty: it has none.
std::string RequestIdOf(const absl::Status& status);

// "NOT_FOUND: model nothing does not exist", with field violations, the retry delay and the request id on lines of
// their own.
std::string DescribeStatus(const absl::Status& status);

}  // namespace boss::client
