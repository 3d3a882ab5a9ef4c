#include "core/evaluate/classifier.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/safetensors.h"

namespace boss {
namespace {

constexpr int64_t kConv1Channels = 32;
constexpr int64_t kConv2Channels = 64;
constexpr char kFormat[] = "boss classifier 1";

constexpr int64_t kTrainBatch = 128;
constexpr int64_t kTestBatch = 500;
constexpr double kLearningRate = 2e-3;

struct Sizes {
  int64_t channels, image_size, num_features, num_classes;
};

std::vector<std::pair<std::string, std::vector<int64_t>>> WeightShapes(const Sizes& sizes) {
  const int64_t side = sizes.image_size / 4;
  return {
      {"conv1.weight", {kConv1Channels, sizes.channels, 3, 3}},
      {"conv1.bias", {kConv1Channels}},
      {"conv2.weight", {kConv2Channels, kConv1Channels, 3, 3}},
      {"conv2.bias", {kConv2Channels}},
      {"features.weight", {sizes.num_features, kConv2Channels * side * side}},
      {"features.bias", {sizes.num_features}},
      {"logits.weight", {sizes.num_classes, sizes.num_features}},
      {"logits.bias", {sizes.num_classes}},
  };
}

// \error DATA_LOSS if a size is missing or out of range.
absl::StatusOr<int64_t> SizeFromMetadata(const Safetensors& file, const std::string& key, int64_t minimum) {
  // Far above any use, and low enough that no product of sizes overflows.
  constexpr int64_t kMaximum = 1 << 20;
  const auto found = file.metadata.find(key);
  int64_t value = 0;
  if (found == file.metadata.end() || !absl::SimpleAtoi(found->second, &value) || value < minimum || value > kMaximum) {
    return absl::DataLossError(absl::StrCat("classifier: got ", key, " \"",
                                            found == file.metadata.end() ? "" : found->second,
                                            "\", expected a number in [", minimum, ", ", kMaximum, "]"));
  }
  return value;
}

absl::Status CheckTrainingData(const ImageDataset& data, const Sizes& sizes) {
  const std::array<int64_t, 3> expected = {sizes.channels, sizes.image_size, sizes.image_size};
  if (data.images.dim() != 4 || data.size() < 1 || data.images.sizes().slice(1) != at::IntArrayRef(expected)) {
    return absl::InvalidArgumentError(absl::StrCat("train classifier: got images [",
                                                   absl::StrJoin(data.images.sizes(), ", "), "], expected [N, ",
                                                   absl::StrJoin(expected, ", "), "]"));
  }
  if (!data.labels.defined() || data.labels.size(0) != data.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "train classifier: got ", data.labels.defined() ? data.labels.size(0) : 0, " labels, expected ", data.size()));
  }
  const int64_t lowest = data.labels.min().item<int64_t>(), highest = data.labels.max().item<int64_t>();
  if (lowest < 0 || highest >= sizes.num_classes) {
    return absl::InvalidArgumentError(absl::StrCat("train classifier: got labels in [", lowest, ", ", highest,
                                                   "], expected [0, ", sizes.num_classes - 1, "]"));
  }
  return absl::OkStatus();
}

// Takes its parameters for training and returns them as plain tensors, whatever happens in between.
class GradientScope {
 public:
  explicit GradientScope(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {
    for (at::Tensor& parameter : parameters_) parameter.requires_grad_(true);
  }
  ~GradientScope() {
    for (at::Tensor& parameter : parameters_) {
      parameter.requires_grad_(false);
      parameter.mutable_grad().reset();
    }
  }
  GradientScope(const GradientScope&) = delete;
  GradientScope& operator=(const GradientScope&) = delete;

 private:
  std::vector<at::Tensor> parameters_;
};

}  // namespace

