// The three losses: flow matching from data, straightening to Bellman segments, and the reflow baseline.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/step_executor.h"
#include "core/finetune/trainer.h"
#include "core/flow/schedule.h"
#include "core/flow/velocity_model.h"

namespace boss {

// Conditional flow matching with the straight path (Lipman et al., ICLR 2023; Liu et al., ICLR 2023):
//   x_t = t x_1 + (1 - t) x_0, x_0 ~ N(0, I), t ~ U[0, 1]; loss = mean || v(x_t, t) - (x_1 - x_0) ||^2.
class FlowMatchingObjective final : public TrainingObjective {
 public:
  // images: uint8 [N, C, H, W], mapped to [-1, 1]; labels: int64 [N] or undefined. Each label is replaced by 'no label'
  // with probability `label_dropout`; `flip` mirrors half of the images.
  FlowMatchingObjective(at::Tensor images, at::Tensor labels, int64_t batch_size, double label_dropout, bool flip);
  at::Tensor Loss(const VelocityModel& model, at::Generator& generator) override;
  int64_t batch_size() const override { return batch_size_; }

 private:
  at::Tensor images_, labels_;
  int64_t batch_size_;
  double label_dropout_;
  bool flip_;
};

// What straightening learns from: N segments of fine trajectories, on the CPU. Reflow is the case of pairs over [0, 1].
struct SegmentPairs {
  at::Tensor x_start, x_end;  // [N, ...] float32
  at::Tensor t_start, t_end;  // [N] float32
  at::Tensor segment;         // int64 [N], index of the segment in its schedule
  at::Tensor class_labels;    // int64 [N] or undefined
  int64_t size() const { return x_start.size(0); }
  SegmentPairs Slice(int64_t begin, int64_t end) const;
};

// Runs the Euler trajectory of `model` over the fine grid from each noise and cuts it at the schedule's knots: for B
// noises the K B pairs, those of one noise next to each other. \error what the executor or LibTorch reports.
absl::StatusOr<SegmentPairs> DrawSegmentPairs(const VelocityModel& model, const at::Tensor& noise,
                                              const Condition& condition, const TimeGrid& fine_grid,
                                              absl::Span<const int> knots, int64_t batch_size, StepExecutor& executor);

// What learns from pairs.
class PairObjective : public TrainingObjective {
 public:
  // From the next Loss on.
  virtual void SetPairs(SegmentPairs pairs) = 0;
};

// Straightening, stage 2 of BOSS: mean || v(x_start, t_start) - (x_end - x_start) / (t_end - t_start) ||^2 over a batch
// drawn from `pairs`.
class StraighteningObjective final : public PairObjective {
 public:
  // guidance_scale: that of the trajectories; the loss is on the guided velocity.
  StraighteningObjective(SegmentPairs pairs, int64_t batch_size, double guidance_scale);
  void SetPairs(SegmentPairs pairs) override { pairs_ = std::move(pairs); }
  at::Tensor Loss(const VelocityModel& model, at::Generator& generator) override;
  int64_t batch_size() const override { return batch_size_; }

 private:
  SegmentPairs pairs_;
  int64_t batch_size_;
  double guidance_scale_;
};

// The loss of given pairs, one value a pair: [N], the mean over the sample's elements.
at::Tensor StraighteningLoss(const VelocityModel& model, const SegmentPairs& pairs, double guidance_scale);

// The reflow baseline (Liu et al., ICLR 2023) for K uniform steps: pairs over [0, 1], t drawn from {0, 1/K, ..,
// (K-1)/K}, x_t = t x_1 + (1 - t) x_0, loss = mean || v(x_t, t) - (x_1 - x_0) ||^2.
class ReflowObjective final : public PairObjective {
 public:
  ReflowObjective(SegmentPairs pairs, int steps, int64_t batch_size, double guidance_scale);
  void SetPairs(SegmentPairs pairs) override { pairs_ = std::move(pairs); }
  at::Tensor Loss(const VelocityModel& model, at::Generator& generator) override;
  int64_t batch_size() const override { return batch_size_; }

 private:
  SegmentPairs pairs_;
  int steps_;
  int64_t batch_size_;
  double guidance_scale_;
};

// Mean straightening loss of each segment 0 .. num_segments - 1 over held-out pairs, without gradients, in batches
// through `executor`.
absl::StatusOr<std::vector<double>> LossPerSegment(const VelocityModel& model, const SegmentPairs& pairs,
                                                   int num_segments, double guidance_scale, int64_t batch_size,
                                                   StepExecutor& executor);

}  // namespace boss
