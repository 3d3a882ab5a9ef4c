#include "core/evaluate/classifier.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/io/safetensors.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kShipped[] = BOSS_SOURCE_DIR "/deploy/models/fashion-mnist/classifier.safetensors";

// 8 x 8 noise; the label says which half is brighter.
ImageDataset Halves(int64_t count, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  ImageDataset data;
  data.labels = at::randint(2, {count}, generator, at::TensorOptions(at::kLong));
  at::Tensor images = at::randint(100, {count, 1, 8, 8}, generator, at::TensorOptions(at::kByte));
  for (int64_t i = 0; i < count; ++i)
    images[i].slice(2, 4 * data.labels[i].item<int64_t>(), 4 * data.labels[i].item<int64_t>() + 4) += 60;
  data.images = images;
  return data;
}

Classifier Train(uint64_t seed, std::vector<double>* losses) {
  // So little work is done faster by one thread than by several that wait for each other on a busy machine.
  at::set_num_threads(1);
  Classifier classifier(1, 8, 16, 2, seed);
  const absl::Status status =
      TrainClassifier(classifier, Halves(1000, 1), 3, seed, [losses](int, double loss) { losses->push_back(loss); });
  EXPECT_TRUE(status.ok()) << status;
  return classifier;
}

TEST(ClassifierTest, LearnsAndRepeatsWithTheSameSeed) {
  std::vector<double> losses, repeated, other;
  const Classifier classifier = Train(1, &losses);
  ASSERT_EQ(losses.size(), 3u);
  EXPECT_LT(losses[2], losses[0]);
  EXPECT_GT(Accuracy(classifier, Halves(200, 2)), 0.95);

  const Classifier again = Train(1, &repeated);
  EXPECT_EQ(losses, repeated);
  const auto weights = classifier.Parameters(), weights_again = again.Parameters();
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_TRUE(at::equal(weights[i], weights_again[i])) << i;
    EXPECT_FALSE(weights[i].requires_grad());
  }
  Train(2, &other);
  EXPECT_NE(losses, other);
}

TEST(ClassifierTest, RefusesDataThatDoesNotFit) {
  Classifier classifier(1, 8, 16, 2, 1);
  const auto train = [&classifier](const ImageDataset& data, int epochs) {
    return TrainClassifier(classifier, data, epochs, 1, [](int, double) {}).code();
  };
  ImageDataset data = Halves(4, 1);
  EXPECT_EQ(train(data, 0), absl::StatusCode::kInvalidArgument);
  data.labels = at::tensor({0, 1, 2, 0}, at::kLong);
  EXPECT_EQ(train(data, 1), absl::StatusCode::kInvalidArgument);
  data.labels = at::Tensor();
  EXPECT_EQ(train(data, 1), absl::StatusCode::kInvalidArgument);
  data = Halves(4, 1);
  data.images = at::zeros({4, 3, 8, 8}, at::kByte);
  EXPECT_EQ(train(data, 1), absl::StatusCode::kInvalidArgument);
}

TEST(ClassifierTest, SavedWeightsGiveTheSameLogits) {
  const testing::TempFolder folder;
  const Classifier classifier(3, 12, 7, 5, 9);
  ASSERT_TRUE(classifier.Save(folder / "classifier").ok());
  const absl::StatusOr<Classifier> loaded = Classifier::Load(folder / "classifier");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const at::Tensor images = at::randn({4, 3, 12, 12}, at::detail::createCPUGenerator(1), at::TensorOptions(at::kFloat));
  EXPECT_THAT(loaded->Features(images).sizes().vec(), ElementsAre(4, 7));
  EXPECT_THAT(loaded->Logits(images).sizes().vec(), ElementsAre(4, 5));
  EXPECT_TRUE(at::equal(loaded->Logits(images), classifier.Logits(images)));
}

TEST(ClassifierTest, DamagedFilesAreDataLoss) {
  const testing::TempFolder folder;
  const std::string path = folder / "classifier";
  ASSERT_TRUE(Classifier(1, 8, 4, 2, 1).Save(path).ok());
  const Safetensors good = ReadSafetensors(path).value();
  const auto load = [&path](const Safetensors& file) {
    EXPECT_TRUE(WriteSafetensors(path, file).ok());
    return Classifier::Load(path).status();
  };
  ASSERT_TRUE(load(good).ok());

  Safetensors file = good;
  file.metadata.clear();
  EXPECT_THAT(load(file).ToString(), HasSubstr("format"));
  for (const char* value : {"", "x", "0", "-1", "1048577", "99999999999999999999"}) {
    file = good;
    file.metadata["channels"] = value;
    EXPECT_EQ(load(file).code(), absl::StatusCode::kDataLoss) << value;
  }
  file = good;
  file.metadata["image_size"] = "1048576";  // a classifier of petabytes
  EXPECT_THAT(load(file).ToString(), HasSubstr("features.weight"));
  file = good;
  file.tensors.pop_back();
  EXPECT_THAT(load(file).ToString(), HasSubstr("missing"));
  file = good;
  file.tensors.emplace_back("more", at::zeros({1}));
  EXPECT_THAT(load(file).ToString(), HasSubstr("got 9 tensors, expected 8"));
  file = good;
  file.tensors[0].second = file.tensors[0].second.to(at::kDouble);
  EXPECT_EQ(load(file).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Classifier::Load(folder / "missing").status().code(), absl::StatusCode::kNotFound);
}

TEST(ClassifierTest, TheShippedOneRecognisesNineGarmentsInTen) {
  const absl::StatusOr<Classifier> classifier = Classifier::Load(kShipped);
  ASSERT_TRUE(classifier.ok()) << classifier.status();
  const absl::StatusOr<ImageDataset> test = ReadFashionMnist(/*train=*/false);
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_GE(Accuracy(*classifier, *test), 0.9);
}

}  // namespace
}  // namespace boss
