#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_get.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, CallsAreCountedByMethodAndCode) {
  Metrics metrics("1.2.3", "cpu");
  metrics.RecordCall("/boss.v1.Sampler/Generate", "OK", absl::Milliseconds(20));
  metrics.RecordCall("/boss.v1.Sampler/Generate", "OK", absl::Milliseconds(30));
  metrics.RecordCall("/boss.v1.Sampler/Generate", "NOT_FOUND", absl::Milliseconds(1));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("boss_requests_total{code=\"OK\",method=\"/boss.v1.Sampler/Generate\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("boss_requests_total{code=\"NOT_FOUND\",method=\"/boss.v1.Sampler/Generate\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("boss_request_seconds_count{method=\"/boss.v1.Sampler/Generate\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("boss_build_info{device=\"cpu\",version=\"1.2.3\"} 1\n"));
}

TEST(MetricsTest, HandlesMoveTheirSeries) {
  Metrics metrics("1", "cpu");
  const EngineMetrics engine = metrics.engine();
  engine.samples.Add(3);
  engine.samples.Add(4);
  engine.queued_samples.Set(5);
  engine.queue_seconds.Observe(0.2);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("boss_samples_total 7\n"));
  EXPECT_THAT(text, HasSubstr("boss_queued_samples 5\n"));
  EXPECT_THAT(text, HasSubstr("boss_sampling_queue_seconds_bucket{le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("boss_sampling_queue_seconds_bucket{le=\"0.25\"} 1\n"));
}

TEST(MetricsTest, EnginesShareCountersAndHaveGaugesOfTheirOwn) {
  Metrics metrics("1", "cuda:0,cuda:1");
  const EngineMetrics first = metrics.engine("cuda:0"), second = metrics.engine("cuda:1");
  first.samples.Add(1);
  second.samples.Add(2);
  first.queued_samples.Set(3);
  second.queued_samples.Set(4);
  second.lanes_active.Set(5);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("boss_samples_total 3\n"));
  EXPECT_THAT(text, HasSubstr("boss_queued_samples{device=\"cuda:0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("boss_queued_samples{device=\"cuda:1\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("boss_lanes{device=\"cuda:1\",state=\"active\"} 5\n"));
}

TEST(MetricsTest, HandlesOfNoMetricsDoNothing) {
  const EngineMetrics engine;
  engine.samples.Add(1);
  engine.queued_samples.Set(1);
  engine.queue_seconds.Observe(1);
  JobRunMetrics().train_steps.With({"TRAIN"}).Add(1);
}

TEST(MetricsTest, CollectorsAreAskedAtEveryScrape) {
  Metrics metrics("1", "cpu");
  int scrapes = 0;
  metrics.AddCollector([&] {
    ++scrapes;
    return std::vector<CollectedFamily>{
        {.name = "boss_jobs", .help = "Jobs", .series = {{{{"state", "QUEUED"}}, 2.0 + scrapes}}}};
  });
  EXPECT_THAT(metrics.Text(), HasSubstr("# TYPE boss_jobs gauge\nboss_jobs{state=\"QUEUED\"} 3\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("boss_jobs{state=\"QUEUED\"} 4\n"));
}

TEST(MetricsTest, AFamilyHasOneSeriesForEachValueOfItsLabels) {
  Metrics metrics("1", "cpu");
  const JobRunMetrics jobs = metrics.jobs();
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("boss_last_checkpoint")));  // before there is one
  jobs.train_steps.With({"TRAIN"}).Add(2);
  jobs.train_steps.With({"TRAIN"}).Add(3);
  jobs.stage_seconds.With({"DISTILL", "pairs"}).Observe(40);
  jobs.last_checkpoint.With({}).Set(1.7e9);
  metrics.journal().seconds.With({"insert"}).Observe(0.002);
  metrics.store().errors.With({"sync"}).Add(1);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("boss_train_steps_total{kind=\"TRAIN\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("boss_job_stage_seconds_bucket{kind=\"DISTILL\",stage=\"pairs\",le=\"15\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("boss_job_stage_seconds_bucket{kind=\"DISTILL\",stage=\"pairs\",le=\"60\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("boss_last_checkpoint_timestamp_seconds 1700000000\n"));
  EXPECT_THAT(text, HasSubstr("boss_journal_seconds_count{operation=\"insert\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("boss_store_errors_total{operation=\"sync\"} 1\n"));
}

TEST(MetricsServerTest, ServesTheTextOnAFreePort) {
  Metrics metrics("1", "cpu");
  metrics.engine().samples.Add(9);
  const auto server = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_GT((*server)->port(), 0);
  const std::string response = boss::testing::HttpGet((*server)->port(), "/metrics");
  EXPECT_THAT(response, HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(response, HasSubstr("boss_samples_total 9\n"));
  EXPECT_THAT(boss::testing::HttpGet((*server)->port(), "/elsewhere"), Not(HasSubstr("boss_samples_total")));
}

TEST(MetricsServerTest, TheAcceptHeaderChoosesTheFormat) {
  Metrics metrics("1", "cpu");
  const auto server = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string open =
      boss::testing::HttpGet((*server)->port(), "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
  EXPECT_THAT(open, HasSubstr("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
  EXPECT_THAT(open, ::testing::EndsWith("\n# EOF\n"));
  const std::string text = boss::testing::HttpGet((*server)->port(), "/metrics", "Accept: text/plain\r\n");
  EXPECT_THAT(text, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(text, Not(HasSubstr("# EOF")));
}

TEST(MetricsServerTest, AnAddressInUseIsAnError) {
  Metrics metrics("1", "cpu");
  const auto first = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = MetricsServer::Start(address, metrics);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

}  // namespace
}  // namespace boss::server
