// What a real server's metrics say after work of which everything is known.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/inference_fixture.h"
#include "tests/support/http_get.h"
#include "tests/support/open_metrics.h"
#include "tests/support/prometheus_text.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kOpenMetricsHeader[] = "Accept: application/openmetrics-text;version=1.0.0\r\n";

class MetricsTest : public InferenceTest {
 protected:
  void SetUp() override { StartInference(); }

  PrometheusText Scrape() {
    const auto metrics = ParsePrometheusText(HttpBody(HttpGet(server_->metrics_port(), "/metrics")));
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics.value_or(PrometheusText());
  }
  std::map<std::string, OpenMetricsFamily> ScrapeOpenMetrics() {
    const auto families = ParseOpenMetrics(HttpBody(HttpGet(server_->metrics_port(), "/metrics", kOpenMetricsHeader)));
    EXPECT_TRUE(families.ok()) << families.status();
    return families.value_or(std::map<std::string, OpenMetricsFamily>());
  }

  // The bytes of a call's messages.
  size_t GenerateAndCount(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto stream = sampler_->Generate(&context, request);
    size_t bytes = 0;
    v1::GenerateResponse response;
    while (stream->Read(&response)) bytes += response.ByteSizeLong();
    EXPECT_TRUE(stream->Finish().ok());
    return bytes;
  }

  void RunOptimizeJob() {
    grpc::Status status;
    const std::vector<v1::JobEvent> events = Watch(SubmitOptimize(4, 8).name(), 1, status);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(events.back().state_change().to(), v1::Job::SUCCEEDED);
  }
};

TEST_F(MetricsTest, SamplingIsCountedTimedAndMeasured) {
  size_t bytes = 0;
  for (int i = 0; i < 3; ++i) bytes += GenerateAndCount(Request("vectors", 2, 4));
  PrometheusText metrics = Scrape();
  EXPECT_EQ(metrics.Sum("boss_samples_total"), 6);
  EXPECT_EQ(metrics.Sum("boss_velocity_evaluations_total"), 24);
  EXPECT_EQ(metrics.Sum("boss_requests_total{code=\"OK\",method=\"/boss.v1.Sampler/Generate\"}"), 3);
  EXPECT_EQ(metrics.Sum("boss_sent_bytes_total"), static_cast<double>(bytes));
  for (const char* part : {"queue", "compute", "output"}) {
    EXPECT_EQ(metrics.Sum(absl::StrCat("boss_sampling_", part, "_seconds_count")), 3) << part;
    EXPECT_GE(metrics.Sum(absl::StrCat("boss_sampling_", part, "_seconds_sum")), 0) << part;
  }
  EXPECT_EQ(metrics.Sum("boss_models{device=\"cpu\",state=\"READY\"}"), 1);
  EXPECT_EQ(metrics.Sum("boss_models"), 1);
  EXPECT_GT(metrics.Sum("boss_loaded_model_bytes{device=\"cpu\",model=\"vectors\"}"), 0);
  EXPECT_EQ(metrics.Sum("boss_model_loads_total{result=\"ok\"}"), 1);
  EXPECT_EQ(metrics.Sum("boss_model_load_seconds_count"), 1);
  EXPECT_GT(metrics.Sum("boss_device_busy_seconds_total{device=\"cpu\",work=\"sampling\"}"), 0);
  EXPECT_EQ(metrics.Sum("boss_device_busy_seconds_total{device=\"cpu\",work=\"training\"}"), 0);

  // The other protocol's calls: one that gathers its samples, and one that streams them.
  inference::ModelInferResponse response;
  ASSERT_TRUE(Infer(RawRequest("vectors"), response).ok());
  bytes += response.ByteSizeLong();
  grpc::ClientContext context;
  const auto stream = inference_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(RawRequest("vectors")));
  ASSERT_TRUE(stream->WritesDone());
  inference::ModelStreamInferResponse streamed;
  while (stream->Read(&streamed)) bytes += streamed.ByteSizeLong();
  ASSERT_TRUE(stream->Finish().ok());
  metrics = Scrape();
  EXPECT_EQ(metrics.Sum("boss_sent_bytes_total"), static_cast<double>(bytes));
  EXPECT_EQ(metrics.Sum("boss_sampling_output_seconds_count"), 5);
  EXPECT_EQ(metrics.Sum("boss_samples_total"), 10);
}

