#include "server/engine/lane_group.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "core/base/torch_guard.h"
#include "server/device/device_backend.h"

namespace boss::server {
namespace {

at::Tensor ToTensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}
at::Tensor ToTensor(const std::vector<float>& values, at::Device device) {
  return at::tensor(values, at::kFloat).to(device);
}

// [B] with trailing dimensions of size 1, to multiply states with.
at::Tensor PerLane(const std::vector<float>& values, const at::Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[0] = static_cast<int64_t>(values.size());
  return ToTensor(values, like.device()).view(shape);
}

}  // namespace

// What one evaluation needs to know of its lanes, in their order. Lanes in the second half of a heun step, those in its
// first half and those with guidance are named by their positions: what they alone need touches no other lane, not even
// by a zero times infinity.
struct LaneGroup::Batch {
  std::vector<int64_t> slots;
  std::vector<float> times;     // at which the velocity is evaluated
  std::vector<int64_t> labels;  // for models with labels; those of the guided once more at the end, the negative ones
  std::vector<std::vector<at::Tensor>> tensors;  // likewise, one row a lane, by the model's ConditioningSpecs()
  std::vector<float> weights;                    // of the new velocity in the new state
  std::vector<int64_t> first_halves;
  std::vector<int64_t> second_halves;
  std::vector<float> steps;  // of the second halves: the step size
  std::vector<int64_t> guided;
  std::vector<float> scales;  // of the guided
};

LaneGroup::LaneGroup(std::shared_ptr<const LoadedModel> model, int64_t capacity)
    : model_(std::move(model)), specs_(model_->network->ConditioningSpecs()), capacity_(capacity) {
  // The lowest slots come first, so that few lanes lie close together.
  for (int64_t slot = capacity - 1; slot >= 0; --slot) free_.push_back(slot);
}

int64_t LaneGroup::TakeSlot() {
  const int64_t slot = free_.back();
  free_.pop_back();
  return slot;
}

absl::Status LaneGroup::Grow() {
  return GuardTorch("more samples in flight", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    for (at::Tensor* tensor : {&states_, &velocities_}) {
      if (tensor->defined()) *tensor = at::cat({*tensor, at::empty_like(*tensor)});
    }
    for (int64_t slot = 2 * capacity_ - 1; slot >= capacity_; --slot) free_.push_back(slot);
    capacity_ *= 2;
    return absl::OkStatus();
  });
}

absl::Status LaneGroup::Start(absl::Span<const int64_t> slots, const at::Tensor& noises) {
  return GuardTorch("starting samples", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    const at::Device device = model_->network->device();
    if (!states_.defined()) {
      std::vector<int64_t> shape = model_->network->SampleShape();
      shape.insert(shape.begin(), capacity_);
      states_ = at::empty(shape, at::TensorOptions(at::kFloat).device(device));
    }
    states_.index_copy_(0, ToTensor(std::vector<int64_t>(slots.begin(), slots.end()), device), noises.to(device));
    return absl::OkStatus();
  });
}

at::Tensor LaneGroup::Velocity(const Batch& batch, const at::Tensor& x) const {
  const VelocityRunner& runner = *model_->runner;
  const at::Device device = x.device();
  const at::Tensor t = ToTensor(batch.times, device);
  Condition condition;
  if (model_->network->NumClasses() > 0) condition.class_labels = ToTensor(batch.labels, device);
  for (size_t i = 0; i < specs_.size(); ++i) {
    condition.tensors.emplace_back(specs_[i].name, at::stack(batch.tensors[i]).to(device));
  }
  if (batch.guided.empty()) return runner.Velocity(x, t, condition);
  // The guided lanes once more, with what guidance leads them away from.
  const at::Tensor guided = ToTensor(batch.guided, device);
  const at::Tensor both =
      runner.Velocity(at::cat({x, x.index_select(0, guided)}), at::cat({t, t.index_select(0, guided)}), condition);
  const at::Tensor velocity = both.slice(0, 0, x.size(0));
  const at::Tensor negative = both.slice(0, x.size(0));
  return velocity.index_copy(0, guided,
                             at::lerp(negative, velocity.index_select(0, guided), PerLane(batch.scales, negative)));
}

