// The lines of a server's log: what they say of a call, and that nothing which clients send breaks them.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "client/boss_client.h"
#include "client/status.h"
#include "core/io/atomic_file.h"
#include "tests/integration/inference_fixture.h"

namespace boss::testing {
namespace {

using ::testing::Each;
using ::testing::MatchesRegex;

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kSpan = "b7ad6b7169203331";

class LogsTest : public BossdTest {
 protected:
  LogsTest() { log_ = folder_ / "bossd.log"; }

  // Every line; each must be a JSON object with the fields that all have.
  std::vector<nlohmann::json> Lines() {
    const absl::StatusOr<std::string> log = ReadFile(log_);
    EXPECT_TRUE(log.ok()) << log.status();
    std::vector<nlohmann::json> lines;
    std::istringstream text(*log);
    for (std::string line; std::getline(text, line);) {
      lines.push_back(nlohmann::json::parse(line));
      for (const char* key : {"time", "level", "message"}) EXPECT_TRUE(lines.back().contains(key)) << line;
    }
    return lines;
  }
  // The values of `key` in the lines with that message, in their order.
  std::vector<std::string> Values(const std::string& message, const std::string& key) {
    std::vector<std::string> values;
    for (const nlohmann::json& line : Lines()) {
      if (line.at("message") == message) values.push_back(line.value(key, ""));
    }
    return values;
  }
  // The request id that a call came back with; empty if there was not exactly one.
  static std::string RequestId(const grpc::ClientContext& context) {
    const auto& trailing = context.GetServerTrailingMetadata();
    if (trailing.count("x-request-id") != 1) return "";
    const grpc::string_ref value = trailing.find("x-request-id")->second;
    return std::string(value.data(), value.size());
  }
};

TEST_F(LogsTest, ACallsLinesCarryTheIdThatItCameBackWith) {
  Start({"--log-format=json", "--log-level=debug"});
  grpc::ClientContext named, unnamed, misnamed;
  named.AddMetadata("x-request-id", "order-66");
  named.AddMetadata("traceparent", "00-" + kTrace + "-" + kSpan + "-01");
  v1::GenerateResponse response;
  auto request = Request("images", 2, 2);
  request.set_request_id("mine");
  const auto stream = sampler_->Generate(&named, request);
  while (stream->Read(&response)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(RequestId(named), "order-66");

  // A call that fails, and one whose id and trace are no use.
  v1::GetModelRequest get;
  get.set_model("nothing");
  v1::Model model;
  EXPECT_EQ(models_->GetModel(&unnamed, get, &model).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(RequestId(unnamed), MatchesRegex("[0-9a-f]{32}"));
  misnamed.AddMetadata("x-request-id", "two words");
  misnamed.AddMetadata("traceparent", "00-" + kTrace + "-" + kSpan + "-0");
  get.set_model("images");
  EXPECT_TRUE(models_->GetModel(&misnamed, get, &model).ok());
  EXPECT_THAT(RequestId(misnamed), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(Stop(), 0);

  const std::vector<std::string> ids = {"order-66", RequestId(unnamed), RequestId(misnamed)};
  EXPECT_EQ(Values("call started", "request_id"), ids);
  EXPECT_EQ(Values("call ended", "request_id"), ids);
  EXPECT_EQ(Values("call ended", "code"), (std::vector<std::string>{"OK", "NOT_FOUND", "OK"}));
  EXPECT_EQ(Values("call ended", "trace_id"), (std::vector<std::string>{kTrace, "", ""}));
  EXPECT_EQ(Values("call ended", "span_id"), (std::vector<std::string>{kSpan, "", ""}));
  EXPECT_EQ(Values("generate", "request_id"), (std::vector<std::string>{"order-66"}));
  EXPECT_EQ(Values("generate", "trace_id"), (std::vector<std::string>{kTrace}));
  EXPECT_EQ(Values("generate", "client_request_id"), (std::vector<std::string>{"mine"}));
}

TEST_F(LogsTest, AJobRemembersTheCallThatSubmittedIt) {
  Start({"--log-format=json"});
  v1::OptimizeStepsizesJobRequest request;
  request.mutable_spec()->set_model("vectors");
  request.mutable_spec()->set_k_max(1000);
  request.mutable_spec()->set_num_samples(100000);
  grpc::ClientContext context, watch_context;
  context.AddMetadata("x-request-id", "order-66");
  context.AddMetadata("traceparent", "00-" + kTrace + "-" + kSpan + "-01");
  v1::Job job;
  ASSERT_TRUE(jobs_->OptimizeStepsizesJob(&context, request, &job).ok());
  EXPECT_EQ(RequestId(context), "order-66");
  v1::WatchJobRequest watch;
  watch.set_name(job.name());
  const auto events = jobs_->WatchJob(&watch_context, watch);
  v1::JobEvent event;
  do {
    ASSERT_TRUE(events->Read(&event));
  } while (event.state_change().to() != v1::Job::RUNNING);
  EXPECT_EQ(Stop(), 0);
  EXPECT_EQ(Values("job submitted", "request_id"), (std::vector<std::string>{"order-66"}));

  Start({"--log-format=json"});
  EXPECT_EQ(Stop(), 0);
  const std::vector<std::string> states = Values("job changed its state", "to");
  EXPECT_GE(states.size(), 2u);
  EXPECT_EQ(states[0], "RUNNING");
  EXPECT_EQ(states[1], "QUEUED");
  EXPECT_THAT(Values("job changed its state", "request_id"), Each("order-66"));
  EXPECT_THAT(Values("job changed its state", "trace_id"), Each(kTrace));
}

TEST_F(LogsTest, AnErrorOfTheClientLibraryNamesTheCall) {
  Start({"--log-format=json", "--log-level=debug"});
  client::ClientOptions options;
  options.address = server_->address();
  options.trace_parent = "00-" + kTrace + "-" + kSpan + "-01";
  const absl::Status status = client::Client(options).GetModel("nothing").status();
  EXPECT_EQ(Stop(), 0);
  const std::string id = client::RequestIdOf(status);
  EXPECT_EQ(Values("call ended", "request_id"), (std::vector<std::string>{id}));
  EXPECT_EQ(Values("call ended", "trace_id"), (std::vector<std::string>{kTrace}));
  EXPECT_THAT(client::DescribeStatus(status), ::testing::EndsWith("\n  request id " + id));
}

TEST_F(LogsTest, NothingThatAClientSendsMakesUpALine) {
  Start({"--log-format=json", "--log-level=debug"});
  const std::string hostile = "x\n{\"time\":\"now\",\"level\":\"error\",\"message\":\"forged\"}\n\xe2\x80\xa8\x7f\"";
  Generate(Request(hostile, 1, 2));
  v1::GenerateRequest request = Request("vectors", 1, 2);
  request.set_request_id(hostile);
  Generate(request);
  const auto inference = inference::GRPCInferenceService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  inference::ModelInferRequest infer = RawRequest("vectors");
  infer.set_id(hostile);
  inference::ModelInferResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(inference->ModelInfer(&context, infer, &response).ok());
  EXPECT_EQ(Stop(), 0);
  for (const nlohmann::json& line : Lines()) EXPECT_NE(line.at("message"), "forged");
  EXPECT_EQ(Values("infer", "client_request_id").size(), 1u);
}

}  // namespace
}  // namespace boss::testing
