#include "core/flow/velocity_model.h"

#include <ATen/ATen.h>

namespace boss {

Condition Condition::Slice(int64_t begin, int64_t end) const {
  Condition slice = *this;
  if (class_labels.defined()) slice.class_labels = class_labels.slice(0, begin, end);
  return slice;
}

Condition Condition::To(at::Device device) const {
  Condition moved = *this;
  if (class_labels.defined()) moved.class_labels = class_labels.to(device);
  return moved;
}

int64_t EvaluationsPerCall(const Condition& condition) {
  return condition.class_labels.defined() && condition.guidance_scale != 1.0 ? 2 : 1;
}

int64_t VelocityModel::MemoryBytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : State()) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

at::Tensor GuidedVelocity(const VelocityModel& model, const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) {
  if (EvaluationsPerCall(condition) == 1) return model.Velocity(x_t, t, condition);
  Condition both;
  both.class_labels = at::cat({condition.class_labels, at::full_like(condition.class_labels, model.NumClasses())});
  const at::Tensor velocity = model.Velocity(at::cat({x_t, x_t}), at::cat({t, t}), both);
  const int64_t batch = x_t.size(0);
  const at::Tensor labelled = velocity.slice(0, 0, batch);
  const at::Tensor unlabelled = velocity.slice(0, batch, 2 * batch);
  return at::lerp(unlabelled, labelled, condition.guidance_scale);
}

}  // namespace boss
