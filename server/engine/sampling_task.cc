#include "server/engine/sampling_task.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/torch_guard.h"
#include "core/flow/noise.h"
#include "server/device/device_backend.h"

namespace boss::server {
namespace {

// Repeats the last row until there are `rows`.
at::Tensor FillUp(const at::Tensor& tensor, int64_t rows) {
  const int64_t missing = rows - tensor.size(0);
  if (missing <= 0) return tensor;
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[0] = missing;
  return at::cat({tensor, tensor.slice(0, tensor.size(0) - 1).expand(shape)});
}

}  // namespace

SamplingTask::SamplingTask(const SampleRequest& request, ResolvedRequest resolved, int64_t max_batch)
    : resolved_(std::move(resolved)),
      num_samples_(request.num_samples),
      seed_(request.seed),
      preview_interval_(request.preview_interval),
      deterministic_(request.deterministic),
      batch_size_(request.deterministic ? kDeterministicBatch : max_batch) {}

void SamplingTask::StartBatch() {
  const VelocityModel& network = *resolved_.model->network;
  end_ = std::min(begin_ + batch_size_, num_samples_);
  at::Tensor noise = resolved_.initial_noise.defined()
                         ? resolved_.initial_noise.slice(0, begin_, end_)
                         : SampleNoise(seed_, begin_, end_ - begin_, network.SampleShape());
  Condition condition = resolved_.condition.Slice(begin_, end_);
  if (deterministic_) {
    noise = FillUp(noise, batch_size_);
    condition = condition.Map([&](const at::Tensor& tensor) { return FillUp(tensor, batch_size_); });
  }
  run_ = std::make_unique<SolverRun>(network, noise.to(network.device()), condition.To(network.device()),
                                     resolved_.solver);
}

StepOutcome SamplingTask::Step() {
  StepOutcome outcome;
  outcome.status = GuardTorch("sampling", [&]() -> absl::Status {
    const c10::InferenceMode inference_mode;
    if (!run_) StartBatch();
    const int64_t count = end_ - begin_;
    const int64_t evaluations_before = run_->evaluations();
    if (absl::Status status = run_->Step(); !status.ok()) return status;
    outcome.calls = run_->evaluations() - evaluations_before;
    outcome.evaluations = outcome.calls * count;
    solver_steps_ += count;
    const bool arrived = run_->done();
    const bool wants_preview = preview_interval_ > 0 && run_->steps_done() % preview_interval_ == 0;
    if (!arrived && !wants_preview) return absl::OkStatus();
    SampleBatch batch = {.indices = std::vector<int64_t>(static_cast<size_t>(count)),
                         .x = ToHost(run_->x().slice(0, 0, count)),
                         .solver_steps = run_->steps_done(),
                         .t = run_->t()};
    std::iota(batch.indices.begin(), batch.indices.end(), begin_);
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

}  // namespace boss::server