void LaneGroup::AddCondition(const at::Tensor& labels, const ConditioningTensors& tensors, int64_t sample,
                             Batch& batch) const {
  batch.labels.push_back(labels.defined() ? labels.const_data_ptr<int64_t>()[sample] : model_->network->NumClasses());
  for (size_t i = 0; i < specs_.size(); ++i) {
    const at::Tensor tensor = FindTensor(tensors, specs_[i].name);
    batch.tensors[i].push_back(tensor.defined() ? tensor[sample] : NoCondition(specs_[i])[0]);
  }
}

absl::Status LaneGroup::Evaluate(absl::Span<Lane* const> lanes) {
  return GuardTorch("sampling", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    Batch batch;
    batch.tensors.resize(specs_.size());
    for (size_t i = 0; i < lanes.size(); ++i) {
      const Lane& lane = *lanes[i];
      const auto h = static_cast<float>(lane.time_grid().StepSize(lane.steps_done));
      const Condition& condition = lane.request->condition;
      const bool is_heun = lane.request->solver.solver == SolverKind::kHeun;
      const bool first_half = is_heun && !lane.in_second_phase;
      batch.slots.push_back(lane.slot);
      batch.times.push_back(
          static_cast<float>(lane.in_second_phase ? lane.time_grid()[lane.steps_done + 1] : lane.t()));
      AddCondition(condition.class_labels, condition.tensors, lane.index, batch);
      batch.weights.push_back(first_half ? 0 : is_heun ? h / 2 : h);
      if (first_half) batch.first_halves.push_back(static_cast<int64_t>(i));
      if (lane.in_second_phase) {
        batch.second_halves.push_back(static_cast<int64_t>(i));
        batch.steps.push_back(h);
      }
      if (lane.rows() == 2) {
        batch.guided.push_back(static_cast<int64_t>(i));
        batch.scales.push_back(static_cast<float>(condition.guidance_scale));
      }
    }
    for (const int64_t i : batch.guided) {
      const Lane& lane = *lanes[static_cast<size_t>(i)];
      const Condition& condition = lane.request->condition;
      AddCondition(condition.negative_class_labels, condition.negative_tensors, lane.index, batch);
    }
    const at::Tensor slots = ToTensor(batch.slots, states_.device());
    const at::Tensor x = states_.index_select(0, slots);
    at::Tensor input = x, second, euler;
    if (!batch.second_halves.empty()) {
      second = ToTensor(batch.second_halves, states_.device());
      euler = velocities_.index_select(0, slots.index_select(0, second)) * PerLane(batch.steps, x);
      input = x.index_add(0, second, euler);
    }
    const at::Tensor v = Velocity(batch, input);
    at::Tensor x_new = at::addcmul(x, v, PerLane(batch.weights, x));
    if (second.defined()) x_new = x_new.index_add(0, second, euler, 0.5);
    at::Tensor first_slots, first_velocities;
    if (!batch.first_halves.empty()) {
      if (!velocities_.defined()) velocities_ = at::empty_like(states_);
      const at::Tensor first = ToTensor(batch.first_halves, states_.device());
      first_slots = slots.index_select(0, first);
      first_velocities = v.index_select(0, first);
    }
    // Nothing has changed so far, and what follows needs no memory.
    states_.index_copy_(0, slots, x_new);
    if (first_slots.defined()) velocities_.index_copy_(0, first_slots, first_velocities);
    for (Lane* lane : lanes) {
      lane->evaluations += lane->rows();
      const bool first_half = lane->request->solver.solver == SolverKind::kHeun && !lane->in_second_phase;
      lane->in_second_phase = first_half;
      if (!first_half) ++lane->steps_done;
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<at::Tensor> LaneGroup::States(absl::Span<const int64_t> slots) const {
  return GuardTorch("samples", [&] {
    const c10::InferenceMode inference_mode;
    return ToHost(
        states_.index_select(0, ToTensor(std::vector<int64_t>(slots.begin(), slots.end()), states_.device())));
  });
}

}  // namespace boss::server
