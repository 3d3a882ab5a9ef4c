#include "core/base/error_details.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace boss {
namespace {

// Keys of the payloads; they never leave the process.
constexpr char kField[] = "boss.field";
constexpr char kReason[] = "boss.reason";
constexpr char kRetryNanoseconds[] = "boss.retry_nanoseconds";

std::optional<std::string> Payload(const absl::Status& status, absl::string_view key) {
  const auto payload = status.GetPayload(key);
  if (!payload) return std::nullopt;
  return std::string(*payload);
}

absl::Status WithPayload(absl::Status status, absl::string_view key, absl::string_view value) {
  status.SetPayload(key, absl::Cord(value));
  return status;
}

}  // namespace

absl::Status FieldError(absl::string_view field, absl::string_view description) {
  return WithField(absl::InvalidArgumentError(absl::StrCat(field, ": ", description)), field);
}

absl::Status UnservedField(absl::string_view field, absl::string_view description) {
  return WithField(absl::UnimplementedError(absl::StrCat(field, ": ", description)), field);
}

absl::Status WithField(absl::Status status, absl::string_view field) {
  return WithPayload(std::move(status), kField, field);
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  return WithPayload(std::move(status), kReason, reason);
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  return WithPayload(std::move(status), kRetryNanoseconds, absl::StrCat(absl::ToInt64Nanoseconds(delay)));
}

std::optional<std::string> FieldOf(const absl::Status& status) { return Payload(status, kField); }

std::optional<std::string> ReasonOf(const absl::Status& status) { return Payload(status, kReason); }

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  const std::optional<std::string> text = Payload(status, kRetryNanoseconds);
  int64_t nanoseconds = 0;
  if (!text || !absl::SimpleAtoi(*text, &nanoseconds)) return std::nullopt;
  return absl::Nanoseconds(nanoseconds);
}

}  // namespace boss
