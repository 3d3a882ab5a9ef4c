// Batches that do not fit into the device's memory.
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "core/flow/noise.h"
#include "server/device/host_memory.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/support/analytic_models.h"
#include "tests/support/prometheus_text.h"

namespace boss::server {
namespace {

using testing::CollectingSink;
using testing::EngineTest;

constexpr double kRate = 0.8;

// dx/dt = rate x, whatever the label, in a memory that holds max_rows of a batch.
class OutOfMemoryTest : public EngineTest {
 protected:
  OutOfMemoryTest() {
    engine_.reset();
    ModelRegistryOptions options;
    options.load_network = [this](const VersionKey&) -> absl::StatusOr<std::unique_ptr<VelocityModel>> {
      return std::make_unique<boss::testing::FunctionModel>(
          [this](const at::Tensor& x, const at::Tensor&, const Condition&) {
            TORCH_CHECK_WITH(OutOfMemoryError, x.size(0) <= max_rows_, "CUDA out of memory");
            largest_ = std::max<int64_t>(largest_, x.size(0));
            return x * kRate;
          },
          /*dim=*/2, /*num_classes=*/3);
    };
    registry_ = std::make_unique<ModelRegistry>(*store_, options);
    metrics_ = all_metrics_.engine();
    StartEngine({.max_batch = 32});
    Run(Request(1));  // so that the model is there
  }
  ~OutOfMemoryTest() override { engine_.reset(); }

  double Retries() const {
    const auto text = boss::testing::ParsePrometheusText(all_metrics_.Text());
    EXPECT_TRUE(text.ok()) << text.status();
    return text->Sum("boss_too_large_batches_total");
  }

  // All at once.
  std::vector<std::shared_ptr<CollectingSink>> RunTogether(const std::vector<SampleRequest>& requests) {
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

  // What euler and heun make of the noise.
  static at::Tensor Expected(const SampleRequest& request) {
    const double h = kRate / request.steps;
    const double factor = request.solver == SolverKind::kHeun ? 1 + h + h * h / 2 : 1 + h;
    at::Tensor x = SampleNoise(request.seed, 0, request.num_samples, {2});
    for (int step = 0; step < request.steps; ++step) x = x * factor;
    return x;
  }

  Metrics all_metrics_{"0", "cpu"};
  std::atomic<int64_t> max_rows_ = 4;
  std::atomic<int64_t> largest_ = 0;
};

TEST_F(OutOfMemoryTest, ABatchIsHalvedUntilItFits) {
  const auto sink = Run(Request(40, 3));
  ASSERT_TRUE(sink->status.ok()) << sink->status;
  EXPECT_LE((sink->Values() - Expected(Request(40, 3))).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(sink->summary.nfe, 3);
  EXPECT_EQ(Retries(), 3);  // 32, 16, 8; then the group keeps to 4
  EXPECT_EQ(largest_, 4);
  EXPECT_EQ(engine_->queued_samples(), 0);
}

TEST_F(OutOfMemoryTest, NobodyOfTheBatchIsHarmed) {
  SampleRequest heun = Request(9, 4), guided = Request(6, 2), many = Request(30, 5);
  heun.solver = SolverKind::kHeun;
  heun.seed = 100;
  guided.class_labels = {1};
  guided.guidance_scale = 2;
  many.seed = 200;
  const std::vector<SampleRequest> requests = {heun, guided, many, Request(1, 7)};
  const auto sinks = RunTogether(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(sinks[i]->status.ok()) << i << ": " << sinks[i]->status;
    EXPECT_LE((sinks[i]->Values() - Expected(requests[i])).abs().max().item<double>(), 1e-5) << i;
  }
  EXPECT_GT(Retries(), 0);
}

TEST_F(OutOfMemoryTest, OnlyARequestWhoseSampleAloneDoesNotFitFails) {
  max_rows_ = 1;
  SampleRequest guided = Request(3, 4);  // two rows a sample
  guided.class_labels = {1};
  guided.guidance_scale = 2;
  const auto sinks = RunTogether({Request(5, 4), guided, Request(2, 3)});
  EXPECT_TRUE(absl::IsResourceExhausted(sinks[1]->status)) << sinks[1]->status;
  for (const int i : {0, 2}) EXPECT_TRUE(sinks[i]->status.ok()) << sinks[i]->status;
  EXPECT_LE((sinks[0]->Values() - Expected(Request(5, 4))).abs().max().item<double>(), 1e-5);
}

TEST_F(OutOfMemoryTest, TheBoundGoesWithTheRequestsThatFoundIt) {
  Run(Request(10, 2));
  EXPECT_EQ(largest_, 2);  // 10, 5, 2
  EXPECT_TRUE(engine_->WaitIdle(absl::InfiniteFuture()));
  max_rows_ = 100;
  Run(Request(10, 2));
  EXPECT_EQ(largest_, 10);
}

using HostMemoryTest = EngineTest;

TEST_F(HostMemoryTest, ARequestWhoseTensorsTheHostCannotHoldIsRefused) {
  constexpr int64_t kDimension = 1 << 16;
  boss::testing::PublishTinyModel(*store_, "wide",
                                  R"({"model": {"architecture": "mlp", "dim": 65536, "hidden": 1, "layers": 1}})");
  SampleRequest request = Request(/*num_samples=*/16);
  request.model = "wide";
  request.initial_noise_shape = {16, kDimension};
  request.initial_noise.assign(16 * kDimension, 0.5F);  // 4 MiB
  const absl::Cleanup unlimited = [] { LimitHostMemory(std::numeric_limits<int64_t>::max()); };
  LimitHostMemory(2 << 20);
  const auto sink = Run(request);
  EXPECT_TRUE(absl::IsResourceExhausted(sink->status)) << sink->status;
  EXPECT_EQ(sink->order, "d");
  EXPECT_EQ(engine_->queued_samples(), 0);
  EXPECT_TRUE(Run(Request())->status.ok());
}

TEST_F(HostMemoryTest, AModelThatTheHostCannotHoldIsTriedAgain) {
  engine_.reset();
  bool fits = false;
  ModelRegistryOptions options;
  options.load_network = [&](const VersionKey& key) {
    TORCH_CHECK_WITH(OutOfMemoryError, fits, "no host memory");
    return store_->LoadVersionModel(key);
  };
  registry_ = std::make_unique<ModelRegistry>(*store_, options);
  StartEngine({});
  const auto sink = Run(Request());
  EXPECT_TRUE(absl::IsResourceExhausted(sink->status)) << sink->status;
  fits = true;
  EXPECT_TRUE(Run(Request())->status.ok());
}

}  // namespace
}  // namespace boss::server
