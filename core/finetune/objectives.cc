#include "core/finetune/objectives.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/image_dataset.h"
#include "core/solver/record_trajectory.h"

namespace boss {
namespace {

// t [B] with trailing dimensions of size 1, to multiply samples with.
at::Tensor PerSample(const at::Tensor& t, const at::Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[0] = t.size(0);
  return t.view(shape);
}

at::Tensor Select(const at::Tensor& tensor, const at::Tensor& indices) {
  return tensor.defined() ? tensor.index_select(0, indices) : tensor;
}

at::Tensor MeanSquaredError(const at::Tensor& a, const at::Tensor& b) { return (a - b).square().mean(); }

}  // namespace

FlowMatchingObjective::FlowMatchingObjective(at::Tensor images, at::Tensor labels, int64_t batch_size, double label_dropout, bool flip)
    : images_(std::move(images)), labels_(std::move(labels)), batch_size_(batch_size), label_dropout_(label_dropout), flip_(flip) {}

at::Tensor FlowMatchingObjective::Loss(const VelocityModel& model, at::Generator& generator) {
  const at::Device device = model.device();
  const at::Tensor indices = at::randint(images_.size(0), {batch_size_}, generator, at::kLong);
  at::Tensor x_1 = ToModelRange(images_.index_select(0, indices));
  if (flip_) {
    const at::Tensor mirrored = at::rand({batch_size_}, generator) < 0.5;
    x_1 = at::where(PerSample(mirrored, x_1), x_1.flip(-1), x_1);
  }
  Condition condition;
  if (labels_.defined() && model.NumClasses() > 0) {
    const at::Tensor dropped = at::rand({batch_size_}, generator) < label_dropout_;
    condition.class_labels = labels_.index_select(0, indices).masked_fill(dropped, model.NumClasses()).to(device);
  }
  const at::Tensor x_0 = at::randn(x_1.sizes(), generator).to(device);
  const at::Tensor t = at::rand({batch_size_}, generator).to(device);
  x_1 = x_1.to(device);
  const at::Tensor x_t = at::lerp(x_0, x_1, PerSample(t, x_1));
  return MeanSquaredError(model.Velocity(x_t, t, condition), x_1 - x_0);
}

SegmentPairs SegmentPairs::Slice(int64_t begin, int64_t end) const {
  const auto slice = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.slice(0, begin, end) : tensor; };
  return {slice(x_start), slice(x_end), slice(t_start), slice(t_end), slice(segment), slice(class_labels)};
}

absl::StatusOr<SegmentPairs> DrawSegmentPairs(const VelocityModel& model, const at::Tensor& noise, const Condition& condition,
                                              const TimeGrid& fine_grid, absl::Span<const int> knots, int64_t batch_size, StepExecutor& executor) {
  return GuardTorch("drawing pairs", [&]() -> absl::StatusOr<SegmentPairs> {
    const int64_t segments = static_cast<int64_t>(knots.size()) - 1;
    std::vector<SegmentPairs> batches;
    for (int64_t begin = 0; begin < noise.size(0); begin += batch_size) {
      const int64_t end = std::min(begin + batch_size, noise.size(0)), count = end - begin;
      const Condition batch_condition = condition.Slice(begin, end);
      BOSS_ASSIGN_OR_RETURN(const Trajectory trajectory,
                            RecordTrajectory(model, noise.slice(0, begin, end), batch_condition, fine_grid, executor));
      const at::Tensor knot_indices = at::tensor(std::vector<int64_t>(knots.begin(), knots.end()));
      // [B, K + 1, ...]: one noise after the other.
      const at::Tensor visited = trajectory.states.index_select(0, knot_indices).transpose(0, 1);
      std::vector<float> times;
      for (int knot : knots) times.push_back(static_cast<float>(trajectory.time_grid[knot]));
      const at::Tensor t = at::tensor(times);
      SegmentPairs pairs;
      pairs.x_start = visited.slice(1, 0, segments).flatten(0, 1).contiguous();
      pairs.x_end = visited.slice(1, 1, segments + 1).flatten(0, 1).contiguous();
      pairs.t_start = t.slice(0, 0, segments).repeat({count});
      pairs.t_end = t.slice(0, 1, segments + 1).repeat({count});
      pairs.segment = at::arange(segments, at::kLong).repeat({count});
      if (condition.class_labels.defined()) pairs.class_labels = batch_condition.class_labels.repeat_interleave(segments);
      batches.push_back(std::move(pairs));
    }
    const auto join = [&](at::Tensor SegmentPairs::*field) {
      std::vector<at::Tensor> parts;
      for (const SegmentPairs& batch : batches) {
        if ((batch.*field).defined()) parts.push_back(batch.*field);
      }
      return parts.empty() ? at::Tensor() : at::cat(parts);
    };
    return SegmentPairs{join(&SegmentPairs::x_start), join(&SegmentPairs::x_end),   join(&SegmentPairs::t_start),
                        join(&SegmentPairs::t_end),   join(&SegmentPairs::segment), join(&SegmentPairs::class_labels)};
  });
}

