// What one client may ask of a server, and what it is told where that is too much.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "tests/integration/inference_fixture.h"
#include "tests/support/idx_file.h"

namespace boss::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr uint8_t kSettings = 4, kPing = 6, kGoAway = 7;
constexpr uint32_t kEnhanceYourCalm = 0xb;

// A frame of HTTP/2 on stream 0.
std::string Frame(uint8_t type, const std::string& payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  std::string frame = {static_cast<char>(size >> 16),
                       static_cast<char>(size >> 8),
                       static_cast<char>(size),
                       static_cast<char>(type),
                       '\0',
                       '\0',
                       '\0',
                       '\0',
                       '\0'};
  return frame + payload;
}

// Sends `bytes` behind the preface of a connection, and reads until the server says GOAWAY. Returns its error code;
// nothing if the connection ends without one.
std::optional<uint32_t> GoAwayAfter(int port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const absl::Cleanup close_socket = [&] { close(fd); };
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return std::nullopt;
  const std::string request = kPreface + Frame(kSettings, "") + bytes;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) < 0) return std::nullopt;
  const auto receive = [&](size_t size) {
    std::string received(size, '\0');
    const ssize_t count = size == 0 ? 0 : recv(fd, received.data(), size, MSG_WAITALL);
    return count == static_cast<ssize_t>(size) ? std::optional(received) : std::nullopt;
  };
  while (const auto header = receive(9)) {
    const auto byte = [&](const std::string& text, size_t i) {
      return static_cast<uint32_t>(static_cast<uint8_t>(text[i]));
    };
    const auto payload = receive(byte(*header, 0) << 16 | byte(*header, 1) << 8 | byte(*header, 2));
    if (!payload) return std::nullopt;
    if (byte(*header, 3) != kGoAway) continue;
    return byte(*payload, 4) << 24 | byte(*payload, 5) << 16 | byte(*payload, 6) << 8 | byte(*payload, 7);
  }
  return std::nullopt;
}

class LimitsTest : public BossdTest {};

