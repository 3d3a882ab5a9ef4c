// TorchScript alone, because its headers are slow to compile.
#include <c10/core/GradMode.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <exception>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/torch_guard.h"
#include "core/evaluate/features.h"

namespace boss {
namespace {

class TorchScriptFeatures final : public FeatureNetwork {
 public:
  TorchScriptFeatures(torch::jit::Module module, std::string description)
      : module_(std::move(module)), description_(std::move(description)) {}

  at::Tensor Features(const at::Tensor& images) const override {
    const c10::NoGradGuard no_grad;
    const c10::IValue result = module_.get_method("forward")({images.to(at::kCPU)});
    TORCH_CHECK(result.isTensor(), description_, ": forward() returned ", result.tagKind(), ", expected a tensor");
    const at::Tensor features = result.toTensor();
    TORCH_CHECK(features.dim() == 2 && features.size(0) == images.size(0), description_,
                ": forward() returned the shape ", features.sizes(), ", expected [", images.size(0), ", D]");
    return features.to(at::kFloat);
  }
  std::string Description() const override { return description_; }

 private:
  const torch::jit::Module module_;
  const std::string description_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FeatureNetwork>> LoadTorchScriptFeatures(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return absl::NotFoundError(absl::StrCat("open ", path, ": no such file"));
  try {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    if (!module.find_method("forward"))
      return absl::DataLossError(absl::StrCat(path, ": the TorchScript module has no forward()"));
    return std::make_unique<TorchScriptFeatures>(
        std::move(module), absl::StrCat("TorchScript ", std::filesystem::path(path).filename().string()));
  } catch (...) {
    const absl::Status status = TorchExceptionToStatus(absl::StrCat("load ", path), std::current_exception());
    return absl::IsResourceExhausted(status) ? status : absl::DataLossError(status.message());
  }
}

}  // namespace boss