at::Tensor StraighteningLoss(const VelocityModel& model, const SegmentPairs& pairs, double guidance_scale) {
  const at::Device device = model.device();
  const at::Tensor x_start = pairs.x_start.to(device), t_start = pairs.t_start.to(device);
  const at::Tensor duration = PerSample(pairs.t_end.to(device) - t_start, x_start);
  const at::Tensor chord = (pairs.x_end.to(device) - x_start) / duration;
  const Condition condition = Condition{pairs.class_labels, guidance_scale}.To(device);
  return (GuidedVelocity(model, x_start, t_start, condition) - chord).square().flatten(1).mean(1);
}

StraighteningObjective::StraighteningObjective(SegmentPairs pairs, int64_t batch_size, double guidance_scale)
    : pairs_(std::move(pairs)), batch_size_(batch_size), guidance_scale_(guidance_scale) {}

at::Tensor StraighteningObjective::Loss(const VelocityModel& model, at::Generator& generator) {
  const at::Tensor indices = at::randint(pairs_.size(), {batch_size_}, generator, at::kLong);
  const SegmentPairs batch{Select(pairs_.x_start, indices), Select(pairs_.x_end, indices),   Select(pairs_.t_start, indices),
                           Select(pairs_.t_end, indices),   Select(pairs_.segment, indices), Select(pairs_.class_labels, indices)};
  return StraighteningLoss(model, batch, guidance_scale_).mean();
}

ReflowObjective::ReflowObjective(SegmentPairs pairs, int steps, int64_t batch_size, double guidance_scale)
    : pairs_(std::move(pairs)), steps_(steps), batch_size_(batch_size), guidance_scale_(guidance_scale) {}

at::Tensor ReflowObjective::Loss(const VelocityModel& model, at::Generator& generator) {
  const at::Device device = model.device();
  const at::Tensor indices = at::randint(pairs_.size(), {batch_size_}, generator, at::kLong);
  const at::Tensor t = (at::randint(steps_, {batch_size_}, generator, at::kLong).to(at::kFloat) / steps_).to(device);
  const at::Tensor x_0 = Select(pairs_.x_start, indices).to(device), x_1 = Select(pairs_.x_end, indices).to(device);
  const Condition condition = Condition{Select(pairs_.class_labels, indices), guidance_scale_}.To(device);
  const at::Tensor x_t = at::lerp(x_0, x_1, PerSample(t, x_1));
  return MeanSquaredError(GuidedVelocity(model, x_t, t, condition), x_1 - x_0);
}

absl::StatusOr<std::vector<double>> LossPerSegment(const VelocityModel& model, const SegmentPairs& pairs, int num_segments, double guidance_scale,
                                                   int64_t batch_size, StepExecutor& executor) {
  return GuardTorch("held-out loss", [&]() -> absl::StatusOr<std::vector<double>> {
    at::Tensor sum = at::zeros({num_segments}, at::kDouble), count = at::zeros({num_segments}, at::kDouble);
    for (int64_t begin = 0; begin < pairs.size(); begin += batch_size) {
      const SegmentPairs batch = pairs.Slice(begin, std::min(begin + batch_size, pairs.size()));
      BOSS_RETURN_IF_ERROR(executor.Run([&] {
        return GuardTorch("held-out loss", [&]() -> absl::Status {
          const c10::NoGradGuard no_grad;
          const at::Tensor loss = StraighteningLoss(model, batch, guidance_scale).to(at::kCPU, at::kDouble);
          sum.index_add_(0, batch.segment, loss);
          count.index_add_(0, batch.segment, at::ones_like(loss));
          return absl::OkStatus();
        });
      }));
    }
    const at::Tensor mean = sum / count;
    return std::vector<double>(mean.const_data_ptr<double>(), mean.const_data_ptr<double>() + num_segments);
  });
}

}  // namespace boss
