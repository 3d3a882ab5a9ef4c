// A small convolutional classifier, trained on labelled images, whose penultimate layer serves as features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "core/io/image_dataset.h"

namespace boss {

// conv3x3 - relu - max pool, conv3x3 - relu - max pool, linear - relu (the features), linear. Const methods are thread-safe.
class Classifier {
 public:
  // First weights drawn from `seed`. \pre image_size >= 4, the others >= 1.
  Classifier(int64_t channels, int64_t image_size, int64_t num_features, int64_t num_classes, uint64_t seed);

  // images: [B, C, H, W] float32 in [-1, 1].
  at::Tensor Features(const at::Tensor& images) const;  // [B, num_features]
  at::Tensor Logits(const at::Tensor& images) const;    // [B, num_classes]

  // As safetensors with the sizes in its metadata.
  absl::Status Save(const std::string& path) const;
  static absl::StatusOr<Classifier> Load(const std::string& path);

  int64_t num_features() const { return num_features_; }
  std::vector<at::Tensor> Parameters() const;

 private:
  friend absl::Status TrainClassifier(Classifier&, const ImageDataset&, int, uint64_t, absl::FunctionRef<void(int epoch, double loss)>);
  int64_t channels_, image_size_, num_features_, num_classes_;
  std::vector<std::pair<std::string, at::Tensor>> weights_;
};

// Adam with a falling learning rate, cross entropy, `epochs` passes in an order drawn from `seed`.
// \error INVALID_ARGUMENT if images or labels do not fit the classifier; FAILED_PRECONDITION if the loss is not finite.
absl::Status TrainClassifier(Classifier& classifier, const ImageDataset& data, int epochs, uint64_t seed,
                             absl::FunctionRef<void(int epoch, double loss)> on_epoch);

// The share of images whose largest logit is their label.
double Accuracy(const Classifier& classifier, const ImageDataset& data);

}  // namespace boss
