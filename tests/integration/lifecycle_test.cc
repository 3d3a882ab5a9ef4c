// What a server does between its start and its end, as docs/lifecycle.md says.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "client/boss_client.h"
#include "core/io/atomic_file.h"
#include "inference/grpc_service.grpc.pb.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/http_get.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;
using Health = grpc::health::v1::HealthCheckResponse;

bool HasRetryInfo(const grpc::Status& status) {
  v1::Status details;
  details.ParseFromString(status.error_details());
  return std::any_of(details.details().begin(), details.details().end(),
                     [](const auto& any) { return any.type_url() == "type.googleapis.com/google.rpc.RetryInfo"; });
}

class LifecycleTest : public BossdTest {
 protected:
  LifecycleTest() { log_ = folder_ / "bossd.log"; }

  // Until health of `service` is `status`.
  void WaitForHealth(const std::string& service, Health::ServingStatus status) {
    while (this->Health(service) != status) std::this_thread::yield();
  }
  bool LogHas(const std::string& text) {
    const absl::StatusOr<std::string> log = ReadFile(log_);
    return log.ok() && log->find(text) != std::string::npos;
  }
  grpc::Status GetModel(const std::string& model) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(model);
    v1::Model response;
    return models_->GetModel(&context, request, &response);
  }
  // An import that the server has begun and that waits for its file.
  std::unique_ptr<grpc::ClientWriter<v1::ImportModelRequest>> BeginImport(grpc::ClientContext& context,
                                                                          v1::ImportModelResponse& response,
                                                                          int64_t total_bytes) {
    auto import = models_->ImportModel(&context, &response);
    v1::ImportModelRequest request;
    request.mutable_start()->set_model("imported");
    request.mutable_start()->set_architecture_json(kTinyVectorArchitecture);
    request.mutable_start()->set_total_bytes(total_bytes);
    EXPECT_TRUE(import->Write(request));
    while (!LogHas("access granted method=/boss.v1.Models/ImportModel")) std::this_thread::yield();
    return import;
  }
  std::string Metrics() { return HttpGet(server_->metrics_port(), "/metrics"); }
};

TEST_F(LifecycleTest, DrainingServesNewCallsAndSaysThatItWantsNone) {
  Start({"--drain-seconds=100000", "--grace-seconds=100000"});
  EXPECT_THAT(Metrics(), HasSubstr("\nboss_ready 1\n"));
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 4096, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));

  server_->Signal(SIGTERM);
  WaitForHealth("", Health::NOT_SERVING);
  EXPECT_EQ(this->Health("boss.v1.Sampler"), Health::NOT_SERVING);
  EXPECT_EQ(this->Health("liveness"), Health::SERVING);
  EXPECT_EQ(this->Health("startup"), Health::SERVING);
  EXPECT_THAT(Metrics(), HasSubstr("\nboss_ready 0\n"));
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
  EXPECT_TRUE(GetModel("images").ok());

  // The second one ends the drain and the grace time.
  server_->Signal(SIGTERM);
  while (stream->Read(&response)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(HasRetryInfo(status));
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, FinishingRefusesNewCallsWithARetryHintAndEndsTheOpenOnes) {
  Start({"--drain-seconds=0", "--grace-seconds=100000"});
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 512, 200));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  server_->Signal(SIGTERM);
  grpc::Status refused;
  while ((refused = GetModel("images")).ok()) {
  }
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(HasRetryInfo(refused)) << refused.error_message();
  const grpc::Status generated = Generate(Request("vectors", 1, 2)).status;
  EXPECT_EQ(generated.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(HasRetryInfo(generated)) << generated.error_message();
  EXPECT_EQ(this->Health("liveness"), Health::SERVING);
  int samples = 0;
  while (stream->Read(&response)) samples += response.has_sample();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(samples, 512);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, FinishingLetsAnImportRunToItsEnd) {
  Start({"--drain-seconds=0", "--grace-seconds=100000", "--log-level=debug"});
  const std::string weights = *ReadFile(folder_ / "seeds/vectors/model.safetensors");
  grpc::ClientContext context;
  v1::ImportModelResponse response;
  const auto import = BeginImport(context, response, static_cast<int64_t>(weights.size()));
  server_->Signal(SIGTERM);
  // Longer than the server waits for the last messages of calls that have ended.
  EXPECT_EQ(server_->WaitForExit(absl::Seconds(3)), std::nullopt);
  v1::ImportModelRequest request;
  request.mutable_chunk()->set_data(weights);
  EXPECT_TRUE(import->Write(request));
  import->WritesDone();
  const grpc::Status status = import->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.version().model(), "imported");
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, ASecondSignalEndsAnImport) {
  Start({"--drain-seconds=0", "--grace-seconds=100000", "--log-level=debug"});
  grpc::ClientContext context;
  v1::ImportModelResponse response;
  const auto import = BeginImport(context, response, /*total_bytes=*/1000);
  server_->Signal(SIGTERM);
  while (!LogHas("shutting down")) std::this_thread::yield();
  server_->Signal(SIGTERM);
  EXPECT_EQ(import->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, AnInterruptFromATerminalDoesNotDrain) {
  Start({"--drain-seconds=100000"});
  server_->Signal(SIGINT);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, HangUpReadsTheLogLevelAgain) {
  const std::string config = folder_ / "bossd.toml";
  std::ofstream(config) << "log-level = \"info\"\n";
  Start({"--config=" + config});
  ASSERT_TRUE(GetModel("images").ok());
  EXPECT_FALSE(LogHas("call ended"));

  std::ofstream(config) << "log-level = \"debug\"\n";
  server_->Signal(SIGHUP);
  while (!LogHas("call ended")) ASSERT_TRUE(GetModel("images").ok());

  // What cannot be read changes nothing.
  std::ofstream(config) << "log-level = \"loud\"\n";
  server_->Signal(SIGHUP);
  while (!LogHas("cannot read the configuration again")) ASSERT_TRUE(GetModel("images").ok());
  EXPECT_EQ(Stop(), 0);
}

TEST_F(LifecycleTest, AServerThatTakesLongToStartIsAliveAndNotReady) {
  // The import of this seed model begins to read a manifest that nobody writes yet.
  const std::string pipe = folder_ / "seeds/slow/manifest.json";
  std::filesystem::create_directories(folder_ / "seeds/slow");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const std::string address = "unix:" + (folder_ / "socket");
  auto server = ServerProcess::Launch(BOSSD_BINARY,
                                      {"--listen=" + address, "--metrics-listen=", "--data=" + (folder_ / "data"),
                                       "--seed-models=" + (folder_ / "seeds"), "--threads=1", "--drain-seconds=0"},
                                      log_);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  Connect(channel);
  const auto inference = inference::GRPCInferenceService::NewStub(channel);
  WaitForHealth("liveness", Health::SERVING);
  EXPECT_EQ(this->Health(""), Health::NOT_SERVING);
  EXPECT_EQ(this->Health("boss.v1.Models"), Health::NOT_SERVING);
  EXPECT_EQ(this->Health("startup"), Health::NOT_SERVING);
  for (const grpc::Status& status : {GetModel("images"), Generate(Request("images", 1, 2)).status}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), HasSubstr("starting"));
    EXPECT_TRUE(HasRetryInfo(status));
  }
  {
    grpc::ClientContext live_context, ready_context;
    inference::ServerLiveResponse live;
    inference::ServerReadyResponse ready;
    EXPECT_TRUE(inference->ServerLive(&live_context, {}, &live).ok());
    EXPECT_TRUE(live.live());
    EXPECT_TRUE(inference->ServerReady(&ready_context, {}, &ready).ok());
    EXPECT_FALSE(ready.ready());
  }

  std::ofstream(pipe) << "{}";
  WaitForHealth("startup", Health::SERVING);
  EXPECT_EQ(this->Health(""), Health::SERVING);
  EXPECT_TRUE(GetModel("images").ok());
  EXPECT_TRUE(LogHas("cannot import seed model"));
  EXPECT_EQ(Stop(), 0);
}

