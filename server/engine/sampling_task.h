// A request whose batches are not shared: one after another, one solver step a call.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/solver/solver.h"
#include "server/engine/resolve_request.h"
#include "server/engine/sample_request.h"

namespace boss::server {

// States of some samples of one request, which have come equally far.
struct SampleBatch {
  std::vector<int64_t> indices;  // in the request
  at::Tensor x;                  // [count, ...] float32 on the CPU
  int solver_steps = 0;          // done
  double t = 0;
};

// What one solver step brought.
struct StepOutcome {
  absl::Status status;
  int64_t calls = 0;        // of the network
  int64_t evaluations = 0;  // velocity evaluations, summed over the batch's samples
  std::optional<SampleBatch> preview;
  std::optional<SampleBatch> samples;  // a batch that has arrived at t = 1
};

// Cuts a request into batches of at most `max_batch` samples. A deterministic request is cut into batches of
// kDeterministicBatch, the last one filled up: then the kernels see the same shapes, and a sample the same place in its
// batch, whatever is asked for beside it. How a request is cut changes no sample's noise. Not thread-safe: Step()
// belongs to the device's thread.
class SamplingTask {
 public:
  static constexpr int64_t kDeterministicBatch = 8;

  SamplingTask(const SampleRequest& request, ResolvedRequest resolved, int64_t max_batch);

  // \pre !done(). After an error the task must not go on.
  StepOutcome Step();

  bool done() const { return begin_ == num_samples_; }
  SampleProgress progress() const;
  // Velocity evaluations, summed over the samples that have arrived.
  int64_t finished_evaluations() const { return finished_evaluations_; }

 private:
  void StartBatch();

  const ResolvedRequest resolved_;
  const int64_t num_samples_;
  const uint64_t seed_;
  const int preview_interval_;
  const bool deterministic_;
  const int64_t batch_size_;

  int64_t begin_ = 0;  // of the current or next batch
  int64_t end_ = 0;    // of the current batch
  std::unique_ptr<SolverRun> run_;
  int64_t solver_steps_ = 0;
  int64_t finished_evaluations_ = 0;
};

}  // namespace boss::server
