#include "server/rpc/status.h"

#include <gtest/gtest.h>

#include "core/base/error_details.h"

namespace boss::server {
namespace {

// The detail of that name in a serialised boss.v1.Status; a default one if there is none.
template <typename Detail>
Detail DetailOf(const grpc::Status& status, const std::string& name) {
  v1::Status proto;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  Detail detail;
  for (const auto& any : proto.details()) {
    if (any.type_url() != "type.googleapis.com/google.rpc." + name) continue;
    EXPECT_TRUE(detail.ParseFromString(any.value()));
  }
  return detail;
}

TEST(StatusTest, OkIsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToProto(absl::OkStatus()).details_size(), 0);
}

TEST(StatusTest, AFieldErrorNamesItsField) {
  const grpc::Status status = ToGrpcStatus(FieldError("steps", "must be positive, got 0"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "steps: must be positive, got 0");
  const auto bad_request = DetailOf<v1::BadRequest>(status, "BadRequest");
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), "steps");
  EXPECT_EQ(DetailOf<v1::ErrorInfo>(status, "ErrorInfo").reason(), "INVALID_ARGUMENT");
  EXPECT_EQ(DetailOf<v1::ErrorInfo>(status, "ErrorInfo").domain(), "boss");
}

TEST(StatusTest, AMessageThatBeginsWithAPathNamesTheField) {
  const auto field_of = [](const absl::Status& status) {
    const auto bad_request = DetailOf<v1::BadRequest>(ToGrpcStatus(status), "BadRequest");
    return bad_request.field_violations_size() == 0 ? "" : bad_request.field_violations(0).field();
  };
  EXPECT_EQ(field_of(absl::InvalidArgumentError("spec.training.batch_size: must be positive")),
            "spec.training.batch_size");
  EXPECT_EQ(field_of(absl::InvalidArgumentError("what went wrong: everything")), "");
  EXPECT_EQ(field_of(absl::InvalidArgumentError("no colon")), "");
  EXPECT_EQ(field_of(absl::NotFoundError("spec.model: nothing")), "");
}

TEST(StatusTest, RetryDelaysAndReasonsTravel) {
  const grpc::Status status = ToGrpcStatus(
      WithReason(WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(2500)), "QUEUE_FULL"));
  const auto retry = DetailOf<v1::RetryInfo>(status, "RetryInfo");
  EXPECT_EQ(retry.retry_delay().seconds(), 2);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
  EXPECT_EQ(DetailOf<v1::ErrorInfo>(status, "ErrorInfo").reason(), "QUEUE_FULL");
}

}  // namespace
}  // namespace boss::server
