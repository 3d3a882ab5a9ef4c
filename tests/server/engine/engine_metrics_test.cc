// What the engine and the registry count, after work of which everything is known.
#include <filesystem>
#include <string>

#include "tests/server/engine/engine_fixture.h"
#include "tests/support/prometheus_text.h"

namespace boss::server {
namespace {

using testing::CollectingSink;

class EngineMetricsTest : public testing::EngineTest {
 protected:
  EngineMetricsTest() {
    metrics_ = measured_.engine();
    StartEngine({});
  }
  ~EngineMetricsTest() override {
    if (open_ && !open_->HasBeenNotified()) open_->Notify();  // a failed test must not hang
    // They count beyond a request's last message.
    engine_.reset();
    registry_.reset();
  }

  // Of a series, as it is written; of a family, the sum.
  double Value(const std::string& name) const {
    const auto text = boss::testing::ParsePrometheusText(measured_.Text());
    EXPECT_TRUE(text.ok()) << text.status();
    return text->Sum(name);
  }
  double Ended(const std::string& reason) const {
    return Value("boss_sampling_ended_requests_total{reason=\"" + reason + "\"}");
  }

  Metrics measured_{"0", "cpu"};
};

TEST_F(EngineMetricsTest, ThreeRequestsOfTwoSamples) {
  for (int i = 0; i < 3; ++i) {
    const auto sink = Run(Request(2, 4));
    ASSERT_TRUE(sink->status.ok()) << sink->status;
    EXPECT_EQ(sink->summary.compute_end, clock_.Now());
  }
  EXPECT_EQ(Value("boss_samples_total"), 6);
  EXPECT_EQ(Value("boss_velocity_evaluations_total"), 3 * 2 * 4);
  EXPECT_EQ(Value("boss_evaluations_total"), 3 * 4);
  EXPECT_EQ(Value("boss_batch_rows_count"), 3 * 4);
  EXPECT_EQ(Value("boss_batch_rows_sum"), 3 * 2 * 4);
  EXPECT_EQ(Value("boss_batch_fill_ratio_count"), 3 * 4);
  EXPECT_DOUBLE_EQ(Value("boss_batch_fill_ratio_sum"), 3 * 4 * 2.0 / static_cast<double>(engine_->options().max_batch));
  EXPECT_EQ(Value("boss_sampling_queue_seconds_count"), 3);
  EXPECT_EQ(Value("boss_sampling_compute_seconds_count"), 3);
  EXPECT_EQ(Value("boss_sampling_ended_requests_total"), 0);
  EXPECT_EQ(Value("boss_queued_samples"), 0);
  EXPECT_EQ(Value("boss_lanes"), 0);
}

TEST_F(EngineMetricsTest, WaitingShowsBeforeAnythingRuns) {
  Run(Request(1));
  CloseDevice();
  const auto first = std::make_shared<CollectingSink>(), second = std::make_shared<CollectingSink>();
  Submit(Request(3), first);
  const auto handle = Submit(Request(4), second);
  for (const auto& sink : {first, second}) sink->WaitUntilAccepted();
  EXPECT_EQ(Value("boss_lanes{state=\"waiting\"}"), 7);
  EXPECT_EQ(Value("boss_lanes{state=\"active\"}"), 0);
  handle->Cancel(absl::CancelledError("enough"));
  EXPECT_EQ(Value("boss_lanes{state=\"waiting\"}"), 3);
  clock_.Advance(absl::Seconds(4));
  OpenDevice();
  first->Wait();
  second->Wait();
  EXPECT_EQ(Value("boss_lanes"), 0);
  EXPECT_EQ(Value("boss_sampling_queue_seconds_sum"), 4);
  EXPECT_EQ(Value("boss_sampling_queue_seconds_bucket{le=\"2.5\"}"), 1);  // the first request of this test
  EXPECT_EQ(Value("boss_sampling_queue_seconds_bucket{le=\"5\"}"), 2);
}

TEST_F(EngineMetricsTest, EveryEarlyEndHasItsReason) {
  Run(Request(1));
  CloseDevice();
  const auto submit = [&](absl::Time deadline) {
    SampleRequest request = Request(2);
    request.deadline = deadline;
    const auto sink = std::make_shared<CollectingSink>();
    const auto handle = Submit(request, sink);
    sink->WaitUntilAccepted();
    return std::make_pair(sink, handle);
  };
  const absl::Time soon = clock_.Now() + absl::Seconds(5);
  const auto expired = submit(soon), cancelled = submit(absl::InfiniteFuture()), late = submit(soon),
             broken = submit(absl::InfiniteFuture()), stopped = submit(absl::InfiniteFuture());
  cancelled.second->Cancel(absl::CancelledError("the client has gone"));
  cancelled.second->Cancel(absl::InternalError("counts once"));
  clock_.Advance(absl::Seconds(5));
  late.second->Cancel(absl::CancelledError("the client has gone"));  // as its own clock told it
  broken.second->Cancel(absl::InvalidArgumentError("the samples are too large"));
  OpenDevice();
  expired.first->Wait();
  CloseDevice();
  const auto last = submit(absl::InfiniteFuture());
  engine_->CancelAll(absl::UnavailableError("the server is shutting down"));
  OpenDevice();
  for (const auto& request : {stopped, last}) request.first->Wait();
  EXPECT_EQ(Ended("deadline"), 2);
  EXPECT_EQ(Ended("cancelled"), 1);
  EXPECT_EQ(Ended("error"), 1);
  // The other one had been answered in full, or was stopped as well.
  EXPECT_EQ(Ended("shutdown"), stopped.first->status.ok() ? 1 : 2);

  SampleRequest unknown = Request();
  unknown.model = "nothing";
  Run(unknown);
  EXPECT_EQ(Ended("error"), 2);
}

TEST_F(EngineMetricsTest, LoadsAreCountedByResultAndTimed) {
  ModelRegistryOptions options;
  options.metrics = measured_.models();
  // Building a network takes three seconds.
  class LoadClock final : public Clock {
   public:
    absl::Time Now() const override { return absl::UnixEpoch() + absl::Seconds(3) * calls_++; }

   private:
    mutable std::atomic<int> calls_ = 0;
  };
  options.clock = std::make_shared<LoadClock>();
  engine_.reset();
  registry_ = std::make_unique<ModelRegistry>(*store_, options);
  StartEngine({});
  const VersionKey broken = boss::testing::PublishTinyModel(*store_, "broken", boss::testing::kTinyVectorArchitecture);
  std::filesystem::resize_file(folder_ / "models/broken/1/model.safetensors", 100);
  Run(Request(1));
  Run(Request(1));  // has it
  SampleRequest request = Request(1);
  request.model = "broken";
  EXPECT_TRUE(absl::IsDataLoss(Run(request)->status));
  EXPECT_EQ(Value("boss_model_loads_total{result=\"ok\"}"), 1);
  EXPECT_EQ(Value("boss_model_loads_total{result=\"error\"}"), 1);
  EXPECT_EQ(Value("boss_model_load_seconds_sum"), 3);
  EXPECT_EQ(Value("boss_model_load_seconds_count"), 1);

  const std::vector<ModelStatus> statuses = registry_->Statuses();
  ASSERT_EQ(statuses.size(), 2u);
  EXPECT_EQ(statuses[0].key, broken);
  EXPECT_EQ(statuses[0].state, ModelState::kFailed);
  EXPECT_EQ(statuses[1].key, vectors_);
  EXPECT_EQ(statuses[1].state, ModelState::kReady);
  EXPECT_GT(statuses[1].memory_bytes, 0);
}

}  // namespace
}  // namespace boss::server