TEST_F(MetricsTest, ACancelledCallHasItsReason) {
  grpc::ClientContext context;
  const auto stream = sampler_->Generate(&context, Request("images", 64, 1000));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  context.TryCancel();
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (Scrape().Sum("boss_sampling_ended_requests_total") == 0) {  // the server hears of it later
  }
  EXPECT_EQ(Scrape().Sum("boss_sampling_ended_requests_total{reason=\"cancelled\"}"), 1);

  // With a deadline of its own, which the server sees to: a call whose client gives up may never reach it.
  inference::ModelInferRequest hasty = RawRequest("images");
  hasty.set_raw_input_contents(0, Bytes(std::vector<int32_t>{1000}));
  hasty.set_raw_input_contents(2, Bytes(std::vector<int32_t>{64}));
  (*hasty.mutable_parameters())["timeout"].set_int64_param(1000);  // microseconds
  inference::ModelInferResponse late;
  EXPECT_EQ(Infer(hasty, late).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(Scrape().Sum("boss_sampling_ended_requests_total{reason=\"deadline\"}"), 1);
  EXPECT_EQ(Scrape().Sum("boss_sampling_output_seconds_count"), 0);  // neither had a last message
}

TEST_F(MetricsTest, AJobIsCountedByKindStateAndStage) {
  EXPECT_EQ(Scrape().Sum("boss_jobs_finished_total"), 0);
  RunOptimizeJob();
  const PrometheusText metrics = Scrape();
  EXPECT_EQ(metrics.Sum("boss_jobs_finished_total{kind=\"OPTIMIZE_STEPSIZES\",state=\"SUCCEEDED\"}"), 1);
  EXPECT_EQ(metrics.Sum("boss_jobs"), 0);
  for (const char* stage : {"preparing", "trajectories", "cost matrix", "schedule"}) {
    EXPECT_EQ(
        metrics.Sum(absl::StrCat("boss_job_stage_seconds_count{kind=\"OPTIMIZE_STEPSIZES\",stage=\"", stage, "\"}")), 1)
        << stage;
  }
  EXPECT_GT(metrics.Sum("boss_device_busy_seconds_total{device=\"cpu\",work=\"training\"}"), 0);
  EXPECT_EQ(metrics.Sum("boss_device_busy_seconds_total{device=\"cpu\",work=\"sampling\"}"), 0);
  EXPECT_EQ(metrics.Sum("boss_journal_seconds_count{operation=\"insert\"}"), 1);
  EXPECT_GT(metrics.Sum("boss_journal_seconds_count{operation=\"update\"}"), 4);
  EXPECT_GT(metrics.Sum("boss_store_seconds_count{operation=\"sync\"}"), 0);
  EXPECT_EQ(metrics.Sum("boss_journal_errors_total"), 0);
  EXPECT_EQ(metrics.Sum("boss_store_errors_total"), 0);
  EXPECT_EQ(metrics.Sum("boss_model_versions{state=\"published\"}"), 2);
  EXPECT_GT(metrics.Sum("boss_journal_bytes"), 0);
  EXPECT_GT(metrics.Sum("boss_data_free_bytes"), 0);
  EXPECT_GT(metrics.Sum("boss_data_size_bytes"), metrics.Sum("boss_data_free_bytes"));
}

TEST_F(MetricsTest, BothFormatsSayTheSame) {
  GenerateAndCount(Request("vectors", 2, 4));
  RunOptimizeJob();
  const PrometheusText text = Scrape();
  const std::map<std::string, OpenMetricsFamily> open = ScrapeOpenMetrics();
  EXPECT_EQ(open.size(), text.types.size());
  std::set<std::string> series;
  for (const auto& [name, family] : open) {
    EXPECT_NE(family.help, "") << name;
    for (const OpenMetricsFamily::Sample& sample : family.samples) {
      series.insert(sample.name);
      // Nothing that these count moves between two scrapes of a server that does nothing.
      if (absl::StartsWith(name, "boss_sampling_") && !absl::EndsWith(sample.name, "_bucket")) {
        EXPECT_EQ(sample.value, text.Sum(sample.name)) << sample.name;
      }
    }
  }
  for (const auto& [name, value] : text.samples) EXPECT_TRUE(series.contains(name.substr(0, name.find('{')))) << name;
  EXPECT_EQ(open.at("boss_sampling_queue_seconds").unit, "seconds");
  EXPECT_EQ(open.at("boss_sent_bytes").unit, "bytes");
  EXPECT_EQ(open.at("boss_batch_fill_ratio").unit, "ratio");
  EXPECT_EQ(open.at("boss_build").type, "info");
}

// The rules for names, and that the document for operators has every one of them.
TEST_F(MetricsTest, EveryFamilyKeepsTheRulesAndIsDocumented) {
  GenerateAndCount(Request("vectors", 2, 4));
  RunOptimizeJob();
  std::ifstream file(BOSS_SOURCE_DIR "/docs/metrics.md");
  std::stringstream document;
  document << file.rdbuf();
  const std::regex kNoBaseUnit(
      "_(ms|us|ns|milliseconds?|microseconds?|minutes?|hours?|days?|kb|mb|gb|kib|mib|gib|percent|mhz|milliwatts?)(_|$"
      ")");
  const std::map<std::string, std::string> types = Scrape().types;
  EXPECT_GE(types.size(), 45u);
  for (const auto& [family, type] : types) {
    EXPECT_TRUE(absl::StartsWith(family, "boss_") || absl::StartsWith(family, "process_")) << family;
    EXPECT_EQ(type == "counter", absl::EndsWith(family, "_total")) << family << " is a " << type;
    EXPECT_FALSE(std::regex_search(family, kNoBaseUnit)) << family;
    EXPECT_THAT(document.str(), HasSubstr("`" + family + "`")) << "not in docs/metrics.md";
  }
  for (const char* family :
       {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
        "process_start_time_seconds", "process_threads", "boss_build_info", "boss_requests_total", "boss_lanes"}) {
    EXPECT_TRUE(types.contains(family)) << family;
  }
}

}  // namespace
}  // namespace boss::testing
