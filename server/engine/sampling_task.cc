#include "server/engine/sampling_task.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "core/base/torch_guard.h"
#include "core/flow/noise.h"

namespace boss::server {

SamplingTask::SamplingTask(const SampleRequest& request, ResolvedRequest resolved, int64_t max_batch)
    : resolved_(std::move(resolved)),
      num_samples_(request.num_samples),
      seed_(request.seed),
      preview_interval_(request.preview_interval),
      max_batch_(max_batch) {}

void SamplingTask::StartBatch() {
  const VelocityModel& network = *resolved_.model->network;
  end_ = std::min(begin_ + max_batch_, num_samples_);
  at::Tensor noise = resolved_.initial_noise.defined()
                         ? resolved_.initial_noise.slice(0, begin_, end_)
                         : SampleNoise(seed_, begin_, end_ - begin_, network.SampleShape());
  run_ = std::make_unique<SolverRun>(network, noise.to(network.device()),
                                     resolved_.condition.Slice(begin_, end_).To(network.device()), resolved_.solver);
}

StepOutcome SamplingTask::Step() {
  StepOutcome outcome;
  outcome.status = GuardTorch("sampling", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    if (!run_) StartBatch();
    const int64_t count = end_ - begin_;
    const int64_t evaluations_before = run_->evaluations();
    if (absl::Status status = run_->Step(); !status.ok()) return status;
    outcome.evaluations = (run_->evaluations() - evaluations_before) * count;
    solver_steps_ += count;
    const bool arrived = run_->done();
    const bool wants_preview = preview_interval_ > 0 && run_->steps_done() % preview_interval_ == 0;
    if (!arrived && !wants_preview) return absl::OkStatus();
    SampleBatch batch = {
        .first_index = begin_, .x = run_->x().to(at::kCPU), .solver_steps = run_->steps_done(), .t = run_->t()};
    if (!arrived) {
      outcome.preview = std::move(batch);
      return absl::OkStatus();
    }
    outcome.samples = std::move(batch);
    finished_evaluations_ += run_->evaluations() * count;
    run_.reset();
    begin_ = end_;
    return absl::OkStatus();
  });
  return outcome;
}

SampleProgress SamplingTask::progress() const {
  return {.solver_steps = solver_steps_,
          .total_solver_steps = resolved_.accepted.steps * num_samples_,
          .samples_done = begin_};
}

double SamplingTask::nfe() const {
  return begin_ == 0 ? 0.0 : static_cast<double>(finished_evaluations_) / static_cast<double>(begin_);
}

}  // namespace boss::server
