#include "core/flow/velocity_model.h"

#include <ATen/ATen.h>

namespace boss {

at::Tensor FindTensor(const ConditioningTensors& tensors, const std::string& name) {
  for (const auto& [other, tensor] : tensors) {
    if (other == name) return tensor;
  }
  return {};
}

at::Tensor NoCondition(const ConditioningSpec& spec) {
  std::vector<int64_t> shape = spec.shape;
  shape.insert(shape.begin(), 1);
  return at::zeros(shape, spec.dtype);
}

Condition Condition::Slice(int64_t begin, int64_t end) const {
  return Map([&](const at::Tensor& tensor) { return tensor.slice(0, begin, end); });
}

Condition Condition::To(at::Device device) const {
  return Map([&](const at::Tensor& tensor) { return tensor.to(device); });
}

int64_t EvaluationsPerCall(const Condition& condition) {
  const bool has_condition = condition.class_labels.defined() || !condition.tensors.empty();
  return has_condition && condition.guidance_scale != 1.0 ? 2 : 1;
}

int64_t VelocityModel::MemoryBytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : State()) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

at::Tensor GuidedVelocity(const VelocityModel& model, const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) {
  if (EvaluationsPerCall(condition) == 1) return model.Velocity(x_t, t, condition);
  const int64_t batch = x_t.size(0);
  Condition both;
  if (condition.class_labels.defined() || condition.negative_class_labels.defined()) {
    const auto or_none = [&](const at::Tensor& labels) {
      return labels.defined() ? labels : at::full({batch}, model.NumClasses(), t.options().dtype(at::kLong));
    };
    both.class_labels = at::cat({or_none(condition.class_labels), or_none(condition.negative_class_labels)});
  }
  for (const ConditioningSpec& spec : model.ConditioningSpecs()) {
    const auto or_none = [&](const at::Tensor& tensor) {
      if (tensor.defined()) return tensor;
      const at::Tensor none = NoCondition(spec).to(x_t.device());
      std::vector<int64_t> shape = none.sizes().vec();
      shape[0] = batch;
      return none.expand(shape);
    };
    const at::Tensor negative = FindTensor(condition.negative_tensors, spec.name);
    both.tensors.emplace_back(spec.name, at::cat({or_none(FindTensor(condition.tensors, spec.name)), or_none(negative)}));
  }
  const at::Tensor velocity = model.Velocity(at::cat({x_t, x_t}), at::cat({t, t}), both);
  const at::Tensor positive = velocity.slice(0, 0, batch), negative = velocity.slice(0, batch, 2 * batch);
  return at::lerp(negative, positive, condition.guidance_scale);
}

}  // namespace boss
