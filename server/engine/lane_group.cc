#include "server/engine/lane_group.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "core/base/torch_guard.h"
#include "core/flow/multistep.h"
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

int Lane::history() const {
  switch (request->solver.solver) {
    case SolverKind::kHeun:
      return 1;
    case SolverKind::kMultistep:
      return MostVelocities(request->solver.coefficients) - 1;
    default:
      return 0;
  }
}

int Lane::previous_velocities() const {
  if (request->solver.solver != SolverKind::kMultistep) return in_second_phase ? 1 : 0;
  return static_cast<int>(request->solver.coefficients[static_cast<size_t>(steps_done)].velocities.size()) - 1;
}

// What one evaluation needs to know of its lanes, in their order: those that use most velocities of earlier evaluations
// come first, so that those that use the k-th one before are the first lanes. What some lanes alone need touches no
// other lane, not even by a zero times infinity.
struct LaneGroup::Batch {
  std::vector<int64_t> slots;
  std::vector<float> times;     // at which the velocity is evaluated
  std::vector<int64_t> labels;  // for models with labels; those of the guided once more at the end, the negative ones
  std::vector<std::vector<at::Tensor>> tensors;  // likewise, one row a lane, by the model's ConditioningSpecs()
  // Factors in the new state: of the state (whether any of them is not 1), of the new velocity, and at index k of the
  // velocity that is k + 1 evaluations old, for the lanes that use it, with its row.
  std::vector<float> states, weights;
  bool scales_states = false;
  std::vector<std::vector<float>> previous_weights;
  std::vector<std::vector<int64_t>> previous_rows;
  // By position: second halves of heun steps, with the step size; lanes that need their new velocity again, with the
  // row it goes to; lanes with guidance, with its scale.
  std::vector<int64_t> second_halves, kept, kept_rows, guided;
  std::vector<float> steps, scales;
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

int64_t LaneGroup::VelocityRow(const Lane& lane, int number) const {
  return lane.slot * velocities_per_lane_ + number % lane.history();
}

void LaneGroup::KeepVelocities(int per_lane) {
  if (per_lane <= velocities_per_lane_) return;
  std::vector<int64_t> shape = states_.sizes().vec();
  shape.insert(shape.begin() + 1, per_lane);
  const at::Tensor velocities = at::empty(shape, states_.options());
  if (velocities_.defined()) {
    shape[1] = velocities_per_lane_;
    velocities.slice(1, 0, velocities_per_lane_).copy_(velocities_.view(shape));
  }
  velocities_ = velocities.flatten(0, 1);
  velocities_per_lane_ = per_lane;
}

void LaneGroup::AddStep(const Lane& lane, Batch& batch) const {
  const auto position = static_cast<int64_t>(batch.slots.size());
  const SolverOptions& solver = lane.request->solver;
  const auto h = static_cast<float>(lane.time_grid().StepSize(lane.steps_done));
  batch.slots.push_back(lane.slot);
  batch.times.push_back(static_cast<float>(lane.in_second_phase ? lane.time_grid()[lane.steps_done + 1] : lane.t()));
  if (lane.rows() == 2) {
    batch.guided.push_back(position);
    batch.scales.push_back(static_cast<float>(lane.request->condition.guidance_scale));
  }
  StepCoefficients step{.velocities = {h}};
  int number = 0;  // of the evaluation among those whose velocities are kept
  bool is_kept = false;
  if (solver.solver == SolverKind::kMultistep) {
    step = solver.coefficients[static_cast<size_t>(lane.steps_done)];
    number = lane.steps_done;
    is_kept = lane.history() > 0 && number + 1 < lane.time_grid().steps();
  } else if (lane.in_second_phase) {
    step.velocities = {h / 2, h / 2};
    number = 1;
    batch.second_halves.push_back(position);
    batch.steps.push_back(h);
  } else if (solver.solver == SolverKind::kHeun) {
    step.velocities = {0};
    is_kept = true;
  }
  batch.states.push_back(static_cast<float>(step.state));
  batch.scales_states = batch.scales_states || step.state != 1;
  batch.weights.push_back(static_cast<float>(step.velocities[0]));
  for (size_t k = 1; k < step.velocities.size(); ++k) {
    if (batch.previous_rows.size() < k) {
      batch.previous_rows.emplace_back();
      batch.previous_weights.emplace_back();
    }
    batch.previous_rows[k - 1].push_back(VelocityRow(lane, number - static_cast<int>(k)));
    batch.previous_weights[k - 1].push_back(static_cast<float>(step.velocities[k]));
  }
  if (is_kept) {
    batch.kept.push_back(position);
    batch.kept_rows.push_back(VelocityRow(lane, number));
  }
}

absl::Status LaneGroup::Evaluate(absl::Span<Lane* const> lanes) {
  return GuardTorch("sampling", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    std::vector<Lane*> ordered(lanes.begin(), lanes.end());
    std::stable_sort(ordered.begin(), ordered.end(),
                     [](const Lane* a, const Lane* b) { return a->previous_velocities() > b->previous_velocities(); });
    int history = 0;
    for (const Lane* lane : ordered) history = std::max(history, lane->history());
    KeepVelocities(history);
    Batch batch;
    batch.tensors.resize(specs_.size());
    for (const Lane* lane : ordered) {
      AddStep(*lane, batch);
      const Condition& condition = lane->request->condition;
      AddCondition(condition.class_labels, condition.tensors, lane->index, batch);
    }
    for (const int64_t i : batch.guided) {
      const Lane& lane = *ordered[static_cast<size_t>(i)];
      const Condition& condition = lane.request->condition;
      AddCondition(condition.negative_class_labels, condition.negative_tensors, lane.index, batch);
    }
    const at::Device device = states_.device();
    const at::Tensor slots = ToTensor(batch.slots, device);
    const at::Tensor x = states_.index_select(0, slots);
    std::vector<at::Tensor> previous;  // of the first lanes
    for (const std::vector<int64_t>& rows : batch.previous_rows)
      previous.push_back(velocities_.index_select(0, ToTensor(rows, device)));
    at::Tensor input = x;
    if (!batch.second_halves.empty()) {
      const at::Tensor second = ToTensor(batch.second_halves, device);
      input = x.index_add(0, second, previous[0].index_select(0, second) * PerLane(batch.steps, x));
    }
    const at::Tensor v = Velocity(batch, input);
    at::Tensor x_new = at::addcmul(batch.scales_states ? x * PerLane(batch.states, x) : x, v, PerLane(batch.weights, x));
    for (size_t k = 0; k < previous.size(); ++k)
      x_new.slice(0, 0, previous[k].size(0)).addcmul_(previous[k], PerLane(batch.previous_weights[k], x));
    at::Tensor kept, kept_rows;
    if (!batch.kept.empty()) {
      kept_rows = ToTensor(batch.kept_rows, device);
      kept = batch.kept.size() == lanes.size() ? v : v.index_select(0, ToTensor(batch.kept, device));
    }
    // No lane has changed so far, and what follows needs no memory.
    states_.index_copy_(0, slots, x_new);
    if (kept.defined()) velocities_.index_copy_(0, kept_rows, kept);
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
