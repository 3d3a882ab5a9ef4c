#include "core/evaluate/features.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/evaluate/classifier.h"

namespace boss {
namespace {

class ClassifierFeatures final : public FeatureNetwork {
 public:
  ClassifierFeatures(Classifier classifier, std::string description)
      : classifier_(std::move(classifier)), description_(std::move(description)) {}

  at::Tensor Features(const at::Tensor& images) const override {
    const c10::NoGradGuard no_grad;
    return classifier_.Features(images.to(at::kCPU));
  }
  std::string Description() const override { return description_; }

 private:
  const Classifier classifier_;
  const std::string description_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FeatureNetwork>> LoadClassifierFeatures(const std::string& safetensors_path) {
  BOSS_ASSIGN_OR_RETURN(Classifier classifier, Classifier::Load(safetensors_path));
  std::string description = absl::StrCat("classifier ", std::filesystem::path(safetensors_path).filename().string(),
                                         ", ", classifier.num_features(), " features");
  return std::make_unique<ClassifierFeatures>(std::move(classifier), std::move(description));
}

absl::StatusOr<FeatureStatistics> ComputeStatistics(const FeatureNetwork& network, const at::Tensor& images,
                                                    int64_t batch_size, StepExecutor& executor) {
  if (batch_size < 1)
    return absl::InvalidArgumentError(absl::StrCat("features: got batch size ", batch_size, ", expected at least 1"));
  FeatureStatistics statistics;
  for (int64_t begin = 0; begin < images.size(0); begin += batch_size) {
    at::Tensor features;
    BOSS_RETURN_IF_ERROR(executor.Run([&] {
      return GuardTorch("compute features", [&]() -> absl::Status {
        features = network.Features(images.slice(0, begin, std::min(begin + batch_size, images.size(0))));
        return absl::OkStatus();
      });
    }));
    BOSS_RETURN_IF_ERROR(statistics.Add(features));
  }
  return statistics;
}

}  // namespace boss
