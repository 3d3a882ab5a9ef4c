// The server as its clients see it: a real process, real models, real streams.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <signal.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "absl/strings/match.h"
#include "core/io/png.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/http_get.h"
#include "tests/support/prometheus_text.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;
using Health = grpc::health::v1::HealthCheckResponse;

std::vector<float> Floats(const v1::Sample& sample) {
  std::vector<float> values(sample.data().size() / sizeof(float));
  std::memcpy(values.data(), sample.data().data(), sample.data().size());
  return values;
}

// Batches of another size may round differently.
void ExpectNear(const v1::Sample& a, const v1::Sample& b) {
  const std::vector<float> x = Floats(a), y = Floats(b);
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], 1e-4 * std::max(1.0f, std::abs(y[i])));
}

class GenerateTest : public BossdTest {
 protected:
  void SetUp() override { Start({"--max-samples-per-request=64"}); }
};

TEST_F(GenerateTest, StreamsAcceptedSamplesAndSummary) {
  v1::GenerateRequest request = Request("images", 3, 4);
  request.add_class_labels(1);
  request.set_preview_interval(3);
  const Generated generated = Generate(request);
  ASSERT_TRUE(generated.status.ok()) << generated.status.error_message();
  EXPECT_EQ(generated.order, "avvvsssS");
  EXPECT_EQ(generated.accepted.model(), "images@1");
  EXPECT_EQ(generated.accepted.nfe(), 4);
  EXPECT_EQ(generated.accepted.seed(), 42u);
  EXPECT_EQ(generated.accepted.schedule(), v1::SCHEDULE_KIND_UNIFORM);
  EXPECT_EQ(generated.summary.num_samples(), 3);
  EXPECT_EQ(generated.summary.device(), "cpu");
  EXPECT_EQ(generated.previews[0].step(), 3);
  ASSERT_FALSE(generated.progress.empty());
  EXPECT_EQ(generated.progress.back().samples_done(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(generated.samples[i].seed(), 42u + i);
    EXPECT_EQ(generated.samples[i].class_label(), 1);
    EXPECT_EQ(generated.samples[i].format(), v1::OUTPUT_FORMAT_PNG);
    const auto image = DecodePng(generated.samples[i].data());
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->width, 8);
    EXPECT_EQ(image->channels, 1);
  }
  EXPECT_NE(generated.samples[0].data(), generated.samples[1].data());
}

TEST_F(GenerateTest, TheSameSeedGivesTheSameBytes) {
  const v1::GenerateRequest request = Request("images", 4, 3);
  const Generated first = Generate(request), second = Generate(request);
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  EXPECT_EQ(first.Bytes(), second.Bytes());
  v1::GenerateRequest other = request;
  other.set_seed(43);
  EXPECT_NE(Generate(other).Bytes(), first.Bytes());
  v1::GenerateRequest labelled = request;
  labelled.add_class_labels(2);
  EXPECT_NE(Generate(labelled).Bytes(), first.Bytes());
}

TEST_F(GenerateTest, ASplitRequestGivesTheSameSamples) {
  v1::GenerateRequest request = Request("images", 5, 3);
  request.set_output_format(v1::OUTPUT_FORMAT_FLOAT32);
  const Generated whole = Generate(request);
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  request.set_num_samples(2);
  request.set_seed(42 + 3);
  const Generated rest = Generate(request);
  ExpectNear(rest.samples[0], whole.samples[3]);
  ExpectNear(rest.samples[1], whole.samples[4]);
}

TEST_F(GenerateTest, TakesAnExplicitGridAndInitialNoise) {
  v1::GenerateRequest request = Request("vectors", 1, 0);
  request.set_schedule(v1::SCHEDULE_KIND_EXPLICIT);
  for (const double t : {0.0, 0.25, 0.5, 0.75, 1.0}) request.add_time_grid(t);
  const Generated on_grid = Generate(request);
  ASSERT_TRUE(on_grid.status.ok()) << on_grid.status.error_message();
  EXPECT_EQ(on_grid.accepted.schedule(), v1::SCHEDULE_KIND_EXPLICIT);
  EXPECT_EQ(on_grid.accepted.steps(), 4);
  EXPECT_EQ(on_grid.Bytes(), Generate(Request("vectors", 1, 4)).Bytes());  // the uniform grid of as many steps

  request.mutable_initial_noise()->set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
  request.mutable_initial_noise()->add_shape(1);
  request.mutable_initial_noise()->add_shape(2);
  request.mutable_initial_noise()->set_data(std::string(8, '\0'));
  const Generated from_zero = Generate(request);
  ASSERT_TRUE(from_zero.status.ok()) << from_zero.status.error_message();
  EXPECT_NE(from_zero.Bytes(), on_grid.Bytes());
}