TEST_F(LimitsTest, ARequestHasSoManyPixels) {
  Start({"--max-pixels-per-request=256"});  // four pictures of 8 x 8
  EXPECT_TRUE(Generate(Request("images", 4, 2)).status.ok());
  const grpc::Status status = Generate(Request("images", 5, 2)).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(status), "num_samples");
  EXPECT_THAT(status.error_message(), HasSubstr("at most 4 for samples of 64 pixels each"));
  EXPECT_TRUE(Generate(Request("vectors", 128, 2)).status.ok());  // of two values
  EXPECT_EQ(Generate(Request("vectors", 129, 2)).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LimitsTest, ARequestHasSoMuchTime) {
  Start({"--max-request-seconds=0.1"});
  const grpc::Status generated = Generate(Request("images", 4096, 1000)).status;
  EXPECT_EQ(generated.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(generated.error_message(), HasSubstr("the server gives a request 100ms"));

  const auto inference = inference::GRPCInferenceService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  inference::ModelInferRequest request;
  request.set_model_name("images");
  AddRaw<int32_t>(request, "steps", "INT32", {1}, {1000});
  AddRaw<int32_t>(request, "num_samples", "INT32", {1}, {4096});
  inference::ModelInferResponse response;
  grpc::ClientContext context;
  const grpc::Status inferred = inference->ModelInfer(&context, request, &response);
  EXPECT_EQ(inferred.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << inferred.error_message();
  EXPECT_THAT(inferred.error_message(), HasSubstr("the server gives a request 100ms"));
}

TEST_F(LimitsTest, CapabilitiesTellThem) {
  Start({"--max-pixels-per-request=256", "--max-request-seconds=7", "--max-streams-per-connection=3"});
  grpc::ClientContext context;
  v1::Capabilities capabilities;
  ASSERT_TRUE(models_->GetCapabilities(&context, {}, &capabilities).ok());
  EXPECT_EQ(capabilities.limits().max_pixels_per_request(), 256);
  EXPECT_EQ(capabilities.limits().max_request_time().seconds(), 7);
  EXPECT_EQ(capabilities.limits().max_streams_per_connection(), 3);
}

TEST_F(LimitsTest, ACallHasSoMuchMetadata) {
  Start({"--max-metadata-bytes=2048"});
  const auto get = [&](size_t bytes) {
    grpc::ClientContext context;
    context.AddMetadata("note", std::string(bytes, 'x'));
    v1::GetModelRequest request;
    request.set_model("images");
    v1::Model model;
    return models_->GetModel(&context, request, &model).error_code();
  };
  EXPECT_EQ(get(1000), grpc::StatusCode::OK);
  EXPECT_EQ(get(4000), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // gRPC may have closed the connection, which is made again.
  grpc::StatusCode code;
  while ((code = get(1000)) == grpc::StatusCode::UNAVAILABLE) {
  }
  EXPECT_EQ(code, grpc::StatusCode::OK);
}

TEST_F(LimitsTest, AConnectionHasSoManyCalls) {
  Start({"--max-streams-per-connection=1"});
  grpc::ClientContext first_context, second_context;
  const auto first = sampler_->Generate(&first_context, Request("images", 4096, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(first->Read(&response));
  // The second call waits in the client, where its deadline finds it.
  second_context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  v1::GetModelRequest request;
  request.set_model("images");
  v1::Model model;
  EXPECT_EQ(models_->GetModel(&second_context, request, &model).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  first_context.TryCancel();
  while (first->Read(&response)) {
  }
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::CANCELLED);
  grpc::ClientContext third_context;
  EXPECT_TRUE(models_->GetModel(&third_context, request, &model).ok());
}

TEST_F(LimitsTest, WhoPingsTooOftenIsDisconnected) {
  Start();
  std::string pings;
  for (int i = 0; i < 8; ++i) pings += Frame(kPing, "12345678");
  EXPECT_EQ(GoAwayAfter(server_->grpc_port(), pings), kEnhanceYourCalm);
}

TEST_F(LimitsTest, AConnectionWithoutCallsIsClosed) {
  Start({"--max-connection-idle-seconds=1"});
  EXPECT_TRUE(GoAwayAfter(server_->grpc_port(), "").has_value());
  EXPECT_EQ(Generate(Request("vectors", 1, 2)).status.error_code(), grpc::StatusCode::OK);
}

TEST_F(LimitsTest, AConnectionOfSomeAgeTakesNoNewCallsAndEndsNone) {
  Start({"--max-connection-age-seconds=1"});
  // A call that stays open, so that the server does not close the connection with the end of the other one.
  grpc::ClientContext watch_context, context;
  const auto watch = health_->Watch(&watch_context, {});
  grpc::health::v1::HealthCheckResponse health;
  ASSERT_TRUE(watch->Read(&health));
  const auto stream = sampler_->Generate(&context, Request("images", 128, 400));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(GoAwayAfter(server_->grpc_port(), "").has_value());
  while (stream->Read(&response)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
  watch_context.TryCancel();
  while (watch->Read(&health)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(LimitsTest, ConditionsThatDoNotFitIntoMemoryAreRefused) {
  constexpr int64_t kValues = 2 << 20;  // 8 MiB
  Start({"--max-host-memory-bytes=1048576"});
  const auto deadline = std::chrono::system_clock::now() + std::chrono::minutes(1);
  v1::GenerateRequest request = Request("vectors", 1, 2);
  v1::Tensor& tensor = (*request.mutable_conditions())["large"];
  tensor.set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
  tensor.add_shape(kValues);
  tensor.set_data(std::string(kValues * sizeof(float), '\0'));
  grpc::ClientContext context;
  context.set_deadline(deadline);
  const auto stream = sampler_->Generate(&context, request);
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
  }
  const grpc::Status generated = stream->Finish();
  EXPECT_EQ(generated.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << generated.error_message();
  EXPECT_THAT(generated.error_message(), HasSubstr("--max-host-memory-bytes"));

  const auto inference = inference::GRPCInferenceService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  inference::ModelInferRequest infer;
  infer.set_model_name("vectors");
  AddRaw<float>(infer, "conditions.large", "FP32", {kValues}, std::vector<float>(kValues));
  grpc::ClientContext infer_context, stream_context;
  infer_context.set_deadline(deadline);
  stream_context.set_deadline(deadline);
  inference::ModelInferResponse answer;
  EXPECT_EQ(inference->ModelInfer(&infer_context, infer, &answer).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto infer_stream = inference->ModelStreamInfer(&stream_context);
  infer_stream->Write(infer);
  inference::ModelStreamInferResponse streamed;
  ASSERT_TRUE(infer_stream->Read(&streamed));
  EXPECT_THAT(streamed.error_message(), HasSubstr("RESOURCE_EXHAUSTED"));
  infer_stream->WritesDone();
  EXPECT_TRUE(infer_stream->Finish().ok());

  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
  EXPECT_EQ(Stop(), 0);
}

TEST_F(LimitsTest, ATrainStepThatDoesNotFitIntoMemoryFailsItsJobAlone) {
  std::filesystem::create_directories(folder_ / "sets");
  WriteIdx(folder_ / "sets/points", {16, 1, 2}, std::vector<uint8_t>(32, 7));
  Start({"--max-host-memory-bytes=268435456", "--dataset-folder=" + (folder_ / "sets")});
  v1::TrainJobRequest request;
  v1::TrainSpec& spec = *request.mutable_spec();
  spec.set_dataset("idx:" + (folder_ / "sets/points"));
  spec.set_architecture_json(R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 1024, "layers": 2}})");
  spec.set_output_model("trained");
  spec.mutable_training()->set_train_steps(1);
  const auto last_state = [&](int64_t batch_size) {
    spec.mutable_training()->set_batch_size(batch_size);
    grpc::ClientContext context;
    v1::Job job;
    grpc::Status status = jobs_->TrainJob(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    const std::vector<v1::JobEvent> events = Watch(job.name(), 0, status);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return events.back();
  };
  const v1::JobEvent failed = last_state(65536);  // 256 MiB for what the hidden layer yields
  EXPECT_EQ(failed.state_change().to(), v1::Job::FAILED) << failed.DebugString();
  EXPECT_EQ(failed.state_change().error().code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  EXPECT_THAT(failed.state_change().error().message(),
              AllOf(HasSubstr("training.batch_size: got 65536"), HasSubstr("--max-host-memory-bytes")));
  EXPECT_TRUE(Generate(Request("vectors", 4, 2)).status.ok());
  EXPECT_EQ(last_state(16).state_change().to(), v1::Job::SUCCEEDED);
  EXPECT_EQ(Stop(), 0);
}

}  // namespace
}  // namespace boss::testing
