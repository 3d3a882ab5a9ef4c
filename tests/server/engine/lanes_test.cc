// Requests that share their batches.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "core/flow/noise.h"
#include "core/solver/solver.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/support/prometheus_text.h"

namespace boss::server {
namespace {

using testing::CollectingSink;
using testing::EngineTest;

double Value(const Metrics& metrics, const std::string& name) {
  const auto text = boss::testing::ParsePrometheusText(metrics.Text());
  EXPECT_TRUE(text.ok()) << text.status();
  return text->Sum(name);
}

// How far a sample may differ from the one that was computed alone: the kernels round batches of different sizes
// differently. Samples are of the order of 1.
constexpr double kRounding = 1e-5;

class LanesTest : public EngineTest {
 protected:
  // All at once, so that they share batches from the first one on.
  std::vector<std::shared_ptr<CollectingSink>> RunTogether(const std::vector<SampleRequest>& requests) {
    Run(Request(1));  // so that the model is there
    CloseDevice();
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const SampleRequest& request : requests) {
      sinks.push_back(std::make_shared<CollectingSink>());
      Submit(request, sinks.back());
      sinks.back()->WaitUntilAccepted();
    }
    OpenDevice();
    for (const auto& sink : sinks) sink->Wait();
    return sinks;
  }

  // Everything that lanes differ in.
  std::vector<SampleRequest> Mixture() const {
    SampleRequest heun = Request(3, 5), guided = Request(4, 3), times = Request(2), own_noise = Request(2, 6),
                  many = Request(90, 2);
    heun.solver = SolverKind::kHeun;
    heun.seed = 100;
    guided.class_labels = {0, 1, 2, -1};
    guided.guidance_scale = 3;
    guided.seed = 200;
    times.schedule = ScheduleSource::kExplicit;
    times.time_grid = {0, 0.1, 0.15, 0.7, 1};
    times.steps = 0;
    times.class_labels = {1};
    own_noise.initial_noise = {0.5, -0.5, 1, 2};
    own_noise.initial_noise_shape = {2, 2};
    own_noise.solver = SolverKind::kHeun;
    own_noise.class_labels = {2};
    own_noise.guidance_scale = 0.5;
    many.seed = 300;
    return {Request(1, 9), heun, guided, times, own_noise, many};
  }

  // What the solver makes of the request by itself.
  at::Tensor Alone(const SampleRequest& request) const {
    const auto network = store_->LoadVersionModel(vectors_);
    EXPECT_TRUE(network.ok()) << network.status();
    SolverOptions options{.solver = request.solver};
    options.time_grid =
        request.time_grid.empty() ? TimeGrid::Uniform(request.steps) : *TimeGrid::Create(request.time_grid);
    if (request.solver == SolverKind::kMultistep) {
      const StoredScheduleSet set = boss::testing::TinyMultistepSet(10, 6, request.guidance_scale);
      const Schedule& schedule = *set.set.Find(request.steps);
      options.time_grid = schedule.time_grid;
      options.coefficients = schedule.coefficients;
    }
    at::Tensor noise = SampleNoise(request.seed, 0, request.num_samples, {2});
    if (!request.initial_noise.empty()) noise = at::tensor(request.initial_noise).view({-1, 2});
    Condition condition;
    condition.guidance_scale = request.guidance_scale;
    if (!request.class_labels.empty()) {
      std::vector<int64_t> labels = request.class_labels;
      labels.resize(static_cast<size_t>(request.num_samples), labels.front());
      for (int64_t& label : labels) label = label < 0 ? 3 : label;
      condition.class_labels = at::tensor(labels);
    }
    InlineExecutor executor;
    return Solve(**network, noise, condition, options, request.num_samples, executor)->detach();
  }
};

TEST_F(LanesTest, WhatSharesABatchIsWhatItWouldBeAlone) {
  const std::vector<SampleRequest> requests = Mixture();
  const auto sinks = RunTogether(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(sinks[i]->status.ok()) << i << ": " << sinks[i]->status;
    ASSERT_EQ(static_cast<int64_t>(sinks[i]->samples.size()), requests[i].num_samples);
    const double difference = (sinks[i]->Values() - Alone(requests[i])).abs().max().item<double>();
    EXPECT_LE(difference, kRounding) << "request " << i;
  }
  EXPECT_EQ(sinks[1]->summary.nfe, 10);  // heun: two a step
  EXPECT_EQ(sinks[2]->summary.nfe, 6);   // guidance: two a step
  EXPECT_EQ(sinks[4]->summary.nfe, 24);
  EXPECT_EQ(sinks[5]->progress.back().solver_steps, 180);
}

TEST_F(LanesTest, MultistepLanesAreWhatTheSolverMakesAndDisturbNobody) {
  const StoredScheduleSet set = boss::testing::TinyMultistepSet(10, 6),
                          guided_set = boss::testing::TinyMultistepSet(10, 6, 3);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, guided_set).ok());
  SampleRequest six = Request(3, 6), four = Request(40, 4), guided = Request(4, 5), deterministic = Request(3, 6);
  for (SampleRequest* request : {&six, &four, &guided, &deterministic}) request->solver = SolverKind::kMultistep;
  four.seed = 400;
  guided.class_labels = {0, 1, 2, -1};
  guided.guidance_scale = 3;
  deterministic.deterministic = true;
  std::vector<SampleRequest> requests = Mixture();
  requests.insert(requests.end(), {six, four, guided, deterministic});
  // Slots that a multistep lane leaves hold its velocities: the next one there must not see them.
  for (int round = 0; round < 2; ++round) {
    const auto sinks = RunTogether(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(sinks[i]->status.ok()) << i << ": " << sinks[i]->status;
      const double difference = (sinks[i]->Values() - Alone(requests[i])).abs().max().item<double>();
      EXPECT_LE(difference, kRounding) << "round " << round << ", request " << i;
    }
    EXPECT_EQ(sinks[requests.size() - 4]->summary.nfe, 6);   // as Euler's
    EXPECT_EQ(sinks[requests.size() - 2]->summary.nfe, 10);  // guidance: two a step
  }
}

