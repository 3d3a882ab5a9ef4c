// Velocities with known flows.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/flow/velocity_model.h"

namespace boss::testing {

// v(x, t) = f(x, t), without parameters. Samples are vectors of `dim`.
class FunctionModel final : public VelocityModel {
 public:
  using Function = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& t, const Condition& condition)>;

  explicit FunctionModel(Function function, int64_t dim = 2, int64_t num_classes = 0, std::vector<ConditioningSpec> specs = {})
      : function_(std::move(function)), dim_(dim), num_classes_(num_classes), specs_(std::move(specs)) {}

  at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const override {
    return function_(x_t, t, condition);
  }
  std::vector<int64_t> SampleShape() const override { return {dim_}; }
  int64_t NumClasses() const override { return num_classes_; }
  std::vector<ConditioningSpec> ConditioningSpecs() const override { return specs_; }
  std::vector<std::pair<std::string, at::Tensor>> Parameters() const override { return {}; }
  std::vector<std::pair<std::string, at::Tensor>> State() const override { return {}; }
  std::unique_ptr<VelocityModel> Clone() const override { return std::make_unique<FunctionModel>(*this); }
  void To(at::Device device) override {}
  at::Device device() const override { return at::kCPU; }
  absl::Status AttachLora(const LoraOptions& options, uint64_t seed) override { return absl::UnimplementedError("no weights"); }
  void MergeLora() override {}

 private:
  Function function_;
  int64_t dim_, num_classes_;
  std::vector<ConditioningSpec> specs_;
};

// dx/dt = rate x: x_1 = e^rate x_0.
inline FunctionModel ExponentialFlow(double rate) {
  return FunctionModel([rate](const at::Tensor& x, const at::Tensor&, const Condition&) { return x * rate; });
}

// dx/dt = 3 t^2 c: x_1 = x_0 + c. The velocity does not depend on x.
inline FunctionModel CubicFlow(double c) {
  return FunctionModel(
      [c](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (t.square() * (3 * c)).unsqueeze(1).expand_as(x).contiguous(); });
}

}  // namespace boss::testing
