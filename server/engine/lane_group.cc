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
  // Multistep lanes: those that scale their state by something else than 1, those that use the velocity of the step
  // before, and that of the one before that, each with its factor; and those whose velocities later steps need.
  std::vector<int64_t> scaled, previous, older, kept, kept_older;
  std::vector<float> scaled_by, previous_by, older_by;
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
    for (at::Tensor* tensor : {&states_, &velocities_, &older_velocities_}) {
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

void LaneGroup::AddMultistep(const Lane& lane, int64_t position, Batch& batch) {
  const std::vector<StepCoefficients>& steps = lane.request->solver.coefficients;
  const auto done = static_cast<size_t>(lane.steps_done);
  const StepCoefficients& step = steps[done];
  batch.weights.push_back(static_cast<float>(step.velocities[0]));
  if (step.state != 1) {
    batch.scaled.push_back(position);
    batch.scaled_by.push_back(static_cast<float>(step.state - 1));
  }
  if (step.velocities.size() > 1) {
    batch.previous.push_back(position);
    batch.previous_by.push_back(static_cast<float>(step.velocities[1]));
  }
  if (step.velocities.size() > 2) {
    batch.older.push_back(position);
    batch.older_by.push_back(static_cast<float>(step.velocities[2]));
  }
  // This velocity is the next step's previous one, and the older one of the step after that.
  const auto uses = [&](size_t index, size_t velocities) {
    return index < steps.size() && steps[index].velocities.size() >= velocities;
  };
  if (uses(done + 1, 2) || uses(done + 2, 3)) batch.kept.push_back(position);
  if (uses(done + 1, 3)) batch.kept_older.push_back(position);
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
      if (lane.request->solver.solver == SolverKind::kMultistep) {
        AddMultistep(lane, static_cast<int64_t>(i), batch);
      } else {
        batch.weights.push_back(first_half ? 0 : is_heun ? h / 2 : h);
      }
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
    // Where every lane takes part, as in the batch of one sample, nothing has to be picked out.
    const auto are_all = [&](const std::vector<int64_t>& positions) { return positions.size() == lanes.size(); };
    const auto slots_of = [&](const std::vector<int64_t>& positions) {
      return are_all(positions) ? slots : slots.index_select(0, ToTensor(positions, x.device()));
    };
    const auto add = [&](const std::vector<int64_t>& positions, const std::vector<float>& factors,
                         const at::Tensor* of) {
      if (positions.empty()) return;
      if (are_all(positions)) {
        x_new = at::addcmul(x_new, of == nullptr ? x : of->index_select(0, slots), PerLane(factors, x));
        return;
      }
      const at::Tensor rows = ToTensor(positions, x.device());
      const at::Tensor values =
          of == nullptr ? x.index_select(0, rows) : of->index_select(0, slots.index_select(0, rows));
      x_new = x_new.index_add(0, rows, values * PerLane(factors, x));
    };
    add(batch.scaled, batch.scaled_by, nullptr);
    add(batch.previous, batch.previous_by, &velocities_);
    add(batch.older, batch.older_by, &older_velocities_);
    at::Tensor kept_slots, kept_velocities, older_slots, older_velocities;
    if (!batch.kept_older.empty()) {
      if (!older_velocities_.defined()) older_velocities_ = at::empty_like(states_);
      older_slots = slots_of(batch.kept_older);
      older_velocities = velocities_.index_select(0, older_slots);
    }
    std::vector<int64_t> kept = batch.first_halves;
    kept.insert(kept.end(), batch.kept.begin(), batch.kept.end());
    if (!kept.empty()) {
      if (!velocities_.defined()) velocities_ = at::empty_like(states_);
      kept_slots = slots_of(kept);
      kept_velocities = are_all(kept) ? v : v.index_select(0, ToTensor(kept, x.device()));
    }
    // Nothing has changed so far, and what follows needs no memory.
    states_.index_copy_(0, slots, x_new);
    if (older_slots.defined()) older_velocities_.index_copy_(0, older_slots, older_velocities);
    if (kept_slots.defined()) velocities_.index_copy_(0, kept_slots, kept_velocities);
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
