#include "client/status.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boss/v1/errors.pb.h"

namespace boss::client {
namespace {

constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";
constexpr char kRequestIdPayload[] = "boss.client/request-id";  // of the client's own: the text itself

template <typename Message>
std::optional<Message> Payload(const absl::Status& status, const char* type_url) {
  const auto payload = status.GetPayload(type_url);
  Message message;
  if (!payload || !message.ParseFromString(std::string(*payload))) return std::nullopt;
  return message;
}

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // Both enums number the canonical codes alike.
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  boss::v1::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& detail : details.details()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  boss::v1::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    if (type_url == kRequestIdPayload) return;
    auto* detail = details.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(payload));
  });
  const std::string serialized = details.details().empty() ? std::string() : details.SerializeAsString();
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()), serialized);
}

std::vector<std::string> FieldViolations(const absl::Status& status) {
  std::vector<std::string> lines;
  if (const auto bad_request = Payload<boss::v1::BadRequest>(status, kBadRequestUrl)) {
    for (const auto& violation : bad_request->field_violations()) {
      lines.push_back(absl::StrCat(violation.field(), ": ", violation.description()));
    }
  }
  return lines;
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto retry = Payload<boss::v1::RetryInfo>(status, kRetryInfoUrl);
  if (!retry || !retry->has_retry_delay()) return std::nullopt;
  return absl::Seconds(retry->retry_delay().seconds()) + absl::Nanoseconds(retry->retry_delay().nanos());
}

absl::Status WithRequestId(absl::Status status, absl::string_view id) {
  if (!status.ok()) status.SetPayload(kRequestIdPayload, absl::Cord(id));
  return status;
}

std::string RequestIdOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRequestIdPayload);
  return payload ? std::string(*payload) : std::string();
}

std::string DescribeStatus(const absl::Status& status) {
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
  for (const std::string& line : FieldViolations(status)) {
    // Servers often say the same in the message; then it is not repeated.
    const absl::string_view description = absl::string_view(line).substr(line.find(": ") + 2);
    if (!absl::StrContains(status.message(), description)) absl::StrAppend(&text, "\n  ", line);
  }
  if (const auto delay = RetryDelay(status)) absl::StrAppend(&text, "\n  try again in ", absl::FormatDuration(*delay));
  if (const std::string id = RequestIdOf(status); !id.empty()) absl::StrAppend(&text, "\n  request id ", id);
  return text;
}

}  // namespace boss::client