TEST_F(LanesTest, MultistepWithTheCoefficientsOfEulersStepsGivesItsBits) {
  StoredScheduleSet set = boss::testing::TinyMultistepSet(10, 5);
  set.client_name = "eulers";
  for (Schedule& schedule : set.set.schedules) {
    for (int step = 0; step < schedule.time_grid.steps(); ++step)
      schedule.coefficients[static_cast<size_t>(step)] = {1.0, {schedule.time_grid.StepSize(step)}};
  }
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyMultistepSet(10, 6)).ok());
  const absl::Span<const double> times = set.set.Find(5)->time_grid.times();
  SampleRequest euler = Request(11, 0), multistep = Request(11, 5), scaled = Request(3, 6);
  euler.schedule = ScheduleSource::kExplicit;
  euler.time_grid.assign(times.begin(), times.end());
  multistep.schedule = ScheduleSource::kNamed;
  multistep.schedule_set = "eulers";
  multistep.solver = scaled.solver = SolverKind::kMultistep;
  scaled.seed = 600;
  const auto expect_equal = [&](const std::vector<SampleRequest>& company) {
    std::vector<at::Tensor> values;
    for (const SampleRequest& request : {euler, multistep}) {
      std::vector<SampleRequest> requests = company;
      requests.push_back(request);
      const auto sink = RunTogether(requests).back();
      ASSERT_TRUE(sink->status.ok()) << sink->status;
      EXPECT_EQ(sink->accepted.solver, request.solver);
      EXPECT_EQ(sink->accepted.time_grid, euler.time_grid);
      values.push_back(sink->Values());
    }
    EXPECT_TRUE(at::equal(values[0], values[1])) << (values[0] - values[1]).abs().max().item<double>();
  };
  expect_equal({});
  expect_equal({scaled});  // whose steps scale the states of their batch
  euler.deterministic = multistep.deterministic = true;
  expect_equal({});
}

TEST_F(LanesTest, ALaneKeepsItsVelocitiesWhereAnotherOneNeedsMore) {
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyMultistepSet(10, 6)).ok());
  StartEngine({.max_batch = 8, .max_lanes = 4});
  SampleRequest heun = Request(2, 6), multistep = Request(2, 6);
  heun.solver = SolverKind::kHeun;
  multistep.solver = SolverKind::kMultistep;
  multistep.seed = 500;
  // The third request gets the lanes of the second one after three evaluations, in the middle of a heun step.
  const std::vector<SampleRequest> requests = {heun, Request(2, 3), multistep};
  const auto sinks = RunTogether(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(sinks[i]->status.ok()) << i << ": " << sinks[i]->status;
    const double difference = (sinks[i]->Values() - Alone(requests[i])).abs().max().item<double>();
    EXPECT_LE(difference, kRounding) << "request " << i;
  }
}

