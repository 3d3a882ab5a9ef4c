#include "server/rpc/status.h"

#include <google/protobuf/message.h>

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"

namespace boss::server {
namespace {

void AddDetail(const char* name, const google::protobuf::Message& detail, v1::Status& status) {
  google::protobuf::Any& any = *status.add_details();
  any.set_type_url(absl::StrCat("type.googleapis.com/google.rpc.", name));
  detail.SerializeToString(any.mutable_value());
}

std::optional<std::string> LeadingField(absl::string_view message) {
  const size_t colon = message.find(": ");
  if (colon == 0 || colon == absl::string_view::npos) return std::nullopt;
  const absl::string_view path = message.substr(0, colon);
  const bool is_path = std::all_of(path.begin(), path.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '.' || c == '[' || c == ']';
  });
  return is_path ? std::optional(std::string(path)) : std::nullopt;
}

}  // namespace

v1::Status ToProto(const absl::Status& status) {
  v1::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  proto.set_message(std::string(status.message()));
  if (status.ok()) return proto;

  v1::ErrorInfo info;
  info.set_reason(ReasonOf(status).value_or(absl::StatusCodeToString(status.code())));
  info.set_domain("boss");
  AddDetail("ErrorInfo", info, proto);

  std::optional<std::string> field = FieldOf(status);
  if (!field && absl::IsInvalidArgument(status)) field = LeadingField(status.message());
  if (field) {
    v1::BadRequest bad_request;
    v1::BadRequest::FieldViolation& violation = *bad_request.add_field_violations();
    violation.set_field(*field);
    violation.set_description(proto.message());
    AddDetail("BadRequest", bad_request, proto);
  }
  if (const std::optional<absl::Duration> delay = RetryDelayOf(status)) {
    v1::RetryInfo retry;
    absl::Duration rest;
    retry.mutable_retry_delay()->set_seconds(absl::IDivDuration(*delay, absl::Seconds(1), &rest));
    retry.mutable_retry_delay()->set_nanos(static_cast<int>(absl::ToInt64Nanoseconds(rest)));
    AddDetail("RetryInfo", retry, proto);
  }
  return proto;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      ToProto(status).SerializeAsString());
}

}  // namespace boss::server
