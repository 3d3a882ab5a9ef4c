// From absl::Status to what a client receives.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "boss/v1/errors.pb.h"

namespace boss::server {

// Code, message and details (core/base/error_details.h) as boss.v1.Status. Every error has an ErrorInfo; its reason is
// the code's name where the error names none. An INVALID_ARGUMENT whose message begins with a field's path
// ("spec.steps: ...") has that field in BadRequest.
v1::Status ToProto(const absl::Status& status);

// The same, with the details in "grpc-status-details-bin".
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace boss::server