Classifier::Classifier(int64_t channels, int64_t image_size, int64_t num_features, int64_t num_classes, uint64_t seed)
    : channels_(channels), image_size_(image_size), num_features_(num_features), num_classes_(num_classes) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  double bound = 0;
  for (const auto& [name, shape] : WeightShapes({channels, image_size, num_features, num_classes})) {
    at::Tensor weight = at::empty(shape, at::TensorOptions(at::kFloat));
    // He et al. (2015); a bias keeps the bound of the weight before it, as PyTorch's layers do.
    if (shape.size() > 1) bound = 1 / std::sqrt(static_cast<double>(weight[0].numel()));
    weights_.emplace_back(name, weight.uniform_(-bound, bound, generator));
  }
}

at::Tensor Classifier::Features(const at::Tensor& images) const {
  const auto weight = [this](size_t i) -> const at::Tensor& { return weights_[i].second; };
  at::Tensor x = at::conv2d(images, weight(0), weight(1), /*stride=*/1, /*padding=*/1);
  x = at::max_pool2d(at::relu(x), 2);
  x = at::conv2d(x, weight(2), weight(3), /*stride=*/1, /*padding=*/1);
  x = at::max_pool2d(at::relu(x), 2);
  return at::relu(at::linear(x.flatten(1), weight(4), weight(5)));
}

at::Tensor Classifier::Logits(const at::Tensor& images) const {
  return at::linear(Features(images), weights_[6].second, weights_[7].second);
}

std::vector<at::Tensor> Classifier::Parameters() const {
  std::vector<at::Tensor> parameters;
  for (const auto& [name, weight] : weights_) parameters.push_back(weight);
  return parameters;
}

absl::Status Classifier::Save(const std::string& path) const {
  Safetensors file;
  file.tensors = weights_;
  file.metadata = {{"format", kFormat},
                   {"channels", absl::StrCat(channels_)},
                   {"image_size", absl::StrCat(image_size_)},
                   {"num_features", absl::StrCat(num_features_)},
                   {"num_classes", absl::StrCat(num_classes_)}};
  return WriteSafetensors(path, file);
}

absl::StatusOr<Classifier> Classifier::Load(const std::string& path) {
  BOSS_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path));
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != kFormat) {
    return absl::DataLossError(absl::StrCat(path, ": got format \"",
                                            format == file.metadata.end() ? "" : format->second, "\", expected \"",
                                            kFormat, "\""));
  }
  Sizes sizes;
  BOSS_ASSIGN_OR_RETURN(sizes.channels, SizeFromMetadata(file, "channels", 1));
  BOSS_ASSIGN_OR_RETURN(sizes.image_size, SizeFromMetadata(file, "image_size", 4));
  BOSS_ASSIGN_OR_RETURN(sizes.num_features, SizeFromMetadata(file, "num_features", 1));
  BOSS_ASSIGN_OR_RETURN(sizes.num_classes, SizeFromMetadata(file, "num_classes", 1));
  // Before the classifier allocates anything: with these shapes it is no larger than the file.
  const auto shapes = WeightShapes(sizes);
  for (const auto& [name, shape] : shapes) {
    const at::Tensor tensor = file.Find(name);
    if (!tensor.defined()) return absl::DataLossError(absl::StrCat(path, ": the tensor \"", name, "\" is missing"));
    if (tensor.scalar_type() != at::kFloat || tensor.sizes() != at::IntArrayRef(shape)) {
      return absl::DataLossError(absl::StrCat(path, ", \"", name, "\": got ", c10::toString(tensor.scalar_type()), " [",
                                              absl::StrJoin(tensor.sizes(), ", "), "], expected Float [",
                                              absl::StrJoin(shape, ", "), "]"));
    }
  }
  if (file.tensors.size() != shapes.size()) {
    return absl::DataLossError(absl::StrCat(path, ": got ", file.tensors.size(), " tensors, expected ", shapes.size()));
  }
  return GuardTorch("load classifier", [&] {
    Classifier classifier(sizes.channels, sizes.image_size, sizes.num_features, sizes.num_classes, /*seed=*/0);
    for (auto& [name, weight] : classifier.weights_) weight = file.Find(name);
    return classifier;
  });
}