TEST_F(GenerateTest, EveryErrorHasItsCodeAndField) {
  struct Case {
    std::function<void(v1::GenerateRequest&)> change;
    grpc::StatusCode code;
    std::string field;
  };
  using enum grpc::StatusCode;
  const std::vector<Case> cases = {
      {[](auto& r) { r.set_model("nothing"); }, NOT_FOUND, "model"},
      {[](auto& r) { r.set_model("vectors@9"); }, NOT_FOUND, "model"},
      {[](auto& r) { r.set_model("No Such Name"); }, INVALID_ARGUMENT, "model"},
      {[](auto& r) { r.clear_model(); }, INVALID_ARGUMENT, "model"},
      {[](auto& r) { r.set_steps(-1); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.set_steps(100000); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.set_num_samples(65); }, INVALID_ARGUMENT, "num_samples"},
      {[](auto& r) { r.set_num_samples(-1); }, INVALID_ARGUMENT, "num_samples"},
      {[](auto& r) { r.add_class_labels(3); }, INVALID_ARGUMENT, "class_labels"},
      {[](auto& r) { r.set_guidance_scale(2); }, INVALID_ARGUMENT, "guidance_scale"},
      {[](auto& r) { r.set_output_format(v1::OUTPUT_FORMAT_PNG); }, INVALID_ARGUMENT, "output_format"},
      {[](auto& r) { r.set_schedule(v1::SCHEDULE_KIND_BELLMAN); }, FAILED_PRECONDITION, ""},
      {[](auto& r) {
         r.set_schedule(v1::SCHEDULE_KIND_EXPLICIT);
         r.clear_steps();
         for (const double t : {0.0, 0.7, 0.6, 1.0}) r.add_time_grid(t);
       },
       INVALID_ARGUMENT, "time_grid"},
      {[](auto& r) {
         r.mutable_initial_noise()->set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
         r.mutable_initial_noise()->add_shape(1);
         r.mutable_initial_noise()->add_shape(3);
         r.mutable_initial_noise()->set_data(std::string(12, '\0'));
       },
       INVALID_ARGUMENT, "initial_noise"},
      {[](auto& r) { r.add_negative_class_labels(1); }, INVALID_ARGUMENT, "negative_class_labels"},
      {[](auto& r) { (*r.mutable_conditions())["text"].set_dtype(v1::Tensor::DATA_TYPE_FLOAT32); },
       INVALID_ARGUMENT, "conditions"},
      {[](auto& r) {
         r.set_solver(v1::SOLVER_MULTISTEP);
         r.set_schedule(v1::SCHEDULE_KIND_UNIFORM);
       },
       INVALID_ARGUMENT, "schedule"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    v1::GenerateRequest request = Request("vectors", 1, 4);
    cases[i].change(request);
    const Generated generated = Generate(request);
    EXPECT_EQ(generated.status.error_code(), cases[i].code) << i << ": " << generated.status.error_message();
    EXPECT_EQ(FieldOfError(generated.status), cases[i].field) << i << ": " << generated.status.error_message();
    EXPECT_EQ(generated.order, "") << i;
  }
  v1::GenerateRequest request = Request("vectors", 1, 4);
  request.set_schedule(v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_THAT(Generate(request).status.error_message(), HasSubstr("OptimizeStepsizesJob"));
}

TEST_F(GenerateTest, ACorruptWeightFileIsDataLossAndTheServerRunsOn) {
  const std::string weights = folder_ / "data/models/images/1/model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 100);
  EXPECT_EQ(Generate(Request("images", 1, 2)).status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
}

TEST_F(GenerateTest, HealthReflectionAndMetricsTellWhatRuns) {
  EXPECT_EQ(Health(""), Health::SERVING);
  for (const char* service : {"boss.v1.Sampler", "boss.v1.Jobs", "boss.v1.Models"})
    EXPECT_EQ(Health(service), Health::SERVING) << service;

  // ServerReflectionRequest{list_services: ""}, by hand: Debian ships no headers for it.
  grpc::GenericStub stub(grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call =
      stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(wait());
  const grpc::Slice request("\x3a\x00", 2);
  call->Write(grpc::ByteBuffer(&request, 1), nullptr);
  ASSERT_TRUE(wait());
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(wait());
  grpc::Slice bytes;
  ASSERT_TRUE(response.DumpToSingleSlice(&bytes).ok());
  const std::string services(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  for (const char* service : {"boss.v1.Sampler", "boss.v1.Jobs", "boss.v1.Models", "grpc.health.v1.Health",
                              "inference.GRPCInferenceService"})
    EXPECT_THAT(services, HasSubstr(service));
  context.TryCancel();

  Generate(Request("vectors", 3, 4));
  Generate(Request("nothing", 1, 4));
  const std::string page = HttpGet(server_->metrics_port(), "/metrics");
  const size_t body = page.find("\r\n\r\n");
  ASSERT_NE(body, std::string::npos) << page;
  const auto metrics = ParsePrometheusText(absl::string_view(page).substr(body + 4));
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->Sum("boss_samples_total"), 3);
  EXPECT_EQ(metrics->Sum("boss_velocity_evaluations_total"), 12);
  EXPECT_EQ(metrics->samples.at("boss_requests_total{code=\"OK\",method=\"/boss.v1.Sampler/Generate\"}"), 1);
  EXPECT_EQ(metrics->samples.at("boss_requests_total{code=\"NOT_FOUND\",method=\"/boss.v1.Sampler/Generate\"}"), 1);
  EXPECT_EQ(metrics->Sum("boss_models{device=\"cpu\",state=\"READY\"}"), 1);
  EXPECT_EQ(metrics->Sum("boss_build_info"), 1);
  EXPECT_GT(metrics->samples.at("boss_device_busy_seconds_total{device=\"cpu\",work=\"sampling\"}"), 0);
}

TEST_F(GenerateTest, ACancelledCallFreesItsPlace) {
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 64, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  context.TryCancel();
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
}

TEST_F(BossdTest, AFullQueueSaysWhenToTryAgain) {
  Start({"--max-queued-samples=4096"});
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 4096, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const grpc::Status refused = Generate(Request("vectors", 1, 2)).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::Status details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  EXPECT_THAT(details.DebugString(), HasSubstr("google.rpc.RetryInfo"));
  context.TryCancel();
}

TEST_F(BossdTest, AJobIsWatchedAndItsScheduleIsUsed) {
  Start();
  const v1::Job submitted = SubmitOptimize(/*k_max=*/10, /*num_samples=*/4);
  grpc::Status status;
  const std::vector<v1::JobEvent> events = Watch(submitted.name(), 1, status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_FALSE(events.empty());
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence(), static_cast<int64_t>(i) + 1);
  EXPECT_EQ(events.back().state_change().to(), v1::Job::SUCCEEDED) << events.back().DebugString();
  // A replay from the middle is the end of the whole.
  const std::vector<v1::JobEvent> rest = Watch(submitted.name(), 3, status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(rest.size(), events.size() - 2);
  EXPECT_EQ(rest.front().DebugString(), events[2].DebugString());
  Watch(submitted.name(), 1'000'000, status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  Watch("jobs/nothing", 1, status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);

  v1::GenerateRequest request = Request("vectors", 2, 3);
  request.set_schedule(v1::SCHEDULE_KIND_BELLMAN);
  const Generated generated = Generate(request);
  ASSERT_TRUE(generated.status.ok()) << generated.status.error_message();
  EXPECT_EQ(generated.accepted.schedule(), v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_EQ(generated.accepted.steps(), 3);
  grpc::ClientContext context;
  v1::GetScheduleRequest get;
  get.set_model("vectors");
  get.set_steps(3);
  v1::ScheduleSet set;
  ASSERT_TRUE(models_->GetSchedule(&context, get, &set).ok());
  ASSERT_EQ(set.schedules_size(), 1);
  EXPECT_TRUE(std::equal(set.schedules(0).time_grid().begin(), set.schedules(0).time_grid().end(),
                         generated.accepted.time_grid().begin()));
  request.set_steps(11);
  const Generated beyond = Generate(request);
  EXPECT_EQ(beyond.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(beyond.status), "steps");
}

TEST_F(BossdTest, TermLetsStreamsFinishSavesTheJobAndExitsCleanly) {
  Start({"--grace-seconds=60"});
  const v1::Job job = SubmitOptimize(/*k_max=*/1000, /*num_samples=*/100000);
  grpc::ClientContext watch_context, stream_context;
  v1::WatchJobRequest watch;
  watch.set_name(job.name());
  const auto events = jobs_->WatchJob(&watch_context, watch);
  v1::JobEvent event;
  do {
    ASSERT_TRUE(events->Read(&event));
  } while (event.state_change().to() != v1::Job::RUNNING);
  const auto stream = sampler_->Generate(&stream_context, Request("images", 16, 100));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_TRUE(response.has_accepted());

  server_->Signal(SIGTERM);
  int samples = 0;
  while (stream->Read(&response)) samples += response.has_sample();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(samples, 16);
  while (events->Read(&event)) {
  }
  EXPECT_EQ(events->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(event.state_change().to(), v1::Job::QUEUED) << event.DebugString();
  EXPECT_EQ(server_->WaitForExit(), 0);

  // The next server goes on with it.
  Start();
  grpc::ClientContext context;
  v1::GetJobRequest get;
  get.set_name(job.name());
  v1::Job resumed;
  ASSERT_TRUE(jobs_->GetJob(&context, get, &resumed).ok());
  EXPECT_THAT(resumed.state(), ::testing::AnyOf(v1::Job::QUEUED, v1::Job::RUNNING));
  EXPECT_EQ(Stop(), 0);
}

TEST_F(BossdTest, ASecondTermCutsTheGraceTimeShort) {
  Start({"--grace-seconds=100000"});
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 4096, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  server_->Signal(SIGTERM);
  // Not before the first has been taken: two equal signals that wait are one.
  while (Health("") == Health::SERVING) {
  }
  server_->Signal(SIGTERM);
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(BossdTest, AServerThatCannotStartSaysSo) {
  Start();
  // The data folder has one server at a time.
  const TempFolder other;
  const auto second = ServerProcess::Start(BOSSD_BINARY, other.path(), {"--data=" + (folder_ / "data")});
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("ended with 1"));
}

}  // namespace
}  // namespace boss::testing
