#include "client/cli/context.h"

#include <google/protobuf/util/json_util.h>

#include <cstdlib>
#include <ostream>

#include "client/status.h"

namespace boss::client {
namespace {

std::string ToJson(const google::protobuf::Message& message, bool whitespace) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = whitespace;
  options.always_print_primitive_fields = true;
  std::string text;
  // Fails only for an Any of an unknown type; these come as an empty document.
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) text = "{}";
  return text;
}

}  // namespace

Context::~Context() {
  if (client_ != nullptr) on_client_(nullptr);
}

absl::Status Context::Connect() {
  ClientOptions options;
  options.address = address;
  options.timeout = timeout_s > 0 ? absl::Seconds(timeout_s) : absl::InfiniteDuration();
  if (const char* const trace = std::getenv("TRACEPARENT")) options.trace_parent = trace;
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(std::move(options), credentials);
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  on_client_(client_.get());
  return absl::OkStatus();
}

void Context::PrintJson(const google::protobuf::Message& message) { out() << ToJson(message, /*whitespace=*/true); }

void Context::PrintJsonLine(const google::protobuf::Message& message) {
  out() << ToJson(message, /*whitespace=*/false) << std::endl;
}

int Context::Fail(const absl::Status& status) {
  if (client_ != nullptr && client_->cancelled()) {
    err() << "bossctl: interrupted\n";
    return kExitInterrupted;
  }
  err() << "bossctl: " << DescribeStatus(status) << "\n";
  return kExitError;
}

int Context::FailUsage(absl::string_view message) {
  err() << "bossctl: " << message << "\nRun with --help for more information.\n";
  return kExitUsage;
}

}  // namespace boss::client
