#include "server/engine/sampler_engine.h"

#include <algorithm>

#include "core/base/error_details.h"
#include "core/flow/noise.h"
#include "core/solver/solver.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using testing::CollectingSink;
using testing::EngineTest;

class SamplerEngineTest : public EngineTest {};

TEST_F(SamplerEngineTest, AnswersInOrderAndCompletely) {
  const auto sink = Run(Request(5, 4));
  ASSERT_TRUE(sink->status.ok()) << sink->status;
  EXPECT_EQ(sink->order, "asssssd");
  EXPECT_EQ(sink->accepted.version, vectors_);
  EXPECT_EQ(sink->accepted.steps, 4);
  EXPECT_EQ(sink->accepted.nfe, 4);
  EXPECT_EQ(sink->accepted.time_grid, (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
  EXPECT_EQ(sink->summary.num_samples, 5);
  EXPECT_EQ(sink->summary.nfe, 4);
  EXPECT_EQ(sink->summary.device, "cpu");
  ASSERT_FALSE(sink->progress.empty());
  EXPECT_EQ(sink->progress.back().solver_steps, 20);
  EXPECT_EQ(sink->progress.back().total_solver_steps, 20);
  EXPECT_EQ(sink->progress.back().samples_done, 5);
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(sink->samples[i].index, i);
    EXPECT_EQ(sink->samples[i].seed, 7u + i);
    EXPECT_EQ(sink->samples[i].class_label, -1);
  }
}

TEST_F(SamplerEngineTest, SamplesAreWhatTheSolverMakesOfTheSeedsNoise) {
  SampleRequest request = Request(3, 4);
  request.class_labels = {0, 2, -1};
  request.guidance_scale = 2.0;
  const auto sink = Run(request);
  ASSERT_TRUE(sink->status.ok()) << sink->status;
  const auto network = store_->LoadVersionModel(vectors_);
  ASSERT_TRUE(network.ok());
  InlineExecutor executor;
  Condition condition = {.class_labels = at::tensor(std::vector<int64_t>{0, 2, 3}), .guidance_scale = 2.0};
  const auto expected =
      Solve(**network, SampleNoise(7, 0, 3, {2}), condition, {.time_grid = TimeGrid::Uniform(4)}, 64, executor);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_TRUE(at::allclose(sink->Values(), expected->detach(), 1e-5, 1e-6));
  EXPECT_EQ(sink->accepted.nfe, 8);
  EXPECT_EQ(sink->samples[1].class_label, 2);
}

TEST_F(SamplerEngineTest, ASplitRequestGivesTheSameSamples) {
  const at::Tensor whole = Run(Request(6))->Values();
  StartEngine({.max_batch = 2});
  EXPECT_TRUE(at::allclose(Run(Request(6))->Values(), whole, 1e-5, 1e-6));
  SampleRequest rest = Request(2);
  rest.seed = 7 + 4;
  EXPECT_TRUE(at::allclose(Run(rest)->Values(), whole.slice(0, 4, 6), 1e-5, 1e-6));
}

TEST_F(SamplerEngineTest, TakesInitialNoise) {
  SampleRequest request = Request(2);
  const at::Tensor noise = SampleNoise(7, 0, 2, {2});
  request.initial_noise.assign(noise.const_data_ptr<float>(), noise.const_data_ptr<float>() + 4);
  request.initial_noise_shape = {2, 2};
  request.seed = 1234;
  EXPECT_TRUE(at::allclose(Run(request)->Values(), Run(Request(2))->Values()));
}

TEST_F(SamplerEngineTest, SendsPreviewsEachSoManySolverSteps) {
  SampleRequest request = Request(2, 6);
  request.preview_interval = 2;
  const auto sink = Run(request);
  ASSERT_EQ(sink->previews.size(), 4u);  // after 2 and 4 steps; after 6 the samples are there
  EXPECT_EQ(sink->previews[0].solver_steps, 2);
  EXPECT_DOUBLE_EQ(sink->previews[0].t, 2.0 / 6);
  EXPECT_EQ(sink->previews[3].index, 1);
  EXPECT_EQ(sink->previews[3].solver_steps, 4);
}

TEST_F(SamplerEngineTest, Rk45ReportsItsEvaluations) {
  SampleRequest request = Request(2, 0);
  request.solver = SolverKind::kRk45;
  const auto sink = Run(request);
  ASSERT_TRUE(sink->status.ok()) << sink->status;
  EXPECT_EQ(sink->accepted.nfe, 0);
  EXPECT_GE(sink->summary.nfe, 7);
  EXPECT_EQ(sink->progress.back().total_solver_steps, 0);
}

TEST_F(SamplerEngineTest, RequestsOfEqualPriorityTakeTurns) {
  StartEngine({.host_threads = 1});  // so that the first one that is done says so first
  Run(Request(1));  // so that the model is there
  CloseDevice();
  const auto slow = std::make_shared<CollectingSink>(), quick = std::make_shared<CollectingSink>();
  Submit(Request(1, 900), slow);
  slow->WaitUntilAccepted();
  Submit(Request(1, 3), quick);
  quick->WaitUntilAccepted();
  EXPECT_EQ(quick->accepted.requests_before, 1);
  OpenDevice();
  quick->Wait();
  slow->Wait();
  EXPECT_TRUE(slow->status.ok());
  EXPECT_TRUE(quick->status.ok());
  EXPECT_LT(quick->done_number, slow->done_number);
}

TEST_F(SamplerEngineTest, AHigherPriorityGoesFirst) {
  StartEngine({.max_batch = 1, .host_threads = 1});  // nothing is left for others, and the first one done says so first
  Run(Request(1));
  CloseDevice();
  const auto normal = std::make_shared<CollectingSink>(), urgent = std::make_shared<CollectingSink>();
  // Equal work, so that taking turns would let the first one end first, and going second puts all of it behind the
  // other.
  SampleRequest request = Request(1, 900);
  Submit(request, normal);
  normal->WaitUntilAccepted();
  request.priority = 1;
  Submit(request, urgent);
  urgent->WaitUntilAccepted();
  OpenDevice();
  normal->Wait();
  urgent->Wait();
  EXPECT_LT(urgent->done_number, normal->done_number);
}

TEST_F(SamplerEngineTest, AFullQueueRefusesWithARetryDelay) {
  SamplerEngineOptions options;
  options.limits.max_samples_per_request = 10;
  options.max_queued_samples = 10;
  StartEngine(options);
  CloseDevice();
  const auto first = std::make_shared<CollectingSink>(), second = std::make_shared<CollectingSink>();
  Submit(Request(8), first);
  const auto refused = engine_->Submit(Request(3), second);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_TRUE(RetryDelayOf(refused.status()).has_value());
  EXPECT_EQ(ReasonOf(refused.status()), "QUEUE_FULL");
  EXPECT_EQ(engine_->queued_samples(), 8);
  OpenDevice();
  first->Wait();
  EXPECT_TRUE(engine_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(engine_->queued_samples(), 0);
  EXPECT_TRUE(Run(Request(3))->status.ok());
}

TEST_F(SamplerEngineTest, ASlowClientPausesItsOwnRequestAlone) {
  StartEngine({.max_batch = 1, .max_unread_bytes = 16});  // two samples of 8 bytes
  const auto slow = std::make_shared<CollectingSink>();
  const auto handle = Submit(Request(6), slow);
  slow->WaitForSamples(2);
  EXPECT_TRUE(Run(Request(1))->status.ok());
  {
    absl::MutexLock lock(&slow->mutex);
    EXPECT_FALSE(slow->done);
    EXPECT_EQ(slow->samples.size(), 2u);
  }
  handle->Consumed(8);
  slow->WaitForSamples(3);
  handle->Consumed(1000);
  slow->Wait();
  EXPECT_TRUE(slow->status.ok());
  EXPECT_EQ(slow->samples.size(), 6u);
}

TEST_F(SamplerEngineTest, CancelEndsARequestBeforeItsNextStep) {
  Run(Request(1));
  CloseDevice();
  const auto sink = std::make_shared<CollectingSink>();
  const auto handle = Submit(Request(4, 1000), sink);
  handle->Cancel(absl::CancelledError("enough"));
  handle->Cancel(absl::InternalError("too late"));
  sink->Wait();
  EXPECT_EQ(sink->status, absl::CancelledError("enough"));
  EXPECT_TRUE(sink->samples.empty());
  OpenDevice();
  EXPECT_TRUE(engine_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(engine_->queued_samples(), 0);
}

TEST_F(SamplerEngineTest, ARequestBeyondItsDeadlineEnds) {
  Run(Request(1));
  CloseDevice();
  SampleRequest request = Request(4);
  request.deadline = clock_.Now() + absl::Seconds(5);
  const auto sink = std::make_shared<CollectingSink>();
  Submit(request, sink);
  clock_.Advance(absl::Seconds(6));
  OpenDevice();
  sink->Wait();
  EXPECT_TRUE(absl::IsDeadlineExceeded(sink->status)) << sink->status;
}

TEST_F(SamplerEngineTest, AnUnknownModelIsNotFound) {
  SampleRequest request = Request();
  request.model = "nothing";
  const auto sink = Run(request);
  EXPECT_TRUE(absl::IsNotFound(sink->status)) << sink->status;
  EXPECT_EQ(FieldOf(sink->status), "model");
  EXPECT_EQ(sink->order, "d");
}

TEST_F(SamplerEngineTest, ValidateOnlyComputesNothing) {
  CloseDevice();
  SampleRequest request = Request();
  request.validate_only = true;
  const auto sink = Run(request);
  OpenDevice();
  EXPECT_TRUE(sink->status.ok()) << sink->status;
  EXPECT_EQ(sink->order, "ad");
}

TEST_F(SamplerEngineTest, AfterStopAcceptingOpenRequestsFinishAndNewOnesAreRefused) {
  CloseDevice();
  const auto open = std::make_shared<CollectingSink>();
  Submit(Request(), open);
  engine_->StopAccepting();
  EXPECT_TRUE(absl::IsUnavailable(engine_->Submit(Request(), std::make_shared<CollectingSink>()).status()));
  EXPECT_FALSE(engine_->WaitIdle(absl::InfinitePast()));
  OpenDevice();
  open->Wait();
  EXPECT_TRUE(open->status.ok()) << open->status;
}

TEST_F(SamplerEngineTest, ItsEndEndsWhatIsOpen) {
  CloseDevice();
  const auto sink = std::make_shared<CollectingSink>();
  Submit(Request(4, 1000), sink);
  OpenDevice();
  engine_.reset();
  EXPECT_TRUE(sink->done);
}

}  // namespace
}  // namespace boss::server