TEST_F(LanesTest, EveryLaneHasItsOwnCondition) {
  const VersionKey key =
      boss::testing::PublishTinyModel(*store_, "conditioned", boss::testing::kTinyConditionedArchitecture);
  const auto network = store_->LoadVersionModel(key);
  ASSERT_TRUE(network.ok()) << network.status();
  SampleRequest none = Request(2, 4), one_for_all = Request(3, 5), guided = Request(2, 6), adaptive = Request(2, 3);
  for (SampleRequest* request : {&none, &one_for_all, &guided, &adaptive}) request->model = "conditioned";
  one_for_all.conditions["embedding"] = at::tensor({1.0F, -2.0F, 0.5F}).unsqueeze(0);
  guided.conditions["embedding"] = at::arange(6, at::kFloat).view({2, 3}) / 4;
  guided.negative_conditions["embedding"] = at::full({1, 3}, -1.0F);
  guided.negative_class_labels = {2};
  guided.class_labels = {0, 1};
  guided.guidance_scale = 2.5;
  adaptive.solver = SolverKind::kRk45;
  adaptive.conditions["embedding"] = at::arange(6, at::kFloat).view({2, 3}) / 4;
  Run(none);
  const std::vector<SampleRequest> requests = {none, one_for_all, guided, adaptive};
  const auto sinks = RunTogether(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const SampleRequest& request = requests[i];
    ASSERT_TRUE(sinks[i]->status.ok()) << i << ": " << sinks[i]->status;
    Condition condition;
    condition.guidance_scale = request.guidance_scale;
    for (const auto& [name, tensor] : request.conditions)
      condition.tensors.emplace_back(name, tensor.expand({request.num_samples, 3}));
    for (const auto& [name, tensor] : request.negative_conditions)
      condition.negative_tensors.emplace_back(name, tensor.expand({request.num_samples, 3}));
    if (!request.class_labels.empty()) {
      condition.class_labels = at::tensor(request.class_labels);
      condition.negative_class_labels = at::full({request.num_samples}, 2, at::kLong);
    }
    InlineExecutor executor;
    const SolverOptions options{.solver = request.solver, .time_grid = TimeGrid::Uniform(request.steps)};
    const auto alone = Solve(**network, SampleNoise(request.seed, 0, request.num_samples, {2}), condition, options,
                             request.num_samples, executor);
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_LE((sinks[i]->Values() - *alone).abs().max().item<double>(), kRounding) << "request " << i;
  }
  EXPECT_GT((sinks[0]->Values() - sinks[1]->Values().slice(0, 0, 2)).abs().max().item<double>(), 0.01);
  EXPECT_EQ(sinks[2]->summary.nfe, 12);
}

TEST_F(LanesTest, RequestsShareEvaluations) {
  Metrics metrics("0", "cpu");
  metrics_ = metrics.engine();
  StartEngine({});
  Run(Request(1));
  const auto evaluations = [&] { return Value(metrics, "boss_evaluations_total"); };
  const double before = evaluations();
  RunTogether(std::vector<SampleRequest>(16, Request(1, 8)));
  // One run of a single sample to have the model there, and one batch of 16 samples.
  EXPECT_EQ(evaluations() - before, 4 + 8);
  engine_.reset();
}

TEST_F(LanesTest, LanesThatAreDoneAreReplacedAtTheNextEvaluation) {
  Metrics metrics("0", "cpu");
  metrics_ = metrics.engine();
  StartEngine({.max_batch = 8, .max_lanes = 8});
  Run(Request(1));
  const double before = Value(metrics, "boss_evaluations_total");
  // 8 lanes of which half are done after 2 steps; the other request's samples fill in.
  RunTogether({Request(4, 4), Request(16, 2)});
  // 4 x 4 + 16 x 2 = 48 evaluations of samples, 8 at a time.
  EXPECT_EQ(Value(metrics, "boss_evaluations_total") - before, 4 + 6);
  engine_.reset();
}