TEST_F(LifecycleTest, AServerThatIsAskedToStopWhileItStartsEndsWell) {
  const std::string pipe = folder_ / "seeds/slow/manifest.json";
  std::filesystem::create_directories(folder_ / "seeds/slow");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const std::string address = "unix:" + (folder_ / "socket");
  auto server = ServerProcess::Launch(BOSSD_BINARY,
                                      {"--listen=" + address, "--metrics-listen=", "--data=" + (folder_ / "data"),
                                       "--seed-models=" + (folder_ / "seeds"), "--threads=1"},
                                      log_);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  Connect(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  WaitForHealth("liveness", Health::SERVING);
  server_->Signal(SIGTERM);
  while (!LogHas("asked to stop")) std::this_thread::yield();
  std::ofstream(pipe) << "{}";
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_TRUE(LogHas("stopped before it was ready"));
}

TEST_F(LifecycleTest, AClientGoesOnAcrossARestart) {
  Start({"--drain-seconds=0.01"});
  const v1::Job job = SubmitOptimize(/*k_max=*/1000, /*num_samples=*/100000);
  client::ClientOptions options;
  options.address = server_->address();
  options.retry.max_resumptions = 1000;
  client::Client client(options);
  std::vector<int64_t> sequences;
  absl::Mutex mutex;
  v1::Job::State last = v1::Job::STATE_UNSPECIFIED;
  int runs = 0;
  std::thread watcher([&] {
    v1::WatchJobRequest request;
    request.set_name(job.name());
    const absl::Status status = client.WatchJob(request, [&](const v1::JobEvent& event) {
      absl::MutexLock lock(&mutex);
      sequences.push_back(event.sequence());
      if (event.has_state_change()) {
        last = event.state_change().to();
        runs += last == v1::Job::RUNNING;
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  });
  const auto wait_for_runs = [&](int count) {
    const auto reached = [&] { return runs >= count; };
    absl::MutexLock lock(&mutex);
    mutex.Await(absl::Condition(&reached));
  };
  wait_for_runs(1);
  const int port = server_->grpc_port();
  EXPECT_EQ(Stop(), 0);
  Start({}, {.grpc = port});
  wait_for_runs(2);
  EXPECT_TRUE(client.CancelJob(job.name()).ok());
  watcher.join();
  EXPECT_EQ(last, v1::Job::CANCELLED);
  for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i], static_cast<int64_t>(i) + 1);
}

}  // namespace
}  // namespace boss::testing
