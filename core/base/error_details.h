// What a program needs to know about an error beyond its code and message. Details travel as payloads of the
// absl::Status; the RPC layer sends them to the client.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace boss {

// INVALID_ARGUMENT about one field of a request, e.g. FieldError("steps", "must be in [1, 100], got 0"). The message is
// "<field>: <description>".
absl::Status FieldError(absl::string_view field, absl::string_view description);

// UNIMPLEMENTED: `field` is part of the contract, but not served here.
absl::Status UnservedField(absl::string_view field, absl::string_view description);

// `status` with the path of the field that it is about / with a stable UPPER_SNAKE_CASE reason / with the time after
// which to try again. \pre !status.ok().
absl::Status WithField(absl::Status status, absl::string_view field);
absl::Status WithReason(absl::Status status, absl::string_view reason);
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

std::optional<std::string> FieldOf(const absl::Status& status);
std::optional<std::string> ReasonOf(const absl::Status& status);
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace boss
