// What needs a card: skipped, with the reason, on a machine without one.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/torch_guard.h"
#include "core/finetune/trainer.h"
#include "server/device/cuda_loader.h"
#include "server/engine/velocity_runner.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using testing::CollectingSink;

// In float32 without tf32 a card differs from the CPU by the order in which it sums: samples, of the order of 1, may
// differ by this much after ten solver steps.
constexpr double kCudaError = 1e-3;

double Difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// (v(x, 0.5) - 1)^2 on noise from the trainer's generator.
class ConstantObjective final : public TrainingObjective {
 public:
  at::Tensor Loss(const VelocityModel& model, at::Generator& generator) override {
    std::vector<int64_t> shape = model.SampleShape();
    shape.insert(shape.begin(), batch_size());
    const at::Tensor x = at::randn(shape, generator).to(model.device());
    const at::Tensor t = at::full({batch_size()}, 0.5, x.options());
    return (model.Velocity(x, t, {}) - 1).square().mean();
  }
  int64_t batch_size() const override { return 16; }
};

class CudaTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    CudaLibraries libraries = CudaLibraries::Default();
    libraries.boss_cuda = {BOSS_CUDA_LIBRARY};
    auto backend = OpenCuda(libraries);
    if (backend.ok()) {
      backend_ = *std::move(backend);
      SetCudaFloat32Precision(Precision::kFloat32);
    } else {
      reason_ = std::string(backend.status().message());
    }
  }
  static void TearDownTestSuite() { backend_.reset(); }

  void SetUp() override {
    if (backend_ == nullptr) GTEST_SKIP() << "needs a card: " << reason_;
    auto store = ModelStore::Open(folder_.path(), clock_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    boss::testing::PublishTinyModel(*store_, "images", boss::testing::kTinyImageArchitecture);
    boss::testing::PublishTinyModel(*store_, "vectors", boss::testing::kTinyVectorArchitecture);
    worker_ = std::make_unique<DeviceWorker>(
        DeviceWorkerOptions{.device = kDevice, .num_threads = 1, .backend = backend_}, clock_);
  }

  // Requests of every kind, all at once.
  std::vector<at::Tensor> Sample(DeviceWorker& worker, ModelRegistry& registry) {
    SamplerEngine engine({.max_batch = 8}, *store_, registry, worker, EngineMetrics(), clock_);
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const char* model : {"images", "vectors"}) {
      for (const SolverKind solver : {SolverKind::kEuler, SolverKind::kHeun, SolverKind::kRk45}) {
        SampleRequest request;
        request.model = model;
        request.solver = solver;
        request.steps = solver == SolverKind::kRk45 ? 0 : 10;
        request.num_samples = 5;
        request.seed = 7;
        request.class_labels = {1};
        request.guidance_scale = solver == SolverKind::kHeun ? 2 : 1;
        request.format = SampleFormat::kFloat32;
        sinks.push_back(std::make_shared<CollectingSink>());
        EXPECT_TRUE(engine.Submit(request, sinks.back()).ok());
      }
    }
    std::vector<at::Tensor> samples;
    for (const auto& sink : sinks) {
      sink->Wait();
      EXPECT_TRUE(sink->status.ok()) << sink->status;
      samples.push_back(sink->status.ok() ? sink->Values() : at::Tensor());
    }
    return samples;
  }

  ModelRegistryOptions OnCuda() {
    return {.device = kDevice, .max_batch = 8, .backend = backend_, .executor = &worker_->exclusive_executor()};
  }

  static inline const at::Device kDevice{at::kCUDA, 0};
  static inline std::shared_ptr<const DeviceBackend> backend_;
  static inline std::string reason_;
  boss::testing::TempFolder folder_;
  const RealClock clock_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<DeviceWorker> worker_;
};

TEST_F(CudaTest, TellsWhatTheCardIs) {
  const DeviceFacts facts = backend_->Facts(kDevice);
  EXPECT_FALSE(facts.description.empty());
  EXPECT_EQ(facts.uuid.size(), 40u) << facts.uuid;
  EXPECT_GT(facts.memory_bytes, 0);
  EXPECT_GT(facts.free_bytes, 0);
}

TEST_F(CudaTest, SamplesAreThoseOfTheCpu) {
  DeviceWorker cpu({.num_threads = 1}, clock_);
  ModelRegistry cpu_models(*store_), cuda_models(*store_, OnCuda());
  const std::vector<at::Tensor> expected = Sample(cpu, cpu_models), samples = Sample(*worker_, cuda_models);
  ASSERT_EQ(samples.size(), expected.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    ASSERT_TRUE(samples[i].defined() && expected[i].defined()) << i;
    EXPECT_LE(Difference(samples[i], expected[i]), kCudaError) << i;
  }
}

TEST_F(CudaTest, GraphsGiveTheVelocitiesThatTheNetworkGives) {
  for (const char* architecture : {boss::testing::kTinyImageArchitecture, boss::testing::kTinyVectorArchitecture}) {
    std::shared_ptr<VelocityModel> network = boss::testing::TinyModel(architecture, /*seed=*/3);
    EXPECT_TRUE(worker_
                    ->RunAlone([&] {
                      network->To(kDevice);
                      return absl::OkStatus();
                    })
                    .ok());
    VelocityRunner runner(network, {.buckets = BatchBuckets(8), .channels_last = true, .backend = backend_});
    const absl::Status warm = runner.WarmUp(worker_->exclusive_executor());
    ASSERT_TRUE(warm.ok()) << warm;
    EXPECT_EQ(runner.num_graphs(), 4);
    std::vector<int64_t> shape = network->SampleShape();
    shape.insert(shape.begin(), 0);
    for (const int64_t rows : {1, 3, 8, 2}) {
      shape[0] = rows;
      double difference = -1;
      const absl::Status status = worker_->RunAlone([&] {
        return GuardTorch("velocities", [&]() -> absl::Status {
          const c10::InferenceMode inference_mode;
          const at::Tensor x = at::randn(shape).to(kDevice), t = at::rand({rows}).to(kDevice);
          const Condition condition = {.class_labels = at::randint(0, 4, {rows}, at::kLong).to(kDevice)};
          difference = Difference(runner.Velocity(x, t, condition), network->Velocity(x, t, condition));
          return absl::OkStatus();
        });
      });
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_GE(difference, 0);
      EXPECT_LE(difference, 1e-4) << rows;
    }
  }
}

TEST_F(CudaTest, TrainingRunsBesideSampling) {
  std::unique_ptr<VelocityModel> model = boss::testing::TinyModel(boss::testing::kTinyVectorArchitecture, /*seed=*/3);
  model->To(kDevice);
  Trainer trainer(std::move(model), {.learning_rate = 1e-2});
  ConstantObjective objective;
  ModelRegistry models(*store_, OnCuda());
  std::vector<at::Tensor> alone = Sample(*worker_, models), beside;
  std::vector<double> losses;
  std::thread training([&] {
    for (int i = 0; i < 200; ++i) {
      const absl::Status status = worker_->RunTraining([&]() -> absl::Status {
        auto metrics = trainer.Step(objective);
        if (metrics.ok()) losses.push_back(metrics->loss);
        return metrics.status();
      });
      EXPECT_TRUE(status.ok()) << status;
    }
  });
  beside = Sample(*worker_, models);
  training.join();
  ASSERT_EQ(losses.size(), 200u);
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_LE(Difference(alone[i], beside[i]), kCudaError) << i;
}

}  // namespace
}  // namespace boss::server
