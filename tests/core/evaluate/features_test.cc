#include "core/evaluate/features.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include "core/evaluate/classifier.h"
#include "core/io/atomic_file.h"
#include "core/io/image_dataset.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kShipped[] = BOSS_SOURCE_DIR "/deploy/models/fashion-mnist/classifier.safetensors";

// Runs a number of steps, then refuses.
class CountingExecutor final : public StepExecutor {
 public:
  explicit CountingExecutor(int allowed) : allowed_(allowed) {}
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override {
    if (steps_ == allowed_) return absl::CancelledError("enough");
    ++steps_;
    return step();
  }
  int steps() const { return steps_; }

 private:
  const int allowed_;
  int steps_ = 0;
};

at::Tensor RandomImages(int64_t count) {
  return at::rand({count, 1, 28, 28}, at::detail::createCPUGenerator(1), at::TensorOptions(at::kFloat)) * 2 - 1;
}

std::string SaveScript(const testing::TempFolder& folder, const std::string& forward) {
  torch::jit::Module module("features");
  module.register_parameter("scale", at::full({1}, 2.0f), /*is_buffer=*/true);
  module.define(forward);
  module.save(folder / "features.pt");
  return folder / "features.pt";
}

TEST(ClassifierFeaturesTest, AreThePenultimateLayer) {
  const auto network = LoadClassifierFeatures(kShipped);
  ASSERT_TRUE(network.ok()) << network.status();
  const at::Tensor images = RandomImages(3);
  const at::Tensor features = (*network)->Features(images);
  EXPECT_THAT(features.sizes().vec(), ElementsAre(3, 64));
  EXPECT_TRUE(at::equal(features, Classifier::Load(kShipped)->Features(images)));
  EXPECT_THAT((*network)->Description(), HasSubstr("64 features"));
  EXPECT_EQ(LoadClassifierFeatures("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

TEST(ComputeStatisticsTest, GoesBatchByBatchThroughTheExecutor) {
  const auto network = LoadClassifierFeatures(kShipped);
  ASSERT_TRUE(network.ok()) << network.status();
  const at::Tensor images = RandomImages(10);
  CountingExecutor executor(100);
  const absl::StatusOr<FeatureStatistics> statistics = ComputeStatistics(**network, images, 4, executor);
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  EXPECT_EQ(executor.steps(), 3);
  EXPECT_EQ(statistics->count(), 10);
  EXPECT_TRUE(at::allclose(statistics->Mean(), (*network)->Features(images).to(at::kDouble).mean(0), 1e-5, 1e-6));

  CountingExecutor refusing(2);
  EXPECT_EQ(ComputeStatistics(**network, images, 4, refusing).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(ComputeStatistics(**network, images, 0, executor).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ComputeStatisticsTest, RealImagesAreCloserToEachOtherThanToNoise) {
  const auto network = LoadClassifierFeatures(kShipped);
  const absl::StatusOr<ImageDataset> data = ReadFashionMnist(/*train=*/false);
  ASSERT_TRUE(network.ok() && data.ok());
  InlineExecutor executor;
  const auto statistics = [&](const at::Tensor& images) {
    return ComputeStatistics(**network, images, 256, executor).value();
  };
  const FeatureStatistics first = statistics(ToModelRange(data->images.slice(0, 0, 1000)));
  const FeatureStatistics second = statistics(ToModelRange(data->images.slice(0, 1000, 2000)));
  const FeatureStatistics noise = statistics(RandomImages(1000));
  EXPECT_GT(FrechetDistance(first, noise).value(), 10 * FrechetDistance(first, second).value());
}

TEST(TorchScriptFeaturesTest, RunTheModule) {
  const testing::TempFolder folder;
  const auto network = LoadTorchScriptFeatures(SaveScript(folder, R"(
    def forward(self, x):
      return x.flatten(1)[:, :5] * self.scale
  )"));
  ASSERT_TRUE(network.ok()) << network.status();
  const at::Tensor images = RandomImages(3);
  EXPECT_TRUE(at::equal((*network)->Features(images), images.flatten(1).slice(1, 0, 5) * 2));
  EXPECT_EQ((*network)->Description(), "TorchScript features.pt");
}

TEST(TorchScriptFeaturesTest, ModulesThatReturnSomethingElseAreReported) {
  const testing::TempFolder folder;
  InlineExecutor executor;
  for (const char* forward :
       {"def forward(self, x):\n  return x, x\n", "def forward(self, x):\n  return x\n",
        "def forward(self, x):\n  return x.flatten(1)[:1]\n", "def forward(self, x):\n  assert False\n"}) {
    const auto network = LoadTorchScriptFeatures(SaveScript(folder, forward));
    ASSERT_TRUE(network.ok()) << network.status();
    EXPECT_FALSE(ComputeStatistics(**network, RandomImages(4), 4, executor).ok()) << forward;
  }
}

TEST(TorchScriptFeaturesTest, FilesThatAreNoModuleAreDataLoss) {
  const testing::TempFolder folder;
  EXPECT_EQ(LoadTorchScriptFeatures(folder / "missing.pt").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder / "foreign.pt", "no zip file").ok());
  EXPECT_EQ(LoadTorchScriptFeatures(folder / "foreign.pt").status().code(), absl::StatusCode::kDataLoss);
  const std::string path = SaveScript(folder, "def forward(self, x):\n  return x.flatten(1)\n");
  const std::string bytes = ReadFile(path).value();
  ASSERT_TRUE(WriteFileAtomically(path, std::string_view(bytes).substr(0, bytes.size() / 2)).ok());
  EXPECT_EQ(LoadTorchScriptFeatures(path).status().code(), absl::StatusCode::kDataLoss);
  const absl::Status no_forward =
      LoadTorchScriptFeatures(SaveScript(folder, "def other(self, x):\n  return x\n")).status();
  EXPECT_EQ(no_forward.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(no_forward.ToString(), HasSubstr("no forward()"));
}

}  // namespace
}  // namespace boss