absl::Status TrainClassifier(Classifier& classifier, const ImageDataset& data, int epochs, uint64_t seed,
                             absl::FunctionRef<void(int epoch, double loss)> on_epoch) {
  BOSS_RETURN_IF_ERROR(CheckTrainingData(
      data, {classifier.channels_, classifier.image_size_, classifier.num_features_, classifier.num_classes_}));
  if (epochs < 1)
    return absl::InvalidArgumentError(absl::StrCat("train classifier: got ", epochs, " epochs, expected at least 1"));
  return GuardTorch("train classifier", [&]() -> absl::Status {
    const std::vector<at::Tensor> parameters = classifier.Parameters();
    const GradientScope scope(parameters);
    std::vector<at::Tensor> first_moments, second_moments, step_counts;
    for (const at::Tensor& parameter : parameters) {
      first_moments.push_back(at::zeros_like(parameter));
      second_moments.push_back(at::zeros_like(parameter));
      step_counts.push_back(at::zeros({}, at::TensorOptions(at::kFloat)));
    }
    at::Generator generator = at::detail::createCPUGenerator(seed);
    const int64_t batches = (data.size() + kTrainBatch - 1) / kTrainBatch;
    const double total_steps = static_cast<double>(batches) * epochs;
    for (int epoch = 0; epoch < epochs; ++epoch) {
      const at::Tensor order = at::randperm(data.size(), generator, at::TensorOptions(at::kLong));
      double loss_sum = 0;
      for (int64_t batch = 0; batch < batches; ++batch) {
        const at::Tensor chosen = order.slice(0, batch * kTrainBatch, std::min((batch + 1) * kTrainBatch, data.size()));
        const at::Tensor images = ToModelRange(data.images.index_select(0, chosen));
        const at::Tensor loss = at::cross_entropy_loss(classifier.Logits(images), data.labels.index_select(0, chosen));
        const double loss_value = loss.item<double>();
        if (!std::isfinite(loss_value)) {
          return absl::FailedPreconditionError(
              absl::StrCat("train classifier: the loss of epoch ", epoch, " is not finite"));
        }
        loss_sum += loss_value * static_cast<double>(chosen.size(0));
        loss.backward();
        const c10::NoGradGuard no_grad;
        std::vector<at::Tensor> gradients;
        for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
        for (at::Tensor& count : step_counts) count.add_(1);
        const double progress =
            (static_cast<double>(epoch) * static_cast<double>(batches) + static_cast<double>(batch)) / total_steps;
        const double learning_rate = kLearningRate * (1 + std::cos(std::numbers::pi * progress)) / 2;
        at::_fused_adam_(
            parameters, gradients, first_moments, second_moments, /*max_exp_avg_sqs=*/{}, step_counts, learning_rate,
            /*beta1=*/0.9, /*beta2=*/0.999, /*weight_decay=*/0, /*eps=*/1e-8, /*amsgrad=*/false, /*maximize=*/false);
        for (const at::Tensor& parameter : parameters) parameter.mutable_grad().reset();
      }
      on_epoch(epoch, loss_sum / static_cast<double>(data.size()));
    }
    return absl::OkStatus();
  });
}

double Accuracy(const Classifier& classifier, const ImageDataset& data) {
  int64_t correct = 0;
  for (int64_t begin = 0; begin < data.size(); begin += kTestBatch) {
    const int64_t end = std::min(begin + kTestBatch, data.size());
    const at::Tensor predicted = classifier.Logits(ToModelRange(data.images.slice(0, begin, end))).argmax(1);
    correct += predicted.eq(data.labels.slice(0, begin, end)).sum().item<int64_t>();
  }
  return static_cast<double>(correct) / static_cast<double>(data.size());
}

}  // namespace boss
