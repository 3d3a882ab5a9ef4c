// Samples in flight on one model version, whoever asked for them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/engine/resolve_request.h"

namespace boss::server {

// One sample on its way through euler, heun or multistep.
struct Lane {
  const ResolvedRequest* request = nullptr;  // solver, times, condition, model
  int64_t index = 0;                         // of the sample in its request
  int64_t slot = 0;                          // row of its state
  int steps_done = 0;                        // solver steps
  bool started = false;                      // its slot holds its state
  bool in_second_phase = false;              // of a heun step: the first velocity is kept
  int64_t evaluations = 0;                   // velocity evaluations

  const TimeGrid& time_grid() const { return request->solver.time_grid; }
  double t() const { return time_grid()[steps_done]; }
  bool done() const { return steps_done == time_grid().steps(); }
  // Of the network's batch.
  int64_t rows() const { return EvaluationsPerCall(request->condition); }
  // Velocities of earlier evaluations that any step uses at most.
  int history() const;
  // That the next evaluation's step uses.
  int previous_velocities() const;
};

// The states of the lanes of one model version, in slots of one tensor, and the one evaluation that moves a batch of
// them on: each lane with its own time, step, solver phase, condition and guidance. An adapter is a version of its own:
// samples of different adapters, or of an adapter and its base, share the base's memory but never a batch.
//
// Results: a sample depends on the other lanes of its batches by float rounding alone (kernels may split another batch
// size in another way).
//
// Not thread-safe, except for what is said below; everything but the slots belongs to the device's thread.
class LaneGroup {
 public:
  // Room for `capacity` lanes, at least one. Lets go of the model with itself.
  LaneGroup(std::shared_ptr<const LoadedModel> model, int64_t capacity);

  const LoadedModel& model() const { return *model_; }

  // Slots are handed out and taken back under the caller's lock, on any thread.
  int64_t free_slots() const { return static_cast<int64_t>(free_.size()); }
  int64_t TakeSlot();
  void ReturnSlot(int64_t slot) { free_.push_back(slot); }
  // Makes room for twice as many lanes; under the caller's lock, on the device's thread. \error what LibTorch reports.
  absl::Status Grow();

  // Puts the noises [count, ...] (float32, CPU) into the slots. \error what LibTorch reports.
  absl::Status Start(absl::Span<const int64_t> slots, const at::Tensor& noises);
  // One velocity evaluation of all `lanes`: an euler or multistep step, or half of a heun step. None is done. \error
  // what LibTorch reports; after RESOURCE_EXHAUSTED the lanes are where they were, after anything else they must not go
  // on.
  absl::Status Evaluate(absl::Span<Lane* const> lanes);
  // The states [count, ...] of the slots, float32 on the CPU: one copy. \error what LibTorch reports.
  absl::StatusOr<at::Tensor> States(absl::Span<const int64_t> slots) const;

 private:
  struct Batch;
  // Adds what a lane's next evaluation needs, its condition aside.
  void AddStep(const Lane& lane, Batch& batch) const;
  // The row of velocities_ that has the velocity of the lane's evaluation `number`.
  int64_t VelocityRow(const Lane& lane, int number) const;
  // Makes room for so many velocities of each lane.
  void KeepVelocities(int per_lane);
  // Adds the condition of one sample of a request to a batch.
  void AddCondition(const at::Tensor& labels, const ConditioningTensors& tensors, int64_t sample, Batch& batch) const;
  at::Tensor Velocity(const Batch& batch, const at::Tensor& x) const;

  const std::shared_ptr<const LoadedModel> model_;
  const std::vector<ConditioningSpec> specs_;
  int64_t capacity_;
  std::vector<int64_t> free_;
  at::Tensor states_;  // [capacity, ...] on the model's device
  // Likewise [capacity velocities_per_lane_, ...]: of each lane the last velocities that it needs again, as a ring; undefined
  // until one is needed.
  at::Tensor velocities_;
  int velocities_per_lane_ = 0;
};

}  // namespace boss::server