TEST_F(LanesTest, ASmallRequestIsNotHeldUpByALargeOne) {
  StartEngine({.host_threads = 1});  // which tells the ends in their order
  const auto sinks = RunTogether({Request(4000, 10), Request(1, 10)});
  EXPECT_TRUE(sinks[0]->status.ok() && sinks[1]->status.ok());
  EXPECT_LT(sinks[1]->done_number, sinks[0]->done_number);
}

TEST_F(LanesTest, ALaneThatDivergesHarmsNoOther) {
  SampleRequest bad = Request(2, 4), good = Request(2, 4);
  bad.initial_noise = {std::numeric_limits<float>::infinity(), 0, std::numeric_limits<float>::quiet_NaN(), 0};
  bad.initial_noise_shape = {2, 2};
  bad.solver = SolverKind::kHeun;
  const auto first = RunTogether({bad, good});
  EXPECT_LE((first[1]->Values() - Alone(good)).abs().max().item<double>(), kRounding);
  // Nor those that come after it into its slot.
  good.solver = SolverKind::kHeun;
  EXPECT_LE((Run(good)->Values() - Alone(good)).abs().max().item<double>(), kRounding);
}

TEST_F(LanesTest, DeterministicSamplesAreTheSameBitsInAnyCompany) {
  SampleRequest request = Request(11, 5);
  request.deterministic = true;
  request.class_labels = {1};
  const at::Tensor alone = Run(request)->Values();
  std::vector<SampleRequest> company = Mixture();
  company.push_back(request);
  EXPECT_TRUE(RunTogether(company).back()->Values().equal(alone));
  request.num_samples = 3;
  EXPECT_TRUE(Run(request)->Values().equal(alone.slice(0, 0, 3)));
  StartEngine({.max_batch = 5});
  EXPECT_TRUE(Run(request)->Values().equal(alone.slice(0, 0, 3)));
}

TEST_F(LanesTest, CancellingFreesTheLanesForOthers) {
  StartEngine({.max_batch = 4, .max_lanes = 4, .max_unread_bytes = 8});
  const auto hoarder = std::make_shared<CollectingSink>();
  const auto handle = Submit(Request(100, 3), hoarder);
  hoarder->WaitForSamples(4);  // and pauses, with lanes of its own or without
  handle->Cancel(absl::CancelledError("gone"));
  hoarder->Wait();
  EXPECT_TRUE(absl::IsCancelled(hoarder->status));
  EXPECT_TRUE(Run(Request(4, 3))->status.ok());
  EXPECT_EQ(engine_->queued_samples(), 0);
}

TEST_F(LanesTest, AClientThatDoesNotReadHoldsUpNobodyWithItsLanes) {
  StartEngine({.max_batch = 4, .max_lanes = 4, .max_unread_bytes = 8});
  const auto hoarder = std::make_shared<CollectingSink>();
  SampleRequest request = Request(100, 6);
  request.preview_interval = 1;  // pauses in the middle of its first samples
  const auto handle = Submit(request, hoarder);
  const at::Tensor alone = Alone(Request(1, 3));
  for (int i = 0; i < 3; ++i) {
    const auto sink = Run(Request(1, 3));
    ASSERT_TRUE(sink->status.ok()) << sink->status;
    EXPECT_LE((sink->Values() - alone).abs().max().item<double>(), kRounding);
  }
  EXPECT_TRUE(hoarder->samples.empty());
  // Once it reads, it goes on where it was.
  handle->Consumed(1 << 20);
  hoarder->Wait();
  EXPECT_TRUE(hoarder->status.ok()) << hoarder->status;
  EXPECT_LE((hoarder->Values() - Alone(request)).abs().max().item<double>(), kRounding);
}

TEST_F(LanesTest, PreviewsComeOfEveryLaneOfASharedBatch) {
  SampleRequest previewed = Request(3, 6);
  previewed.preview_interval = 2;
  const auto sinks = RunTogether({Request(5, 3), previewed});
  EXPECT_TRUE(sinks[0]->previews.empty());
  ASSERT_EQ(sinks[1]->previews.size(), 6u);
  std::vector<int> steps;
  for (const EncodedSample& preview : sinks[1]->previews) steps.push_back(preview.solver_steps);
  EXPECT_EQ(std::count(steps.begin(), steps.end(), 2), 3);
  EXPECT_EQ(std::count(steps.begin(), steps.end(), 4), 3);
}

}  // namespace
}  // namespace boss::server
