// Networks that turn images into the features of a Frechet distance.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/evaluate/frechet.h"

namespace boss {

// Thread-safe.
class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  // images: [B, C, H, W] float32 in [-1, 1]; the result is [B, D] float32. Throws LibTorch's exceptions.
  virtual at::Tensor Features(const at::Tensor& images) const = 0;
  // Says which features a distance is of, e.g. "classifier classifier.safetensors, 64 features".
  virtual std::string Description() const = 0;
};

// The penultimate layer of a Classifier (classifier.h), from its weight file. \error as ReadSafetensors; DATA_LOSS if it is no classifier.
absl::StatusOr<std::unique_ptr<FeatureNetwork>> LoadClassifierFeatures(const std::string& safetensors_path);

// A TorchScript module that maps [B, C, H, W] float32 in [-1, 1] to [B, D] (an exported Inception gives FID). Loading runs the operator's own
// file: it is for paths that the operator named, never for uploads. \error NOT_FOUND; DATA_LOSS if it cannot be loaded.
absl::StatusOr<std::unique_ptr<FeatureNetwork>> LoadTorchScriptFeatures(const std::string& path);

// Statistics of float images [N, C, H, W] in [-1, 1], batch by batch through `executor`.
// \error INVALID_ARGUMENT if batch_size < 1 or a feature is not finite; what `executor` or LibTorch reports.
absl::StatusOr<FeatureStatistics> ComputeStatistics(const FeatureNetwork& network, const at::Tensor& images, int64_t batch_size,
                                                    StepExecutor& executor);

}  // namespace boss
